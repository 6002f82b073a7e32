//! Programs that run beside a test and end with it.

use super::{Ran, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A command that is under way.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) stdin: Option<ChildStdin>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { stdin: child.stdin.take(), child, stdout }
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads records from stdout until one is as wanted. A program that ends before has failed the test.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.hear(wanted).expect("the program ended before it came so far")
    }

    /// Reads records from stdout until one is as wanted; none if the program ends before.
    #[track_caller]
    fn hear(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let record = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if wanted(&record) {
                return Some(record);
            }
        }
    }

    /// Reads lines of text from stdout until one is as wanted.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut line = String::new();
        while !wanted(&line) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the program ended before it came so far");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until `done` while the program runs.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, mut done: impl FnMut() -> bool) {
        let child = &mut self.child;
        until(|| {
            assert!(child.try_wait().unwrap().is_none(), "the program ended before it came so far");
            done()
        });
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Ran {
        drop(self.stdin.take());
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ran { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A `mirror serve` that ends with its guard.
pub(crate) struct Serving {
    running: Running,
    pub(crate) tcp: String,
    pub(crate) quic: String,
    pub(crate) device: String,
}

impl Serving {
    /// Waits for the line `listening`, which is printed once connections are accepted: no sleeping, no guessing of ports.
    pub(crate) fn start(command: Command) -> Self {
        Self::try_start(command).expect("the program ended before it listened")
    }

    /// None if the program ends before, as it does when its address is taken.
    pub(crate) fn try_start(mut command: Command) -> Option<Self> {
        command.stderr(Stdio::null());
        let mut running = Running::start(command);
        let record = running.hear(|record| record["type"] == "listening")?;
        let field = |name: &str| record[name].as_str().unwrap().to_owned();
        Some(Self { tcp: field("tcp"), quic: field("quic"), device: field("device"), running })
    }

    /// Where to find it, over one transport, as arguments of `push`, `pull` and `sync`.
    pub(crate) fn over(&self, transport: &'static str) -> [String; 5] {
        let address = if transport == "tcp" { &self.tcp } else { &self.quic };
        [address.clone(), "--device".into(), self.device.clone(), "--transport".into(), transport.into()]
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// The next thing that it tells of this type.
    #[track_caller]
    pub(crate) fn tells(&mut self, kind: &str) -> Value {
        self.running.wait_for(|record| record["type"] == kind)
    }

    /// Sends SIGTERM and says with which code it ended.
    pub(crate) fn terminate(self) -> Option<i32> {
        self.running.signal(Signal::TERM);
        self.running.finish().code
    }
}

/// A `mirord` that ends with its guard.
pub(crate) struct Mirord {
    running: Running,
    listening: Value,
    pub(crate) ready: Value,
}

impl Mirord {
    /// Waits for the line `ready`, which is printed once everything is open.
    #[track_caller]
    pub(crate) fn start(command: Command) -> Self {
        Self::try_start(command).expect("the program ended before it was ready")
    }

    /// None if the program ends before, as it does when its address is taken.
    pub(crate) fn try_start(command: Command) -> Option<Self> {
        let mut running = Running::start(command);
        let mut listening = Value::Null;
        let ready = running.hear(|record| {
            if record["type"] == "listening" {
                listening = record.clone();
            }
            record["type"] == "ready"
        })?;
        Some(Self { running, listening, ready })
    }

    pub(crate) fn tcp(&self) -> &str {
        self.listening["tcp"].as_str().unwrap()
    }

    pub(crate) fn quic(&self) -> &str {
        self.listening["quic"].as_str().unwrap()
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// With which code it ends; none if a signal ended it.
    pub(crate) fn finish(self) -> Option<i32> {
        self.ran().code
    }

    /// What it has left at its end.
    pub(crate) fn ran(self) -> Ran {
        self.running.finish()
    }
}

/// What `asked` asks for as the last words of `wrapper`, which executes it.
pub(crate) fn run_by(mut wrapper: Command, asked: &Command) -> Command {
    wrapper.arg(asked.get_program()).args(asked.get_args());
    wrapper.current_dir(asked.get_current_dir().unwrap()).stdin(Stdio::null());
    asked.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(wrapper.env(name, value)),
        None => drop(wrapper.env_remove(name)),
    });
    wrapper
}
