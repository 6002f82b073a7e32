#!/usr/bin/env python3
"""What perf/daemon.sh runs: two `mirord` over loopback that hold the same many objects. Processor time and memory at rest are what /proc says
of each; a value counts as there once the other replica's log has grown, which it does when the value and its event are durable."""
import argparse, os, shutil, signal, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import devices
from conflicts import write_files
from devices import Device, Running

LOOK_S = 0.0005
BETWEEN_PUTS_S = 0.05
# Beyond it something hangs.
PATIENCE_S = 30


def start(device, *flags):
    daemon = os.path.join(os.path.dirname(devices.MIRROR), "mirord")
    return Running([daemon, "--vault", device.vault, "--no-discovery", *flags], device.environment)


def live(device):
    return [peer for vault in device.run("daemon", "status").records[0]["vaults"] for peer in vault["peers"] if peer["identical"]]


def until(condition):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE_S:
            raise RuntimeError(f"not after {PATIENCE_S} s")
        time.sleep(LOOK_S)


def listening(device):
    vaults = device.run("daemon", "status", codes=None).records
    return vaults and vaults[0]["type"] == "daemon" and vaults[0]["vaults"][0].get("tcp")


def cpu_s(running):
    with open(f"/proc/{running.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(running):
    with open(f"/proc/{running.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def log_bytes(device):
    return sum(entry.stat().st_size for entry in os.scandir(os.path.join(device.vault, "log")) if entry.is_file())


def put(work, there, here, number):
    """Milliseconds of the command, and from its end until the value is durable at the other replica."""
    path = os.path.join(work, "value")
    with open(path, "wb") as value:
        value.write(os.urandom(1024))
    before, began = log_bytes(here), time.monotonic()
    there.run("put", f"put/{number}", path)
    ended = time.monotonic()
    until(lambda: log_bytes(here) != before)
    return (ended - began) * 1000, (time.monotonic() - ended) * 1000


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--keys", type=int, default=1_000_000)
    arguments.add_argument("--seconds", type=float, default=60, help="how long they rest")
    arguments.add_argument("--puts", type=int, default=200)
    arguments = arguments.parse_args()
    data = os.path.join(arguments.work, "data")
    write_files(data, arguments.keys, 1, "first")
    there = Device(arguments.work, "there").init()
    there.run("add", data)
    shutil.rmtree(data)
    here = Device(arguments.work, "here").clone_of(there)
    daemons = [start(there, "--listen", "127.0.0.1:0")]
    try:
        until(lambda: listening(there))
        peer = here.run("peer", "list").records[0]
        here.run("peer", "add", peer["name"], listening(there)[0], "--device", peer["device"])
        daemons.append(start(here, "--no-listen"))
        until(lambda: here.run("daemon", "status", codes=None).code == 0 and live(here))
        # The first look at what was cloned makes a view of it, once; then they rest.
        here.run("conflicts")
        before = [cpu_s(daemon) for daemon in daemons]
        time.sleep(arguments.seconds)
        for who, daemon, used in zip(("dialled", "dialling"), daemons, before):
            share = (cpu_s(daemon) - used) / arguments.seconds * 100
            print(f"{who}, {arguments.keys:,} objects, at rest: {share:.2f} % of a core, {resident_mib(daemon):.0f} MiB")
        times = []
        for number in range(arguments.puts):
            times.append(put(arguments.work, there, here, number))
            time.sleep(BETWEEN_PUTS_S)
        for what, values in zip(("put itself", "then until durable at the other"), zip(*times)):
            print(f"{what}: {percentile(values, 0.5):.1f} ms, p99 {percentile(values, 0.99):.1f} ms, at most {max(values):.1f} ms")
    finally:
        for daemon in daemons:
            daemon.signal(signal.SIGTERM)
            daemon.wait()


if __name__ == "__main__":
    main()
