#!/usr/bin/env python3
"""What perf/link.sh runs: vault to vault between two network namespaces, with iperf3 over the same link in the same round.

Gbit/s are of chunk bytes that the receiver has verified, over the time from the first packet to the last. CPU-seconds are those of
both processes from start to end, as wait4 tells them, for each GiB of chunks; in brackets sender + receiver.
"""
import argparse, json, mmap, os, random, shutil, statistics, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import generate
from devices import Device

GIB = 1 << 30
# iperf3 needs a port that is known before: one of these, and another one when that is taken.
PORTS = (20_000, 30_000)
PORT_TRIES = 5
# What iperf3 may take longer than it sends.
PATIENCE_S = 10


class Link:
    """A veth pair between two namespaces, or the two that the environment names (NETNS_A, NETNS_B, ADDRESS_B)."""

    def __init__(self, mtu):
        given = os.environ.get("NETNS_A")
        self.own = given is None
        suffix = os.getpid()
        self.a = given or f"mirror-a{suffix}"
        self.b = os.environ.get("NETNS_B") or f"mirror-b{suffix}"
        self.address = os.environ.get("ADDRESS_B") or "10.99.0.2"
        if self.own:
            self.make(mtu)

    def make(self, mtu):
        ip = lambda *words: subprocess.run(["ip", *map(str, words)], check=True)
        for name in (self.a, self.b):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.a, "link", "add", "mirror0", "mtu", mtu, "type", "veth", "peer", "name", "mirror0", "netns", self.b, "mtu", mtu)
        for name, address in ((self.a, "10.99.0.1/24"), (self.b, "10.99.0.2/24")):
            ip("-n", name, "addr", "add", address, "dev", "mirror0")
            ip("-n", name, "link", "set", "mirror0", "up")

    def shape(self, rate):
        """A token bucket of the kernel's at each end: segments stay as large as the offloads make them, as on a card."""
        for name in (self.a, self.b):
            qdisc = ["tc", "qdisc", "add", "dev", "mirror0", "root", "tbf", "rate", rate, "burst", "256kb", "latency", "20ms"]
            subprocess.run([*self.inside(name), *qdisc], check=True)

    def remove(self):
        if self.own:
            for name in (self.a, self.b):
                subprocess.run(["ip", "netns", "del", name], check=False)

    def inside(self, name):
        return ["ip", "netns", "exec", name]

    def iperf(self, seconds):
        """Bits a second of one TCP stream from A to B; none without iperf3."""
        if shutil.which("iperf3") is None:
            return None
        for _ in range(PORT_TRIES):
            port = str(random.randrange(*PORTS))
            server = self.start(self.b, "iperf3", "-s", "-1", "--forceflush", "-p", port)
            try:
                said = until_listening(server)
                if said is None:
                    return self.send(port, seconds)
            finally:
                server.kill()
                server.communicate()
        raise RuntimeError(f"iperf3 -s does not listen, on none of {PORT_TRIES} ports: {said}")

    def send(self, port, seconds):
        client = self.start(self.a, "iperf3", "-c", self.address, "-p", port, "-t", str(seconds), "-J")
        try:
            out = client.communicate(timeout=seconds + PATIENCE_S)[0]
        except subprocess.TimeoutExpired:
            client.kill()
            raise RuntimeError(f"iperf3 -c {self.address} has not ended after {seconds + PATIENCE_S} s: {client.communicate()[0]}")
        return bits_per_second(out)

    def start(self, name, *command):
        return subprocess.Popen(
            [*self.inside(name), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def until_listening(server):
    """Waits until an iperf3 listens; what it said when it ends first, as it does on a port that is taken."""
    said = []
    for line in server.stdout:
        if line.startswith("Server listening"):
            return None
        said.append(line.strip())
    return " ".join(said)


def bits_per_second(said):
    """Of what `iperf3 -J` said; a run that failed names its cause there."""
    try:
        report = json.loads(said)
    except ValueError:
        raise RuntimeError(f"iperf3 failed: {said.strip()}") from None
    if "error" in report:
        raise RuntimeError(f"iperf3 failed: {report['error']}")
    return report["end"]["sum_received"]["bits_per_second"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--mtu", type=int, default=1500)
    arguments.add_argument("--rate", help="shape both ends of the link to it, as tc writes it: 1gbit (a link of this script's own only)")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--mib", type=int, default=1024, help="size of the large file; 0 for none")
    arguments.add_argument("--files", type=int, default=0, help="files of 1-16 KiB instead of the large one")
    arguments.add_argument("--push", action="append", help="flags of push, one measurement each (default: --transport tcp)")
    arguments.add_argument("--serve", default="", help="flags of serve")
    arguments.add_argument("--iperf-seconds", type=int, default=2, help="whole seconds, as iperf3 takes them")
    arguments.add_argument("--json", help="also write every value here")
    options = arguments.parse_args()
    link = Link(options.mtu)
    try:
        if options.rate and link.own:
            link.shape(options.rate)
        measure(options, link)
    finally:
        link.remove()


def measure(options, link):
    variants = options.push or ["--transport tcp"]
    data = os.path.join(options.work, "data")
    if options.files:
        generate.write_tree(data, options.files)
    else:
        generate.write_file(data, options.mib << 20)
    source = Device(options.work, "source").init()
    targets = [Device(options.work, f"t{n}-{v}") for n in range(options.rounds) for v in range(len(variants))]
    top = os.environ.get("TARGET_DIR") or options.work
    for number, target in enumerate(targets):
        target.vault = os.path.join(top, f"vault-{os.getpid()}-{number}")
        target.clone_of(source)
    source.run("add", data)
    source.data_bytes = source.pack_bytes()
    rows = {name: [] for name in variants}
    iperf = []
    for number in range(options.rounds):
        rate = link.iperf(options.iperf_seconds)
        if rate:
            iperf.append(rate / 1e9)
        for variant in variants:
            target = targets.pop(0)
            rows[variant].append(one(link, source, target, variant.split(), options.serve.split()))
            shutil.rmtree(target.vault)
    report(rows, iperf, options)


def warm(size):
    """Touches memory and gives it back. A virtual machine may return what is free to its host, and the first touch of every page then
    costs more than all that is measured here; what was freed a moment ago is taken first."""
    with mmap.mmap(-1, size) as memory:
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1


def one(link, source, target, push, serve):
    warm(source.data_bytes * 3 // 2)
    with target.serve(*serve, listen=f"{link.address}:0", before=link.inside(link.b)) as server:
        ran = source.run("push", server.address, "--device", server.device, *push, before=link.inside(link.a))
    summary = ran.last
    gib = summary["bytes_sent"] / GIB
    return {
        "gbit_s": summary["goodput_bits_per_s"] / 1e9,
        "sender": ran.cost.cpu / gib,
        "receiver": server.cost.cpu / gib,
        "objects_s": summary["chunks_sent"] / (summary["elapsed_ms"] / 1000),
        "transport": summary["transport"],
        "elapsed_s": summary["elapsed_ms"] / 1000,
        "cores_sender": ran.cost.cpu / ran.cost.wall,
        "cores_receiver": server.cost.cpu / ran.cost.wall,
    }


def report(rows, iperf, options):
    median = statistics.median
    print(f"MTU {options.mtu}; {options.rounds} rounds, interleaved; median (least-most)")
    if iperf:
        print(f"iperf3 TCP: {median(iperf):.1f} Gbit/s ({min(iperf):.1f}-{max(iperf):.1f})")
    for name, values in rows.items():
        column = lambda key: [value[key] for value in values]
        rate, cpu = column("gbit_s"), [value["sender"] + value["receiver"] for value in values]
        print(
            f"{name or 'auto':40} {values[0]['transport']:5} {median(rate):6.3g} Gbit/s ({min(rate):.3g}-{max(rate):.3g})  "
            f"{median(cpu):5.2f} CPU-s/GiB ({median(column('sender')):.2f} + {median(column('receiver')):.2f})  "
            f"{median(column('objects_s')):9,.0f} objects/s  {median(column('elapsed_s')):.2f} s  "
            f"cores {median(column('cores_sender')):.2f} + {median(column('cores_receiver')):.2f}"
        )
    if options.json:
        with open(options.json, "w") as f:
            json.dump({"iperf3_gbit_s": iperf, "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
