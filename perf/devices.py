"""Devices and their vaults, for the scripts here: runs the program that $MIRROR names, and says what each run cost."""
import json, os, signal, subprocess, tempfile, time
from dataclasses import dataclass

MIRROR = os.environ.get("MIRROR", "mirror")


@dataclass
class Cost:
    """Of one process from start to end: wall and CPU seconds, peak resident MiB."""
    wall: float
    cpu: float
    peak_mib: float


@dataclass
class Ran:
    code: int
    records: list
    errors: str
    cost: Cost

    @property
    def last(self):
        return self.records[-1] if self.records else {}


class Running:
    """A process whose end is waited for with wait4, which tells what it cost. Output goes to files: nobody has to read along."""

    def __init__(self, command, environment):
        self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, env=environment, stdout=self.out, stderr=self.err, stdin=subprocess.DEVNULL)
        self.ended = None

    def poll(self):
        """Whether it has ended; then its cost is known."""
        return self.ended is not None or self._reap(os.WNOHANG)

    def wait(self):
        if self.ended is None:
            self._reap(0)
        return self.ended

    def _reap(self, flags):
        pid, status, usage = os.wait4(self.process.pid, flags)
        if pid == 0:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(status)
        cost = Cost(time.monotonic() - self.began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
        self.ended = Ran(self.process.returncode, self.records(), self.text(self.err), cost)
        return True

    @staticmethod
    def text(file):
        file.seek(0)
        return file.read()

    def records(self):
        lines = self.text(self.out).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def signal(self, number):
        # Not through subprocess, which would take the end of the process and its cost away from wait4.
        if self.ended is None:
            os.kill(self.process.pid, number)


class Device:
    """A MIRROR_HOME of its own and one vault directory."""

    def __init__(self, top, name, vault=None):
        self.name = name
        self.vault = vault or os.path.join(top, f"vault-{name}")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MIRROR_")}
        self.environment = dict(clean, MIRROR_HOME=os.path.join(top, f"home-{name}"), MIRROR_NO_DISCOVERY="1")

    def start(self, *args, before=()):
        """`before` are words before the program: `ip netns exec NAME` runs it in another network namespace, and becomes it."""
        return Running([*before, MIRROR, "--vault", self.vault, "--json", "--no-progress", *args], self.environment)

    def run(self, *args, codes=(0,), before=()):
        ran = self.start(*args, before=before).wait()
        if codes is not None and ran.code not in codes:
            raise RuntimeError(f"mirror {' '.join(args)} ended with {ran.code}: {ran.records} {ran.errors}")
        return ran

    def init(self):
        self.run("init", self.vault, "--no-passphrase", "--no-recovery-kit")
        return self

    def serve(self, *flags, listen="127.0.0.1:0", before=()):
        return Server(self.start("serve", "--listen", listen, *flags, before=before))

    def clone_of(self, other):
        with other.serve() as server:
            ticket = other.run("invite", "--addr", server.address).last["ticket"]
            self.run("clone", ticket, self.vault)
        return self

    def transfer_args(self, command, server, transport):
        return (command, server.address, "--device", server.device, "--transport", transport)

    def keys(self):
        return {record["key"] for record in self.run("ls").records if record["type"] == "entry"}

    def durable_bytes(self):
        return self.run("status").last["bytes"]

    def pack_bytes(self):
        """As the file system has them, without asking the program."""
        packs = os.path.join(self.vault, "packs")
        try:
            return sum(entry.stat().st_size for entry in os.scandir(packs))
        except FileNotFoundError:
            return 0


class Server:
    """A `mirror serve` while the block runs. Afterwards `cost` says what it cost."""

    def __init__(self, running):
        self.running = running
        while not (listening := [record for record in self.running.records() if record["type"] == "listening"]):
            if self.running.poll():
                raise RuntimeError(f"serve ended: {self.running.ended}")
            time.sleep(0.005)
        self.address, self.device = listening[0]["tcp"], listening[0]["device"]
        self.cost = None

    def stop(self, number=signal.SIGTERM):
        self.running.signal(number)
        self.cost = self.running.wait().cost

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
