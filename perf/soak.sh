#!/usr/bin/env bash
# Two replicas that follow each other over a link that is cut and restored every few seconds, while both are written to.
#   perf/soak.sh [--daemon] [--seconds N] [--seed N] [--limit-s S] [--memory-limit-mib M] [--json FILE]
# Needs root and iproute2: the link is its own. Fails when anything acknowledged is lost or a limit is not kept.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then
  skipped "soak: it needs root and iproute2 for a link of its own"
  exit 0
fi
build_mirror # mirord lies beside it
work=$(work_directory soak)
trap 'rm -rf "$work"' EXIT
python3 "$repository/perf/soak.py" --work "$work" "$@"
