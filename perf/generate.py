#!/usr/bin/env python3
"""Data to measure with, the same for the same seed on every machine.

  generate.py file PATH BYTES [SEED]           one file that nothing can compress
  generate.py tree DIR COUNT [SEED]            COUNT files of 1 to 16 KiB, 1,000 a directory, that nothing can compress
"""
import os, random, sys

PIECE = 1 << 20


def write_file(path, size, seed=1):
    rng = random.Random(seed)
    with open(path, "wb") as f:
        while size > 0:
            f.write(rng.randbytes(min(size, PIECE)))
            size -= PIECE


def write_tree(top, count, seed=1):
    rng = random.Random(seed)
    total = 0
    for number in range(count):
        directory = os.path.join(top, f"{number // 1000:04}")
        if number % 1000 == 0:
            os.makedirs(directory)
        size = rng.randint(1 << 10, 16 << 10)
        total += size
        with open(os.path.join(directory, f"{number:06}"), "wb") as f:
            f.write(rng.randbytes(size))
    return total


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in ("file", "tree"):
        sys.exit(__doc__)
    {"file": write_file, "tree": write_tree}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:5]))
