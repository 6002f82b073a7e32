# For the scripts here: where they are, the program that they run, and saying loudly what is left out.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Says that something is not done here, and why.
skipped() { printf 'SKIPPED: %s\n' "$*" >&2; }

# Builds the release program once and names it in $MIRROR; an existing $MIRROR is taken as it is.
build_mirror() {
  if [ -z "${MIRROR:-}" ]; then
    (cd "$repository" && cargo build --release --quiet --bin mirror --bin mirord)
    MIRROR="${CARGO_TARGET_DIR:-$repository/target}/release/mirror"
  fi
  export MIRROR
  "$MIRROR" --version >/dev/null
}

# A directory in memory if there is one with room, else wherever temporary files go.
work_directory() {
  local top=${TMPDIR:-}
  if [ -z "$top" ]; then
    if [ -w /dev/shm ]; then top=/dev/shm; else top=/tmp; fi
  fi
  mktemp -d "$top/mirror-$1-XXXXXX"
}
