#!/usr/bin/env python3
"""Cuts the power, or kills, under real commands, again and again, and checks what is left. perf/faults.sh runs it.

  powercut.py cut  --work DIR [--rounds N] [--seed S]    an ext4 image on a loop device is shut down without flushing its journal
                                                         (FS_IOC_SHUTDOWN), as if the power were gone, and mounted again
  powercut.py kill --work DIR [--rounds N] [--seed S]    SIGKILL of every process of the round; needs no root

Vault and MIRROR_HOME lie on that file system. A round adds files one command after the other, or pulls what another replica adds;
what a command has acknowledged by ending with 0 before the cut must be there afterwards, `verify --read-data` must be clean,
and the next round must go on. At the end both replicas must be identical.
Exit 0 when every promise was kept, 1 when one was broken, 77 when this machine does not allow it.
"""
import argparse, ctypes, fcntl, os, random, shutil, signal, struct, subprocess, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from devices import Device

FS_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2
CLONE_NEWNS = 0x00020000
NOT_POSSIBLE = 77
IMAGE_BYTES = 1 << 30
# A file system is used for so many rounds, then made anew: what one cut leaves is where the next one strikes.
ROUNDS_A_DISK = 8


def call(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Plain:
    """A directory: what is cut are the processes alone."""

    def __init__(self, work):
        self.mount = os.path.join(work, "disk")
        os.makedirs(self.mount)

    def strike(self, running):
        for process in running:
            process.signal(signal.SIGKILL)
        for process in running:
            process.wait()

    def close(self):
        shutil.rmtree(self.mount)


class Disk(Plain):
    """An ext4 file system on a loop device."""

    def __init__(self, work):
        super().__init__(work)
        self.image, self.loop = os.path.join(work, "image"), None
        with open(self.image, "wb") as f:
            f.truncate(IMAGE_BYTES)
        call("mkfs.ext4", "-q", "-F", self.image)
        self.loop = subprocess.check_output(["losetup", "-f", "--show", self.image], text=True).strip()
        call("mount", self.loop, self.mount)

    def strike(self, running):
        handle = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        os.close(handle)
        super().strike(running)
        self.unmount()
        call("mount", self.loop, self.mount)

    def unmount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.mount], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError("the file system stays busy")

    def close(self):
        self.unmount()
        call("losetup", "-d", self.loop)
        os.unlink(self.image)
        os.rmdir(self.mount)


def own_mounts():
    """A mount namespace of its own: another one that still holds a mount would keep the journal from being replayed."""
    if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise PermissionError("root and a mount namespace of its own are needed")
    call("mount", "--make-rprivate", "/")


class Trial:
    """Two replicas: `struck` lies on the disk that is cut, `other` beside it."""

    def __init__(self, disk, work, rng):
        self.disk, self.rng, self.files = disk, rng, 0
        self.sources = os.path.join(work, "sources")
        os.makedirs(self.sources)
        self.beside = os.path.join(work, "beside")
        os.makedirs(self.beside)
        self.other = Device(self.beside, "other").init()
        self.struck = Device(disk.mount, "struck").clone_of(self.other)
        # Making a replica is not what is tested: it is on the disk before the first cut.
        os.sync()
        self.acked = set()

    def close(self):
        shutil.rmtree(self.sources)
        shutil.rmtree(self.beside)

    def new_tree(self):
        """A directory with a few files, small and large."""
        self.files += 1
        name = f"tree-{self.files}"
        top = os.path.join(self.sources, name)
        os.makedirs(top)
        for number in range(self.rng.randint(1, 40)):
            size = self.rng.choice([0, 100, 5_000, 60_000, 700_000, 2_500_000 if number < 3 else 1_000])
            with open(os.path.join(top, str(number)), "wb") as f:
                f.write(self.rng.randbytes(size))
        return top, {name} | {f"{name}/{number}" for number in os.listdir(top)}

    def until(self, deadline, step):
        """Runs commands one after the other until the deadline; what ended before it is acknowledged. Returns what still runs."""
        while True:
            running, promised = step()
            while not running.poll():
                if time.monotonic() >= deadline:
                    return running
                time.sleep(0.001)
            if running.ended.code != 0:
                raise RuntimeError(f"ended with {running.ended.code}: {running.ended.records} {running.ended.errors}")
            self.acked |= promised
            if time.monotonic() >= deadline:
                return None

    def add_round(self, deadline):
        def step():
            top, keys = self.new_tree()
            return self.struck.start("add", top), keys

        running = self.until(deadline, step)
        self.disk.strike([running] if running else [])

    def pull_round(self, deadline):
        for _ in range(6):
            self.other.run("add", self.new_tree()[0])
        server = self.other.serve()
        everything = self.other.keys()

        def step():
            if self.acked >= everything:
                self.other.run("add", self.new_tree()[0])
            promised = self.other.keys()
            transport = self.rng.choice(["tcp", "quic"])
            return self.struck.start(*self.struck.transfer_args("pull", server, transport)), promised

        running = self.until(deadline, step)
        # The server lies on another disk: it is not cut, but may be killed at the same time.
        self.disk.strike([process for process in (running, server.running) if process])

    def check(self):
        verified = self.struck.run("verify", "--read-data", codes=None)
        if verified.code != 0:
            return f"verify ended with {verified.code}: {verified.records[-3:]} {verified.errors}"
        lost = self.acked - self.struck.keys()
        return f"{len(lost)} acknowledged keys are lost: {sorted(lost)[:5]}" if lost else None

    def finish(self):
        with self.other.serve() as server:
            ran = self.struck.run(*self.struck.transfer_args("sync", server, "tcp"))
        if not ran.last["identical"] or self.struck.keys() != self.other.keys():
            return "the replicas are not identical at the end"
        return self.check()


def rounds(disk_type, options):
    rng, broken = random.Random(options.seed), 0
    for first in range(0, options.rounds, ROUNDS_A_DISK):
        disk = disk_type(options.work)
        trial = Trial(disk, options.work, rng)
        try:
            for number in range(first, min(first + ROUNDS_A_DISK, options.rounds)):
                deadline = time.monotonic() + rng.uniform(0.05, 1.0)
                kind = rng.choice(["add", "pull"])
                (trial.add_round if kind == "add" else trial.pull_round)(deadline)
                problem = trial.check()
                if problem:
                    broken += 1
                    print(f"round {number} ({kind}): {problem}", flush=True)
            problem = trial.finish()
            if problem:
                broken += 1
                print(f"after round {number}: {problem}", flush=True)
        finally:
            trial.close()
            disk.close()
    return broken


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["cut", "kill"])
    arguments.add_argument("--work", required=True)
    arguments.add_argument("--rounds", type=int, default=24)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    if options.what == "cut":
        try:
            own_mounts()
            Disk(options.work).close()
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", None)
            print(f"{error} {detail.decode() if detail else ''}".strip())
            sys.exit(NOT_POSSIBLE)
    broken = rounds(Disk if options.what == "cut" else Plain, options)
    print(f"{options.what}: {options.rounds} rounds, {broken} broken")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
