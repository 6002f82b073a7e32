#!/usr/bin/env python3
"""What perf/measure.sh runs. Each round measures everything once, so that rounds are interleaved; of all rounds the median counts.

CPU-seconds are those of both processes from start to end, as wait4 tells them; Gbit/s are of chunk bytes that the receiver has
verified, over the time from the first packet to the last, as the summary says.
"""
import argparse, json, os, shutil, signal, statistics, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import generate
from devices import Device

GIB = 1 << 30


class Sizes:
    def __init__(self, quick):
        self.file_bytes = GIB // 16 if quick else GIB
        self.files = 6_250 if quick else 100_000


class Table:
    """Measurements by name, in the order in which they first came."""

    def __init__(self):
        self.rows = {}

    def add(self, name, unit, asked, command, value):
        row = self.rows.setdefault(name, {"unit": unit, "asked": asked, "command": command, "values": []})
        row["values"].append(value)

    def print(self):
        print(f"\n| {'what':44} | {'asked':>11} | {'measured':>10} | {'unit':9} | of rounds | command")
        print(f"| {'-' * 44} | {'-' * 11} | {'-' * 10} | {'-' * 9} | --------- | -------")
        for name, row in self.rows.items():
            values = row["values"]
            spread = f"{min(values):.3g}-{max(values):.3g}" if len(values) > 1 else "1"
            print(f"| {name:44} | {row['asked']:>11} | {statistics.median(values):10.4g} | {row['unit']:9} | {spread:9} | {row['command']}")


class Round:
    def __init__(self, top, data, sizes, table, peaks):
        self.top, self.data, self.sizes, self.table, self.peaks = top, data, sizes, table, peaks

    def note_peak(self, what, cost):
        self.peaks[what] = max(self.peaks.get(what, 0), cost.peak_mib)

    def run(self):
        source = Device(self.top, "source").init()
        # Paired while there is nothing to send.
        over_tcp, over_quic, resumed = (Device(self.top, name).clone_of(source) for name in ("tcp", "quic", "resumed"))
        self.add_file(source)
        self.push(source, over_tcp, "tcp", "5", "2.5")
        self.push(source, over_quic, "quic", "2.5", "4.5")
        self.resume(source, resumed)
        small = Device(self.top, "small").init()
        self.small_files(small)

    def add_file(self, source):
        ran = source.run("add", self.data["file"])
        rate = self.sizes.file_bytes / ran.cost.wall / 1e6
        self.table.add("add a large file", "MB/s", ">= 800", "add FILE", rate)
        self.note_peak("add FILE", ran.cost)

    def push(self, source, target, transport, rate_asked, cpu_asked):
        with target.serve() as server:
            ran = source.run(*source.transfer_args("push", server, transport))
        summary = ran.last
        gib = summary["bytes_sent"] / GIB
        name = f"push a large file over {transport}"
        self.table.add(name, "Gbit/s", f">= {rate_asked}", f"push --transport {transport}", summary["goodput_bits_per_s"] / 1e9)
        self.table.add(f"{name}: CPU", "CPU-s/GiB", f"<= {cpu_asked}", "wait4 of both ends", (ran.cost.cpu + server.cost.cpu) / gib)
        self.note_peak(f"push ({transport})", ran.cost)
        self.note_peak(f"serve, receiving ({transport})", server.cost)
        self.forget(target)

    def forget(self, device):
        shutil.rmtree(device.vault)

    def resume(self, source, target):
        with source.serve() as server:
            running = target.start(*target.transfer_args("pull", server, "tcp"))
            while target.pack_bytes() < self.sizes.file_bytes / 2 and not running.poll():
                time.sleep(0.0002)
            running.signal(signal.SIGKILL)
            running.wait()
        on_disk = target.pack_bytes()
        with source.serve() as server:
            ran = target.run(*target.transfer_args("pull", server, "tcp"))
        total = source.durable_bytes()
        again = ran.last["bytes_received"] + on_disk - total
        self.table.add("resume after a kill at 50 %: sent again", "%", "<= 1", "SIGKILL; pull", max(0, again) / total * 100)
        first = ran.last.get("first_chunk_ms")
        if first is not None:
            before = ran.cost.wall * 1000 - ran.last["elapsed_ms"]
            self.table.add("resume: first new byte after the start", "ms", "<= 1,000", "first_chunk_ms", before + first)
        self.forget(target)

    def small_files(self, small):
        count = self.sizes.files
        target = Device(self.top, "small-target").clone_of(small)
        added = small.run("add", self.data["tree"])
        self.table.add("add files of 1-16 KiB", "files/s", ">= 25,000", "add TREE", count / added.cost.wall)
        self.note_peak("add TREE", added.cost)
        again = small.run("add", self.data["tree"])
        self.table.add("add when nothing changed", "s", "< 1", "add TREE", again.cost.wall)
        with target.serve() as server:
            pushed = small.run(*small.transfer_args("push", server, "tcp"))
            objects = pushed.last["chunks_sent"] / (pushed.last["elapsed_ms"] / 1000)
            self.table.add("push files of 1-16 KiB", "objects/s", ">= 40,000", "push --transport tcp", objects)
            nothing = small.run(*small.transfer_args("push", server, "tcp"))
        self.note_peak("push TREE", pushed.cost)
        self.note_peak("serve, receiving TREE", server.cost)
        wire = nothing.last["wire_bytes_sent"] + nothing.last["wire_bytes_received"]
        self.table.add("push when nothing changed: on the wire", "bytes", "< 10,000", "push", wire)
        self.table.add("push when nothing changed", "s", "-", "push", nothing.cost.wall)
        self.restore(target)

    def restore(self, target):
        destination = os.path.join(self.top, "restored")
        restored = target.run("restore", destination)
        self.table.add("restore files of 1-16 KiB", "files/s", ">= 20,000", "restore DEST", self.sizes.files / restored.cost.wall)
        self.note_peak("restore", restored.cost)
        shutil.rmtree(destination)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--rounds", type=int)
    arguments.add_argument("--json", help="also write every value here")
    options = arguments.parse_args()
    sizes, rounds = Sizes(options.quick), options.rounds or (1 if options.quick else 3)
    data = {"file": os.path.join(options.work, "large"), "tree": os.path.join(options.work, "tree")}
    generate.write_file(data["file"], sizes.file_bytes)
    generate.write_tree(data["tree"], sizes.files)
    table, peaks = Table(), {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        top = os.path.join(options.work, f"round-{number}")
        os.mkdir(top)
        Round(top, data, sizes, table, peaks).run()
        shutil.rmtree(top)
    for what, peak in peaks.items():
        table.add(f"peak memory: {what}", "MiB", "< 512", "wait4", peak)
    cores, size = os.cpu_count(), f"{sizes.file_bytes >> 20} MiB, {sizes.files:,} files"
    print(f"\n{size}; {cores} cores; median of {rounds}; {os.uname().sysname} {os.uname().release}")
    table.print()
    if options.json:
        with open(options.json, "w") as f:
            json.dump(table.rows, f, indent=1)


if __name__ == "__main__":
    main()
