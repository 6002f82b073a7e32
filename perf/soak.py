#!/usr/bin/env python3
"""What perf/soak.sh runs: `mirord` twice, or `serve` and `sync --follow`, in two network namespaces, writers on both sides, and a link that
comes and goes.

Cuts are of three kinds: the interface goes down, packets vanish without a word, and the dialler's address changes. What was written on
either side while the link was gone must be there on the other side after it is back; how long that takes is measured from the moment of
return, by looking for it every few milliseconds with `mirror get`. At the end nothing that was acknowledged may be missing, both replicas
must be equal and whole. What both processes hold is noted every ten seconds, and how it grew over the second half: it goes up and down by some
MiB with what is on its way, so a limit is for all of it.
"""
import argparse, json, os, random, signal, statistics, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import devices, generate
from devices import Device, Running
from link import Link

LOOK_S = 0.01
# Beyond it something hangs: the run fails at once.
PATIENCE_S = 60
NOWHERE = "00:00:00:00:00:01"
# So often both processes are looked at.
SAMPLE_S = 10
MINUTES = (1, 5, 10, 15, 20)
# In a namespace of its own, so it cannot be taken.
PORT = 7740


class Cuttable(Link):
    """A link that can be cut in several ways, and restored."""

    def __init__(self):
        super().__init__(1500)
        self.host = 1

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True)

    def cut(self, kind):
        if kind == "silent":
            for name, other in ((self.a, "10.99.0.2"), (self.b, f"10.99.0.{self.host}")):
                self.ip("-n", name, "neigh", "replace", other, "lladdr", NOWHERE, "nud", "permanent", "dev", "mirror0")
        else:
            self.ip("-n", self.a, "link", "set", "mirror0", "down")

    def restore(self, kind):
        if kind == "silent":
            for name, other in ((self.a, "10.99.0.2"), (self.b, f"10.99.0.{self.host}")):
                self.ip("-n", name, "neigh", "del", other, "dev", "mirror0")
            return
        if kind == "address":
            self.ip("-n", self.a, "addr", "del", f"10.99.0.{self.host}/24", "dev", "mirror0")
            self.host = 3 if self.host == 1 else 1
            self.ip("-n", self.a, "addr", "add", f"10.99.0.{self.host}/24", "dev", "mirror0")
        self.ip("-n", self.a, "link", "set", "mirror0", "up")


class Writer(threading.Thread):
    """Puts values into one replica until told to stop; remembers what was acknowledged."""

    def __init__(self, device, seed, work):
        super().__init__(daemon=True)
        self.device, self.random, self.work = device, random.Random(seed), work
        self.ended, self.acknowledged, self.failures = threading.Event(), [], []

    def run(self):
        count = 0
        while not self.ended.wait(self.random.uniform(0.05, 0.4)):
            count += 1
            key = f"{self.device.name}/{count}"
            path = os.path.join(self.work, f"value-{self.device.name}")
            generate.write_file(path, 4 << 20 if count % 40 == 0 else 1024, seed=count)
            ran = self.device.run("put", key, path, codes=None)
            if ran.code == 0:
                self.acknowledged.append(key)
            else:
                self.failures.append((key, ran.code, ran.errors))

    def stop(self):
        self.ended.set()
        self.join()


def seconds_until(device, key, began):
    """From `began` until `device` has `key`; none if it takes too long."""
    while time.monotonic() - began < PATIENCE_S:
        if device.run("get", key, "-o", "/dev/null", codes=None).code == 0:
            return time.monotonic() - began
        time.sleep(LOOK_S)
    return None


class Watcher(threading.Thread):
    """Looks at what each process holds, and how many cuts and puts there were by then."""

    def __init__(self, processes, counts):
        super().__init__(daemon=True)
        self.processes, self.counts = processes, counts
        self.ended, self.samples = threading.Event(), []

    def run(self):
        began = time.monotonic()
        while not self.ended.wait(SAMPLE_S):
            cuts, puts = self.counts()
            try:
                sizes = [size(process) for process in self.processes]
            except (OSError, KeyError):
                return  # One has ended: that is told elsewhere.
            self.samples.append({"s": round(time.monotonic() - began), "cuts": cuts, "puts": puts, "sizes": sizes})

    def stop(self):
        self.ended.set()
        self.join()
        return self.samples


def size(process):
    """Memory of its own and mapped files that are resident, in MiB, and open descriptors."""
    with open(f"/proc/{process.pid}/status") as status:
        kib = {words[0]: int(words[1]) for words in map(str.split, status) if words[0] in ("RssAnon:", "RssFile:")}
    return kib["RssAnon:"] / 1024, kib["RssFile:"] / 1024, len(os.listdir(f"/proc/{process.pid}/fd"))


def cut_once(link, devices, dice, number):
    """One cut: what is written in it on both sides, and how long it takes to arrive after the link's return."""
    kind, gone_s = dice.choice(("down", "silent", "address")), dice.uniform(1, 5)
    link.cut(kind)
    time.sleep(gone_s / 2)
    keys = [(other, f"mark/{device.name}/{number}") for device, other in zip(devices, reversed(devices))]
    for device, (_, key) in zip(devices, keys):
        device.run("put", key, os.path.join(os.path.dirname(device.vault), "mark"))
    time.sleep(gone_s / 2)
    link.restore(kind)
    began = time.monotonic()
    took = [seconds_until(other, key, began) for other, key in keys]
    if None in took:
        raise RuntimeError(f"cut {number} ({kind}, {gone_s:.1f} s): not equal {PATIENCE_S} s after the link's return")
    return {"kind": kind, "gone_s": round(gone_s, 2), "took_s": round(max(took), 3)}


def equal(devices):
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        roots = {device.run("status").last["root"] for device in devices}
        if len(roots) == 1:
            return time.monotonic() - began
        time.sleep(LOOK_S)
    raise RuntimeError("the replicas are not equal at the end")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def start_commands(link, here, there):
    server = there.serve(listen="10.99.0.2:0", before=link.inside(link.b))
    return server.running, here.start(*here.transfer_args("sync", server, "auto"), "--follow", before=link.inside(link.a))


def start_daemons(link, here, there):
    """Only one of them knows where the other one is."""
    daemon = os.path.join(os.path.dirname(devices.MIRROR), "mirord")
    peer = here.run("peer", "list").records[0]
    here.run("peer", "add", peer["name"], f"10.99.0.2:{PORT}", "--device", peer["device"])
    start = lambda device, name, *flags: Running(
        [*link.inside(name), daemon, "--vault", device.vault, "--no-discovery", *flags], device.environment
    )
    return start(there, link.b, "--listen", f"10.99.0.2:{PORT}"), start(here, link.a, "--no-listen")


def soak(link, work, arguments):
    dice = random.Random(arguments.seed)
    there = Device(work, "there").init()
    here = Device(work, "here").clone_of(there)
    generate.write_file(os.path.join(work, "mark"), 1024, seed=0)
    followers = start_daemons(link, here, there) if arguments.daemon else start_commands(link, here, there)
    writers = [Writer(device, arguments.seed + at, work) for at, device in enumerate((here, there))]
    cuts = []
    watcher = Watcher([running.process for running in followers], lambda: (len(cuts), sum(len(writer.acknowledged) for writer in writers)))
    try:
        for thread in (*writers, watcher):
            thread.start()
        ends = time.monotonic() + arguments.seconds
        while time.monotonic() < ends:
            time.sleep(dice.uniform(1, 5))
            cuts.append(cut_once(link, (here, there), dice, len(cuts)))
            for running in followers:
                if running.poll():
                    raise RuntimeError(f"ended: {running.ended}")
        for writer in writers:
            writer.stop()
        settled = equal((here, there))
        samples = watcher.stop()
    finally:
        watcher.ended.set()
        for writer in writers:
            writer.ended.set()
        for running in followers:
            running.signal(signal.SIGTERM)
            running.wait()
    acknowledged = {key for writer in writers for key in writer.acknowledged}
    lost = {device.name: sorted(acknowledged - device.keys())[:5] for device in (here, there)}
    for device in (here, there):
        device.run("verify", "--read-data")
    failures = [failure for writer in writers for failure in writer.failures]
    return {"cuts": cuts, "puts": len(acknowledged), "lost": lost, "failures": failures, "settled_s": settled, "samples": samples}


def slope(samples, process, by):
    """KiB of its own that a process grew by with each cut or put, by least squares; none when there were none."""
    if len({sample[by] for sample in samples}) < 2:
        return None
    mib = [sample["sizes"][process][0] for sample in samples]
    return statistics.linear_regression([sample[by] for sample in samples], mib).slope * 1024


def report_sizes(samples, limit_mib):
    """Whether a process held more of its own than it may."""
    large = False
    for process, who in enumerate(("dialled", "dialling")):
        own, files, descriptors = zip(*(sample["sizes"][process] for sample in samples))
        at = [f"{minute} min {own[minute * 60 // SAMPLE_S - 1]:.0f}" for minute in MINUTES if minute * 60 // SAMPLE_S <= len(own)]
        print(f"{who}: MiB of its own after {', '.join(at) or 'less than a minute'}; at most {max(own):.0f}, at the end {own[-1]:.0f}; "
              f"mapped files {files[-1]:.0f} MiB; descriptors at most {max(descriptors)}, at the end {descriptors[-1]}")
        late = samples[len(samples) // 2 :]
        grown = [f"{kib:+.1f} KiB a {by[:-1]}" for by in ("cuts", "puts") if (kib := slope(late, process, by)) is not None]
        print(f"{who}: in the second half {', '.join(grown) or 'too little happened to tell'}")
        if limit_mib is not None and max(own) > limit_mib:
            print(f"{who}: more than {limit_mib} MiB")
            large = True
    return large


def report(result, arguments):
    took = [cut["took_s"] for cut in result["cuts"]]
    print(f"{len(took)} cuts, {result['puts']} puts acknowledged, {len(result['failures'])} refused {result['failures'][:2]}")
    for kind in ("down", "silent", "address", None):
        of = [cut["took_s"] for cut in result["cuts"] if kind in (cut["kind"], None)]
        if of:
            print(f"{kind or 'all':8} {len(of):4} cuts: equal after the link's return in {statistics.median(of):.2f} s, "
                  f"p99 {percentile(of, 0.99):.2f} s, at most {max(of):.2f} s")
    large = report_sizes(result["samples"], arguments.memory_limit_mib)
    lost = any(result["lost"].values())
    print("lost: " + (json.dumps(result["lost"]) if lost else "nothing; both verified, equal " + f"{result['settled_s']:.1f} s after the last put"))
    slow = arguments.limit_s is not None and percentile(took, 0.99) > arguments.limit_s
    if slow:
        print(f"p99 is beyond {arguments.limit_s} s")
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(result, out)
    return 1 if lost or slow or large else 0


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--daemon", action="store_true", help="mirord on both sides instead of `serve` and `sync --follow`")
    arguments.add_argument("--limit-s", type=float, help="fail when the 99th percentile is beyond it")
    arguments.add_argument("--memory-limit-mib", type=float, help="fail when a process ever holds more of its own")
    arguments.add_argument("--json")
    arguments = arguments.parse_args()
    link = Cuttable()
    try:
        result = soak(link, arguments.work, arguments)
    finally:
        link.remove()
    return report(result, arguments)


if __name__ == "__main__":
    sys.exit(main())
