#!/usr/bin/env bash
# Vault to vault over a link of its own: two network namespaces and a veth pair, iperf3 over it in the same round.
#   perf/link.sh [--rounds N] [--mtu N] [--rate RATE] [--mib N | --files N] [--push FLAGS]... [--serve FLAGS] [--json FILE]
# Needs root and iproute2. TARGET_DIR=DIR puts the receiving vaults there, for another file system than that of the rest.
# With NETNS_A, NETNS_B and ADDRESS_B it measures over a link that is there already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
build_mirror
work=$(work_directory link)
trap 'rm -rf "$work"' EXIT
python3 "$repository/perf/link.py" --work "$work" "$@"
