#!/usr/bin/env bash
# A vault of 100 GiB, and no process may have more than 128 MiB of memory: made, listed, verified, read, replicated.
#   perf/large.sh [--gib N] [--memory-mib N]
# Needs root for a control group of memory, and 2 GiB of disk for 100 GiB: the files are sparse, and their chunks compress.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
if ! [ -w /sys/fs/cgroup/memory ] && ! [ -w /sys/fs/cgroup/cgroup.subtree_control ]; then
  skipped "large: this user makes no control groups of memory"
  exit 0
fi
build_mirror
# On a disk: what lies in memory would count.
work=$(TMPDIR=${TMPDIR:-/var/tmp} work_directory large)
trap 'rm -rf "$work"' EXIT
python3 "$repository/perf/large.py" --work "$work" "$@"
