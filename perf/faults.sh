#!/usr/bin/env bash
# Faults that need root or minutes: power cuts on a real file system, and kills. perf/faults.sh [ROUNDS [SEED]]; about 2 minutes.
# What this machine does not allow is said loudly on stderr and is no failure.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
rounds=${1:-24} seed=${2:-1}

if ! command -v python3 >/dev/null 2>&1; then
  skipped "power cuts and kills: python3 is not installed"
  exit 0
fi
build_mirror
work=$(work_directory faults)
trap 'rm -rf "$work"' EXIT

for what in cut kill; do
  status=0
  mkdir "$work/$what"
  timeout 180 python3 "$repository/perf/powercut.py" "$what" --work "$work/$what" --rounds "$rounds" --seed "$seed" >"$work/$what.log" 2>&1 || status=$?
  case $status in
    0) tail -n 1 "$work/$what.log" ;;
    77) skipped "power cuts: $(tail -n 1 "$work/$what.log")" ;;
    *)
      cat "$work/$what.log" >&2
      exit 1
      ;;
  esac
done
