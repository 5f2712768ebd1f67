#!/usr/bin/env bash
# Prints the stripped sizes of the release binaries and fails when one outgrows its promise.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
check() { # name file limit-in-bytes
  local size
  # Cargo does not strip what belongs to a package with a profile of its own.
  strip -o "$stripped" "$2"
  size=$(stat -c %s "$stripped")
  printf '%-22s %9d bytes (limit %d)\n' "$1" "$size" "$3"
  [ "$size" -le "$3" ] || { echo "$1 is larger than promised" >&2; exit 1; }
}
check "infer" "$target/release/infer" 6000000
check "library-only example" "$target/release/examples/embed" 1500000
