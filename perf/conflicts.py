#!/usr/bin/env python3
"""What perf/conflicts.sh runs: a vault of many keys on two replicas, some of which both have changed; what it costs to list the conflicts,
to decide all of them by a rule, and to apply somebody else's changes to a new view."""
import argparse, os, statistics, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from devices import Device

FILES_A_DIRECTORY = 1000


def write_files(top, count, step, text):
    """Every `step`-th of `count` files of 48 bytes."""
    for number in range(0, count, step):
        directory = os.path.join(top, f"d{number // FILES_A_DIRECTORY:04d}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"f{number:07d}"), "w") as f:
            f.write(f"{text:6} {number:07d} ".ljust(48, "x"))


def measure(work, keys, conflicts):
    costs = {}

    def timed(what, device, *args):
        ran = device.run(*args)
        costs[what] = ran.cost
        return ran

    data = os.path.join(work, "data")
    write_files(data, keys, 1, "first")
    a = Device(work, "a").init()
    timed("add", a, "add", data)
    b = Device(work, "b").clone_of(a)
    timed("apply to a new view", b, "status")
    for device, text in ((a, "of a"), (b, "of b")):
        tree = os.path.join(work, device.name, "data")
        write_files(tree, keys, keys // conflicts, text)
        device.run("add", tree)
    sync(a, b)
    found = timed("conflicts", a, "conflicts").records
    assert len(found) == conflicts, f"{len(found)} conflicts"
    timed("merge --resolve --prefer newest", a, "merge", "--resolve", "--prefer", "newest")
    sync(a, b)
    assert not b.run("conflicts").records, "a decision did not reach the other replica"
    return costs


def sync(a, b):
    with a.serve() as server:
        b.run("sync", server.address, "--device", server.device, "--transport", "tcp")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--keys", type=int, default=1_000_000)
    arguments.add_argument("--conflicts", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=1)
    options = arguments.parse_args()
    rounds = [measure(os.path.join(options.work, str(n)), options.keys, options.conflicts) for n in range(options.rounds)]
    print(f"{options.keys:,} keys, {options.conflicts:,} conflicts; {options.rounds} rounds, median")
    for what in rounds[0]:
        median = lambda key: statistics.median(getattr(costs[what], key) for costs in rounds)
        print(f"{what:32} {median('wall'):7.2f} s  {median('cpu'):7.2f} CPU-s  {median('peak_mib'):5.0f} MiB")


if __name__ == "__main__":
    main()
