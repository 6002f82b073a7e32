//! `demo`: the main job on this machine, with nothing pretended.
//!
//! ```text
//! source ─add─► laptop ═══════ tcp ═══╳ killed half-way          two devices: two MIRROR_HOMEs, two vaults
//!                  ╚═════════ quic ═════► server ─restore─► restored
//!    └──────────────────── compared, byte for byte ─────────────┘
//! ```
//! The laptop is served by a child process of this same binary, over real sockets of the loopback interface; the server pulls
//! in this process. The link is cut by killing the child, without a chance to say goodbye, when half of the bytes have been
//! verified here. What the demo calls is what the other commands call: there is no path that only it takes.

mod compare;
mod serving;
mod tree;

use super::{Session, replicate::block_on};
use crate::{
    args::DemoArgs,
    failure::{Code, Failure},
    render::{self, Cut, DemoStep, DemoSummary},
};
use compare::{Comparison, compare};
use mirror_engine::{
    home::{Home, Role},
    replicate::{self, Options, Summary, Target},
    session::Direction,
    transport::{Choice, TransportKind},
    vault::{AddOptions, AddReport, InitOptions, Vault},
};
use serving::{CutHalfWay, Serving};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Release builds show what the machine can do, debug builds that it works.
const GENERATED_BYTES: u64 = if cfg!(debug_assertions) { 32 << 20 } else { 300 << 20 };
/// A ticket only has to live until the next step.
const TICKET_LIFE: Duration = Duration::from_secs(600);

pub(super) fn demo(session: &Session, args: &DemoArgs) -> Result<Code, Failure> {
    let place = Place::new(args.keep.as_deref())?;
    session.talk.note(&place.text());
    let demo = Demo { session, dir: place.dir().to_owned(), started: Instant::now() };
    demo.run(args)
}

/// Where everything happens: kept, or removed at the end, however it ends.
enum Place {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Place {
    fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(dir) = keep else {
            let made = tempfile::Builder::new().prefix("mirror-demo-").tempdir();
            return made.map(Self::Temporary).map_err(|error| Failure::io("cannot make a temporary directory", &error));
        };
        fs::create_dir_all(dir).map_err(|error| Failure::writing(dir, &error))?;
        let mut inside = fs::read_dir(dir).map_err(|error| Failure::reading(dir, &error))?;
        if inside.next().is_some() {
            return Err(Failure::usage(format!("{} is not empty", render::path_text(dir))).hint("name a new directory for --keep"));
        }
        Ok(Self::Kept(dir.to_owned()))
    }

    fn text(&self) -> String {
        let dir = render::path_text(self.dir());
        match self {
            Self::Kept(_) => format!("two devices, laptop and server, in {dir}, which stays"),
            Self::Temporary(_) => format!("two devices, laptop and server, in {dir}, which goes at the end"),
        }
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// One device: its own directory, and its replica.
struct Device {
    home: PathBuf,
    vault: PathBuf,
}

struct Demo<'a> {
    session: &'a Session,
    dir: PathBuf,
    started: Instant,
}

impl Demo<'_> {
    fn run(&self, args: &DemoArgs) -> Result<Code, Failure> {
        let source = self.source(args)?;
        let (laptop, server) = (self.device("laptop"), self.device("server"));
        let (origin, added) = self.fill(&laptop, &source)?;
        let bytes = origin.status()?.bytes;
        let transports = args.transport.both();

        let serving = Serving::start(&laptop, self.session.settings.io)?;
        let (replica, target) = self.pair(&origin, &serving, &server, transports[0])?;
        let cut = self.pull_until_cut(&replica, &target, serving, bytes, transports[0])?;
        let serving = Serving::start(&laptop, self.session.settings.io)?;
        let resumed = self.pull_the_rest(&replica, &serving, &cut, transports[1])?;
        drop(serving);

        self.verify(&replica)?;
        let compared = self.restore_and_compare(&replica, &source, &added)?;
        self.conclude(&added, cut, &resumed, &compared, bytes)
    }

    fn device(&self, name: &str) -> Device {
        Device { home: self.dir.join(format!("{name}-home")), vault: self.dir.join(name) }
    }

    /// Says what a step did, at once.
    fn tell(&self, step: DemoStep) -> Result<(), Failure> {
        let text = step.text();
        self.session.output.show(|| step, || text)?;
        self.session.output.flush()
    }

    fn source(&self, args: &DemoArgs) -> Result<PathBuf, Failure> {
        let Some(path) = &args.path else { return self.generate(args.size.map_or(GENERATED_BYTES, |size| size.bytes)) };
        let source = fs::canonicalize(path).map_err(|error| Failure::reading(path, &error))?;
        let dir = fs::canonicalize(&self.dir).map_err(|error| Failure::reading(&self.dir, &error))?;
        if dir.starts_with(&source) {
            let failure = Failure::usage(format!("{} holds the directory in which the demo works", render::path_text(&source)));
            return Err(failure.hint("name a smaller tree, or another place with --keep or TMPDIR"));
        }
        Ok(source)
    }

    fn generate(&self, bytes: u64) -> Result<PathBuf, Failure> {
        let (source, began) = (self.dir.join("source"), Instant::now());
        let made = tree::generate(&source, bytes, &self.session.interrupt)?;
        let what = format!("a tree of {}", render::count_text(made.files, "file"));
        self.tell(DemoStep::new("generate", what, began.elapsed()).amount(made.files, made.bytes))?;
        Ok(source)
    }

    /// `mirror init` and `mirror add`.
    fn fill(&self, laptop: &Device, source: &Path) -> Result<(Vault, AddReport), Failure> {
        let options = InitOptions::for_this_device("demo", "first");
        let vault = Vault::init(&laptop.vault, &Home::open(&laptop.home)?, options)?.vault;
        let (progress, began) = (self.session.progress("add"), Instant::now());
        let options = AddOptions { paths: vec![source.to_owned()], ..AddOptions::default() };
        let report = vault.add(&options, &*progress.meter())?;
        drop(progress);
        for (path, reason) in &report.skipped {
            self.session.talk.warn(&format!("skipped {}: {reason}", render::path_text(path)));
        }
        let chunks = render::count_text(report.chunks_stored, "chunk");
        let what = format!("{} files, directories and links into the laptop's vault, sealed as {chunks}", report.added);
        self.tell(DemoStep::new("add", what, began.elapsed()).amount(report.added, report.bytes_read))?;
        Ok((vault, report))
    }

    /// `mirror invite` there, and the first half of `mirror clone` here.
    fn pair(&self, origin: &Vault, serving: &Serving, server: &Device, transport: TransportKind) -> Result<(Vault, Target), Failure> {
        let (began, home) = (Instant::now(), Home::open(&server.home)?);
        let ticket = replicate::invite(origin, Role::Member, vec![serving.address(transport).to_string()], TICKET_LIFE)?;
        let paired = block_on(replicate::pair(&ticket, &server.vault, &home, "server", &options(transport)))??;
        self.tell(DemoStep::new("pair", "a one-time ticket made the server a member".into(), began.elapsed()))?;
        Ok(paired)
    }

    /// `mirror pull`, which must fail: nobody serves any more when half of the bytes are here.
    fn pull_until_cut(
        &self,
        replica: &Vault,
        target: &Target,
        serving: Serving,
        bytes: u64,
        transport: TransportKind,
    ) -> Result<Cut, Failure> {
        let progress = self.session.transfer_progress("pull");
        let cutter = CutHalfWay::new(progress.meter(), serving, bytes / 2);
        let began = Instant::now();
        let result = block_on(replicate::sync(replica, target, &options(transport), cutter.clone()))?;
        drop(progress);
        let ended = Instant::now();
        let error = match result {
            _ if self.session.interrupt.is_set() => return Err(Failure::interrupted()),
            Err(error) => Failure::from(error),
            Ok(_) => return Err(Failure::new(Code::Failed, "the serving process was killed and the session noticed nothing")),
        };
        // Without the cut it is a failure like any other.
        let Some((cut_at, received)) = cutter.cut() else { return Err(error) };
        let cut = Cut {
            transport,
            received,
            elapsed: cut_at.saturating_duration_since(began),
            noticed: ended.saturating_duration_since(cut_at),
            kept: replica.status()?.bytes,
            error: error.message,
        };
        self.tell(cut.step(bytes))?;
        Ok(cut)
    }

    /// `mirror pull` again, over the other transport.
    fn pull_the_rest(&self, replica: &Vault, serving: &Serving, cut: &Cut, transport: TransportKind) -> Result<Summary, Failure> {
        let target = serving.target(transport)?;
        let progress = self.session.transfer_progress("pull");
        let summary = block_on(replicate::sync(replica, &target, &options(transport), progress.meter()))??;
        drop(progress);
        self.tell(cut.resume_step(&summary))?;
        if !summary.is_identical() {
            return Err(Failure::new(Code::Failed, "the replicas are not identical after the second pull"));
        }
        Ok(summary)
    }

    /// `mirror verify --read-data`.
    fn verify(&self, replica: &Vault) -> Result<(), Failure> {
        let (progress, began) = (self.session.progress("verify"), Instant::now());
        let report = replica.verify(true, &*progress.meter())?;
        drop(progress);
        if !report.is_clean() {
            return Err(Failure::new(Code::Damaged, "the server's replica does not verify").cause(render::verify_text(&report)));
        }
        let what = format!("every byte of the server's {}", render::count_text(report.chunks, "chunk"));
        self.tell(DemoStep::new("verify", what, began.elapsed()).amount(report.chunks, report.bytes))
    }

    /// `mirror restore`, and `diff -r` with modes and times.
    fn restore_and_compare(&self, replica: &Vault, source: &Path, added: &AddReport) -> Result<Comparison, Failure> {
        let (restored, began) = (self.dir.join("restored"), Instant::now());
        let progress = self.session.progress("restore");
        let report = replica.restore(&restored, &[], false, &*progress.meter())?;
        drop(progress);
        for (key, reason) in &report.failed {
            self.session.talk.warn(&format!("not restored: {}: {reason}", render::key_text(key)));
        }
        self.tell(DemoStep::new("restore", "from the server's replica".into(), began.elapsed()).amount(report.restored, report.bytes))?;
        let began = Instant::now();
        let name = source.file_name().ok_or_else(|| Failure::usage("a file system's root has no name to restore it under"))?;
        let compared = compare(source, &restored.join(name), &added.skipped, &self.session.interrupt)?;
        let what = "bytes, modes, times and links with the source".into();
        self.tell(DemoStep::new("compare", what, began.elapsed()).amount(compared.equal, compared.bytes))?;
        Ok(compared)
    }

    fn conclude(&self, added: &AddReport, cut: Cut, resumed: &Summary, compared: &Comparison, bytes: u64) -> Result<Code, Failure> {
        for (path, what) in &compared.different {
            self.session.talk.warn(&format!("differs: {}: {what}", render::path_text(path)));
        }
        let summary = DemoSummary {
            entries: added.added,
            source_bytes: added.bytes_read,
            sealed_bytes: bytes,
            equal: compared.equal,
            different: compared.different.len() as u64,
            skipped: added.skipped.len() as u64,
            resent_bytes: (cut.kept + resumed.bytes_received).saturating_sub(bytes),
            elapsed: self.started.elapsed(),
            resumed,
            cut,
        };
        self.session.output.show(|| summary.record(), || summary.text())?;
        Ok(match (summary.different, summary.skipped) {
            (0, 0) => Code::Ok,
            (0, _) => Code::Partial,
            _ => Code::Failed,
        })
    }
}

fn options(transport: TransportKind) -> Options {
    Options { direction: Direction::Pull, choice: Choice::Only(transport), ..Options::default() }
}
