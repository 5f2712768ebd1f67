#!/usr/bin/env bash
# Prints a command of the README by its marker, so that CI runs what the README says and nothing else.
# usage: readme_command.sh test|quickstart
set -euo pipefail
cd "$(dirname "$0")/.."
line=$(awk -v tag="<!-- command: ${1:?which command} -->" '$0 == tag { getline; getline; print; exit }' README.md)
[ -n "$line" ] || { echo "README.md has no command '$1'" >&2; exit 1; }
printf '%s\n' "$line"
