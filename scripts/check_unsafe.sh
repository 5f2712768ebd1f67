#!/usr/bin/env bash
# `unsafe` may appear only in the files listed here; each has a reason at its head.
set -euo pipefail
cd "$(dirname "$0")/.."
allowed='^(format/src/source_mmap\.rs|format/src/codec/(expand_bmi2|unchecked)\.rs|kernels/src/simd/(avx2|avx512|mod)\.rs|runtime/src/(memory|threads)\.rs)$'
found=$(git grep -lE '\bunsafe\b' -- '*.rs' ':!*/tests/*' | while read -r file; do
  # comments and lint names do not count
  if sed -E 's://.*$::; s/unsafe_[a-z_]+//g' "$file" | grep -qE '\bunsafe\b'; then echo "$file"; fi
done | grep -vE "$allowed" || true)
if [ -n "$found" ]; then
  printf 'unsafe outside the files named for it:\n%s\n' "$found" >&2
  exit 1
fi
