#!/usr/bin/env python3
"""What perf/large.sh runs: a vault of many GiB on two replicas, every process in a control group whose memory is bounded. The data is sparse:
eight random bytes in every 256 KiB, so that each chunk is another one, and all of them compress to next to nothing. The system's cache of files
counts, too, and is given back where memory is short; what a process holds for itself is told beside it."""
import argparse, itertools, os, random, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from devices import Device, Server

FILES = 8
STEP = 256 << 10


class Group:
    """A control group of memory, version 1 or 2, while the block runs."""

    numbers = itertools.count()

    def __init__(self, mib):
        version_1 = "/sys/fs/cgroup/memory"
        self.first = os.path.isdir(version_1)
        self.path = os.path.join(version_1 if self.first else "/sys/fs/cgroup", f"mirror-large-{os.getpid()}-{next(Group.numbers)}")
        os.mkdir(self.path)
        self.write("memory.limit_in_bytes" if self.first else "memory.max", mib << 20)
        self.write("memory.swappiness" if self.first else "memory.swap.max", 0)
        self.before = ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh")

    def write(self, name, value):
        try:
            with open(os.path.join(self.path, name), "w") as file:
                file.write(str(value))
        except FileNotFoundError:
            assert "swap" in name, name

    def pressed(self):
        """How often the limit was met."""
        if self.first:
            with open(os.path.join(self.path, "memory.failcnt")) as file:
                return int(file.read())
        with open(os.path.join(self.path, "memory.events")) as file:
            return int(dict(line.split() for line in file)["max"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.rmdir(self.path)


def write_sparse(directory, gib, seed):
    dice = random.Random(seed)
    os.makedirs(directory)
    for number in range(FILES):
        with open(os.path.join(directory, f"f{number}"), "wb") as file:
            size = (gib << 30) // FILES
            file.truncate(size)
            for offset in range(0, size, STEP):
                os.pwrite(file.fileno(), dice.randbytes(8), offset)


def measure(work, gib, mib):
    """Rows of what was done, its cost, and how often the limit was met."""
    rows = []
    data = os.path.join(work, "data")
    write_sparse(data, gib, seed=1)
    a = Device(work, "a").init()

    def timed(what, device, *args):
        with Group(mib) as group:
            ran = device.run(*args, before=group.before)
            rows.append((what, ran.cost, group.pressed()))
        return ran

    timed("add", a, "add", data)
    timed("add again, nothing changed", a, "add", data)
    status = timed("status", a, "status").last
    timed("verify --read-data", a, "verify", "--read-data")
    timed("get one of eight files", a, "get", "data/f3", "-o", "/dev/null")
    b = Device(work, "b")
    with Group(mib) as serving:
        with Server(a.start("serve", "--listen", "127.0.0.1:0", before=serving.before)) as server:
            ticket = a.run("invite", "--addr", server.address).last["ticket"]
            timed("clone", b, "clone", ticket, b.vault)
            timed("pull, all there", b, "pull", server.address, "--device", server.device)
        rows.append(("serve, all of it", server.cost, serving.pressed()))
    timed("get at the other replica", b, "get", "data/f3", "-o", "/dev/null")
    timed("recover", b, "recover")
    assert a.run("status").last["root"] == b.run("status").last["root"], "the replicas are not equal"
    return rows, status


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--gib", type=int, default=100)
    arguments.add_argument("--memory-mib", type=int, default=128)
    options = arguments.parse_args()
    rows, status = measure(options.work, options.gib, options.memory_mib)
    print(f"{options.gib} GiB in {FILES} files, {status.get('chunks')} chunks, {status['bytes'] / 2**20:.0f} MiB sealed; {options.memory_mib} MiB of memory for each process")
    print(f"{'what':28} {'s':>8} {'CPU-s':>8} {'most MiB':>9} {'limit met':>10}")
    for what, cost, pressed in rows:
        print(f"{what:28} {cost.wall:8.1f} {cost.cpu:8.1f} {cost.peak_mib:9.0f} {pressed:10}")


main()
