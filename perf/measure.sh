#!/usr/bin/env bash
# Measures what was asked for, on this machine, and prints asked, measured and how: perf/measure.sh [--quick] [--rounds N] [--json FILE]
# Data lies in memory (/dev/shm, or $TMPDIR). Takes some minutes and 8 GiB; --quick is 16 times smaller and only shows that it works.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
build_mirror
work=$(work_directory measure)
trap 'rm -rf "$work"' EXIT
python3 "$repository/perf/measure.py" --work "$work" "$@"
