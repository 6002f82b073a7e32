#!/usr/bin/env bash
# What two daemons cost at rest with many objects, and how soon a value that another process puts is durable at the other one.
#   perf/daemon.sh [--keys N] [--seconds N] [--puts N]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
build_mirror # mirord lies beside it
work=$(work_directory daemon)
trap 'rm -rf "$work"' EXIT
python3 "$repository/perf/daemon.py" --work "$work" "$@"
