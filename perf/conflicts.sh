#!/usr/bin/env bash
# A million keys and ten thousand conflicts: listed, decided in bulk, and a view made anew.
#   perf/conflicts.sh [--keys N] [--conflicts N] [--rounds N]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
build_mirror
work=$(work_directory conflicts)
trap 'rm -rf "$work"' EXIT
python3 "$repository/perf/conflicts.py" --work "$work" "$@"
