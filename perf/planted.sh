#!/usr/bin/env bash
# Does the gate see a slowdown of less than 10 %, and no other? Builds a copy of this tree in which sealing hashes two parts of every record again,
# and compares it with the tree itself in interleaved pairs: the copy must fail. Then five times the tree with itself: each must pass.
#   perf/planted.sh [PAIRS]            # default 40; a few minutes, most of them for the two builds
# PLANTED_PERCENT=N hashes N % of each record again, twice. What that comes to in CPU-seconds depends on the processor: it is printed (add.cpu, x ...).
# With PLANTED=FILE (and MIRROR, MIRROR_BENCH) nothing is built.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
pairs=${1:-40}
percent=${PLANTED_PERCENT:-64}
cd "$repository"
build_mirror
bench=${MIRROR_BENCH:-}
if [ -z "$bench" ]; then
  cargo build --release --quiet --bin mirror-bench
  bench="${CARGO_TARGET_DIR:-$repository/target}/release/mirror-bench"
fi
work=$(work_directory planted)
trap 'rm -rf "$work"' EXIT

if [ -z "${PLANTED:-}" ]; then
  mkdir "$work/tree"
  git ls-files -z | xargs -0 cp --parents -t "$work/tree"
  hashed='Self { kind, length: record.len() as u32, id: \*blake3::hash(record).as_bytes() }'
  again="for _ in 0..2 { std::hint::black_box(blake3::hash(\&record[..record.len() * $percent / 100])); }"
  sed -i "s|$hashed|$again\n        &|" "$work/tree/engine/src/frame.rs"
  grep -q black_box "$work/tree/engine/src/frame.rs" || { echo "engine/src/frame.rs has changed: say anew where to plant" >&2; exit 1; }
  # Not target/release: what lies there must stay what the tree is.
  (cd "$work/tree" && cargo build --release --quiet --bin mirror --target-dir "$repository/target/planted")
  PLANTED="$repository/target/planted/release/mirror"
fi

cp "$MIRROR" "$work/old"
cp "$PLANTED" "$work/planted"
gate() { TMPDIR="$work" "$bench" gate --only-against --against "$work/old" --mirror "$1" --pairs "$pairs" --quiet; }
wrong=0

printf '\n== planted: %s %% of each record hashed again, twice; the gate must fail\n' "$percent"
if gate "$work/planted"; then
  echo "WRONG: the gate passed a planted slowdown"
  wrong=1
fi
cp "$MIRROR" "$work/same"
for run in 1 2 3 4 5; do
  printf '\n== unchanged, run %s of 5; the gate must pass\n' "$run"
  gate "$work/same" || { echo "WRONG: the gate failed an unchanged build"; wrong=1; }
done
exit "$wrong"
