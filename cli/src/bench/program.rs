//! Other programs, and `mirror` among them: started, waited for, and charged with what they have cost.

use super::bed::Bed;
use crate::failure::{Code, Failure};
use mirror_engine::io::usage::{self, End, Usage};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longer than any program here takes to open a port.
const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// Whether a program is there to be run.
pub(super) fn is_installed(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// A port of the loopback interface that nobody has at this moment.
pub(super) fn free_port() -> Result<SocketAddr, Failure> {
    let failed = |error| Failure::io("cannot find a free port", &error);
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(failed)
}

/// A program that runs. Dropped before its end, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Option<Child>,
    stdout: BufReader<ChildStdout>,
    _stdin: Option<ChildStdin>,
    complaints: PathBuf,
    began: Instant,
}

/// What a program has left.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) stdout: String,
    pub(super) usage: Usage,
    pub(super) elapsed: Duration,
}

impl Running {
    pub(super) fn start(bed: &Bed, command: &mut Command) -> Result<Self, Failure> {
        let name = command.get_program().to_string_lossy().into_owned();
        let complaints = bed.fresh("stderr");
        let stderr = File::create(&complaints).map_err(|error| Failure::writing(&complaints, &error))?;
        let began = Instant::now();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let mut child = child.map_err(|error| Failure::io(format!("cannot start {name}"), &error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = BufReader::new(stdout.ok_or_else(|| Failure::new(Code::Failed, format!("{name} has no stdout")))?);
        Ok(Self { name, child: Some(child), stdout, _stdin: stdin, complaints, began })
    }

    /// The next line that it prints.
    pub(super) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(|error| Failure::io(format!("cannot read from {}", self.name), &error))?;
        Ok(line)
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until somebody listens there.
    pub(super) fn listens(&mut self, at: SocketAddr) -> Result<(), Failure> {
        let began = Instant::now();
        while TcpStream::connect(at).is_err() {
            let ended = !matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)));
            if ended || began.elapsed() > START {
                return Err(self.complaint("does not listen"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it did not succeed, with what it said.
    pub(super) fn succeed(mut self) -> Result<Ran, Failure> {
        let (end, ran) = self.wait()?;
        if end == End::Code(0) { Ok(ran) } else { Err(self.complaint("failed").cause(format!("{end:?}")).cause(ran.stdout)) }
    }

    /// Asks it to end and waits; what it ends with does not matter.
    pub(super) fn stop(mut self) -> Result<Ran, Failure> {
        self.signal(Signal::TERM);
        Ok(self.wait()?.1)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().map(Pid::from_child) {
            let _ = kill_process(pid, signal);
        }
    }

    pub(super) fn wait(&mut self) -> Result<(End, Ran), Failure> {
        let failed = |error| Failure::io("cannot wait for a program", &error);
        let mut stdout = String::new();
        drop(self.stdout.read_to_string(&mut stdout));
        let child = self.child.take().ok_or_else(|| Failure::new(Code::Failed, "it has ended already"))?;
        let (end, usage) = usage::wait(child).map_err(failed)?;
        Ok((end, Ran { stdout, usage, elapsed: self.began.elapsed() }))
    }

    pub(super) fn complaint(&self, what: &str) -> Failure {
        let said = fs::read_to_string(&self.complaints).unwrap_or_default();
        Failure::new(Code::Failed, format!("{} {what}", self.name)).cause(said.trim())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs a program to its end, which must be a good one.
pub(super) fn run(bed: &Bed, command: &mut Command) -> Result<Ran, Failure> {
    Running::start(bed, command)?.succeed()
}

/// A build of `mirror`, and words before it: a tracer, for example.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    pub(super) program: PathBuf,
    pub(super) before: Vec<String>,
}

/// A device and a vault of it, as `mirror` is told by environment and flags.
#[derive(Debug, Clone)]
pub(super) struct Device {
    home: PathBuf,
    pub(super) vault: PathBuf,
}

impl Device {
    pub(super) fn new(bed: &Bed) -> Self {
        Self { home: bed.fresh("home"), vault: bed.fresh("vault") }
    }

    /// The same device and vault once more, in another place: where the vault's key cuts, the copy cuts too.
    pub(super) fn copy(&self, bed: &Bed) -> Result<Self, Failure> {
        let copy = Self::new(bed);
        for (from, to) in [(&self.home, &copy.home), (&self.vault, &copy.vault)] {
            run(bed, Command::new("cp").arg("-R").arg("-p").arg(from).arg(to))?;
        }
        Ok(copy)
    }

    pub(super) fn remove(&self) {
        super::bed::remove(&self.vault);
        super::bed::remove(&self.home);
    }
}

impl Mirror {
    /// The program that was named, else the one beside this one.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let beside = || env::current_exe().ok().map(|own| own.with_file_name("mirror"));
        let program = named.map(Path::to_owned).or_else(beside).unwrap_or_default();
        if program.is_file() {
            return Ok(Self { program, before: Vec::new() });
        }
        let failure = Failure::usage(format!("there is no program {}", program.display()));
        Err(failure.hint("cargo build --release builds both; or name it with --mirror FILE"))
    }

    /// With words before the program.
    pub(super) fn under(&self, before: &[&str]) -> Self {
        Self { program: self.program.clone(), before: before.iter().map(|&word| word.to_owned()).collect() }
    }

    pub(super) fn command<A: AsRef<OsStr>>(&self, device: &Device, args: &[A]) -> Command {
        let mut command = match self.before.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MIRROR_")).for_each(|(name, _)| {
            command.env_remove(name);
        });
        command
            .arg("--json")
            .arg("--no-progress")
            .arg("-V")
            .arg(&device.vault)
            .args(args)
            .env("MIRROR_HOME", &device.home)
            .env("MIRROR_NO_DISCOVERY", "1");
        command
    }

    pub(super) fn run<A: AsRef<OsStr>>(&self, bed: &Bed, device: &Device, args: &[A]) -> Result<Ran, Failure> {
        run(bed, &mut self.command(device, args))
    }

    /// A device with an empty vault.
    pub(super) fn device(&self, bed: &Bed) -> Result<Device, Failure> {
        let device = Device::new(bed);
        let args = [OsStr::new("init"), device.vault.as_os_str(), OsStr::new("--no-passphrase"), OsStr::new("--no-recovery-kit")];
        self.plain().run(bed, &device, &args)?;
        Ok(device)
    }

    /// A second device with a replica of what `serving` serves.
    pub(super) fn clone_of(&self, bed: &Bed, device: &Device, serving: &Serving) -> Result<Device, Failure> {
        let plain = self.plain();
        let invited = plain.run(bed, device, &["invite", "--addr", &serving.address.to_string()])?;
        let ticket = last(&invited.stdout)["ticket"].as_str().unwrap_or_default().to_owned();
        let clone = Device::new(bed);
        plain.run(bed, &clone, &[OsStr::new("clone"), OsStr::new(&ticket), clone.vault.as_os_str()])?;
        Ok(clone)
    }

    /// Serves a vault on free ports of the loopback interface.
    pub(super) fn serve(&self, bed: &Bed, device: &Device) -> Result<Serving, Failure> {
        let mut running = Running::start(bed, &mut self.command(device, &["serve", "--listen", "127.0.0.1:0"]))?;
        let line = running.line()?;
        let listening: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = listening["tcp"].as_str().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| running.complaint("does not serve").cause(line.trim()))?;
        Ok(Serving { running, address, device: listening["device"].as_str().unwrap_or_default().to_owned() })
    }

    /// Pushes to what is served, and says what the summary says.
    pub(super) fn push(&self, bed: &Bed, from: &Device, to: &Serving, transport: &str) -> Result<(Ran, Value), Failure> {
        let address = to.address.to_string();
        let ran = self.run(bed, from, &["push", &address, "--device", &to.device, "--transport", transport])?;
        let summary = last(&ran.stdout);
        if summary["identical"] != true {
            return Err(Failure::new(Code::Failed, "the replicas are not identical after the push").cause(ran.stdout));
        }
        Ok((ran, summary))
    }

    fn plain(&self) -> Self {
        self.under(&[])
    }
}

/// A `mirror serve`.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) running: Running,
    pub(super) address: SocketAddr,
    device: String,
}

impl Serving {
    /// The same vault, through something that stands between.
    pub(super) fn through(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }
}

/// The last record that a program has printed.
pub(super) fn last(stdout: &str) -> Value {
    stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}
