#!/usr/bin/env bash
# Measures this machine and writes the planner's prices of an instruction set: about four minutes.
#   benches/fit.sh "MACHINE, DATE" [ISA]     (BENCH: the program; RUN: what each measurement is started with, such as
#   "taskset -c 1"; ROUNDS: how often everything is measured, the best counts; OUT: where measurements go)
set -euo pipefail
cd "$(dirname "$0")/.."
machine=${1:?the machine and date, for the head of the file}
isa=${2:-avx512}
bench=${BENCH:-target/release/bench}
out=${OUT:-$(mktemp -d)}
for round in $(seq "${ROUNDS:-1}"); do
  for case in contest sface mobilefacenet resnet50 vgg16 large bad linear; do
    # shellcheck disable=SC2086
    ${RUN:-} "$bench" conv --fit --isa "$isa" --zeros 0,50,80,95 --case "$case" --millis 10 --json >"$out/$case-$round.json"
  done
done
"$bench" fit "$out"/*.json --isa "$isa" --machine "$machine" >"$out/table.rs"
mv "$out/table.rs" "runtime/src/cost_table/$isa.rs"
