//! The daemon itself: keepers, questions, signals, and the loop in which they meet.
//!
//! ```text
//! signals ──┐                      ┌─ keeper ─ node ─ peers
//! socket ───┼─► Daemon ─ keepers ──┼─ keeper ─ node ─ peers
//! page ─────┘      │               └─ in trouble: tried again
//!                  └─► log, supervisor (systemd)
//! ```

use super::{
    args::MirordCli,
    control::{Answer, DaemonLock, Question, Refusal, Server},
    keeper::{Ground, Heard, Keeper},
    log,
    nearby::{Nearby, News},
    plan::{Plan, Priority},
    repeats::Repeats,
    rest::{self, Rest},
    signals::{Signals, Wish},
    state::{DaemonState, Rates, Timed},
    supervisor::{self, Word},
    telling::{Names, Teller},
    web::{self, Pages},
};
use crate::{
    args::{Bandwidth, QuantityError, Timetable},
    bandwidth::{self, Switching},
    config::Discovery,
    failure::{Code, Failure, require_open_files},
    render::{self, Format, Listening, Output},
};
use mirror_engine::{
    clock,
    home::Home,
    id::DeviceId,
    io::{backend, pages, surplus},
    node::Told,
    replicate::Limits,
    vault::Vault,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep},
};

/// One for sessions, one for their lanes; more only helps when both ends have more cores.
const NETWORK_THREADS: usize = 2;
/// How often a vault that did not open is tried again, and what was held back of the log is counted.
const CHORES: Duration = Duration::from_secs(30);
/// For so long the ports of a node that has ended may be taken still: QUIC listens for three timeouts for what is under way.
const PORTS_CLOSE: Duration = Duration::from_secs(15);
/// Between two tries to get them.
const PORTS_LOOK: Duration = Duration::from_millis(50);
/// What nodes have told and nobody has read yet.
const HEARD_MAX: usize = 1024;
/// Niceness of those who let others go first: the last.
const LAST: i32 = 19;

/// What questions, the page and metrics ask.
pub(super) struct Daemon {
    home: PathBuf,
    since_ms: u64,
    limits: Arc<Limits>,
    /// None without a timetable.
    switching: Mutex<Option<Switching>>,
    keepers: Mutex<Vec<Arc<Keeper>>>,
    pages: Mutex<Pages>,
    /// None if it is not wished for, or cannot be.
    nearby: Mutex<Option<Nearby>>,
    stop: Notify,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub(super) fn run(cli: &MirordCli) -> Result<Code, Failure> {
    let small_pages = pages::keep_small();
    let plan = Plan::resolve(cli)?;
    if plan.priority == Priority::Low {
        // Before the first thread: each inherits it.
        rustix::process::nice(LAST).map_err(|error| Failure::io("cannot let others go first", &error.into()))?;
    }
    require_open_files(plan.vaults.len())?;
    let repeats = log::start(&plan)?;
    if let Err(error) = small_pages {
        tracing::info!(%error, "memory comes in huge pages: more of it may be held than is used");
    }
    backend::choose(plan.settings.io)?;
    let home = Home::open(&plan.settings.home)?;
    let lock = DaemonLock::take(home.dir())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(NETWORK_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("cannot start the network threads", &error))?;
    let output = Output::new(if cli.json { Format::Json } else { Format::Text });
    let ended = runtime.block_on(live(cli, plan, home, &output, &repeats));
    drop(lock);
    ended
}

async fn live(cli: &MirordCli, plan: Plan, home: Home, output: &Output, repeats: &Repeats) -> Result<Code, Failure> {
    let mut signals = Signals::install()?;
    let (heard, mut hears) = mpsc::channel(HEARD_MAX);
    let daemon = Arc::new(Daemon::new(home.dir()));
    daemon.limit(&plan.bwlimit);
    let ground = Ground { home, limits: daemon.limits.clone(), heard };
    let socket = Server::bind(&daemon.home)?;
    tokio::select! {
        started = daemon.start(&plan, &ground) => started?,
        never = signals.end_at_once() => match never {},
    }
    let news = daemon.look_around(plan.settings.discovery);
    daemon.announce(output)?;
    supervisor::tell(Word::Ready(&daemon.state().line()));
    let (asked, answering) = (daemon.clone(), socket.answering());
    let mut socket = JoinSet::from_iter([async move { socket.run(Arc::new(move |question| asked.answer(question))).await }]);
    let code = daemon.keep(cli, &ground, &mut signals, (&mut hears, news), repeats).await;
    supervisor::tell(Word::Stopping);
    tokio::select! {
        () = daemon.end() => {}
        never = signals.end_at_once() => match never {},
    }
    // Whoever asked it to stop may wait for the answer yet; the socket's file goes with the task.
    answering.ended().await;
    socket.shutdown().await;
    Ok(code)
}

impl Daemon {
    fn new(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            since_ms: clock::wall_ms(),
            limits: Arc::default(),
            switching: Mutex::default(),
            keepers: Mutex::default(),
            pages: Mutex::default(),
            nearby: Mutex::default(),
            stop: Notify::new(),
        }
    }

    /// Begins to keep all vaults of `plan`, and opens the pages that it asks for.
    ///
    /// # Errors
    /// When nothing of it can be kept: a daemon that keeps something goes on, and tries the rest again.
    async fn start(self: &Arc<Self>, plan: &Plan, ground: &Ground) -> Result<(), Failure> {
        for vault in &plan.vaults {
            let keeper = Arc::new(Keeper::start(vault.clone(), ground).await);
            locked(&self.keepers).push(keeper);
        }
        let keepers = self.keepers();
        let failures: Vec<Failure> = keepers.iter().filter_map(|keeper| keeper.failure()).collect();
        if failures.len() == keepers.len()
            && let Some(failure) = failures.into_iter().next()
        {
            return Err(failure);
        }
        keepers.iter().for_each(say_trouble);
        let pages = web::open(plan.ui, plan.metrics, self).await?;
        *locked(&self.pages) = pages;
        Ok(())
    }

    /// Begins to be found on local networks, and to find, unless that is unwanted or impossible.
    fn look_around(&self, wish: Discovery) -> Option<News> {
        if wish == Discovery::Off {
            return None;
        }
        match Nearby::start() {
            Ok((mut nearby, news)) => {
                nearby.announce(&self.keepers());
                *locked(&self.nearby) = Some(nearby);
                Some(news)
            }
            Err(error) => {
                tracing::warn!(%error, "peers on local networks are not found; addresses that are known work without it");
                None
            }
        }
    }

    /// Says where it listens: to the program that has started it as JSON, to the log for people.
    fn announce(&self, output: &Output) -> Result<(), Failure> {
        for node in self.keepers().iter().filter_map(|keeper| keeper.with_node(|node| node.status())) {
            for (quic, tcp) in node.quic.iter().zip(&node.tcp) {
                let listening = Listening { quic: *quic, tcp: *tcp, device: node.vault.device };
                tracing::info!(vault = %node.vault.name, "{}", render::listening_text(&listening));
                if output.format() == Format::Json {
                    output.line(&render::json_line(&render::listening_record(&listening)))?;
                }
            }
        }
        let state = self.state();
        for (what, place) in [("status page", &state.ui), ("metrics", &state.metrics)] {
            if let Some(place) = place {
                tracing::info!("{what} at {place}");
            }
        }
        tracing::info!("ready: {}", state.line());
        if output.format() == Format::Json {
            output.line(&render::json_line(&render::Ready { ui: state.ui, metrics: state.metrics, pid: state.pid }))?;
        }
        output.flush()
    }

    /// The time between the start and the end.
    async fn keep(
        self: &Arc<Self>,
        cli: &MirordCli,
        ground: &Ground,
        signals: &mut Signals,
        (hears, mut news): (&mut mpsc::Receiver<Heard>, Option<News>),
        repeats: &Repeats,
    ) -> Code {
        let (mut teller, mut said) = (Teller::default(), String::new());
        let (mut rest, mut looks) = (Rest::default(), interval(rest::LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chores = interval(CHORES);
        let mut alive = interval(supervisor::alive_interval().unwrap_or(CHORES));
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop => return Code::Interrupted,
                    Wish::Reload => self.reload(cli, ground).await,
                },
                () = self.stop.notified() => return Code::Ok,
                Some(heard) = hears.recv() => {
                    teller.tell(&heard, self);
                    if matches!(heard.told, Told::Paused(None)) {
                        self.look_after_folders();
                    }
                },
                Some(device) = next(&mut news) => if let Some(nearby) = &*locked(&self.nearby) {
                    nearby.pass_on(&device, &self.keepers());
                },
                _ = chores.tick() => self.do_chores(ground, repeats).await,
                _ = looks.tick() => if rest.begins(clock::process_cpu()) {
                    spawn_blocking(give_back(self.vaults()));
                },
                // Only a daemon whose locks are free and whose loop runs says that it is alive.
                _ = alive.tick() => self.say_alive(&mut said),
            }
        }
    }

    fn say_alive(&self, said: &mut String) {
        let line = self.state().line();
        if line != *said {
            supervisor::tell(Word::Doing(&line));
            *said = line;
        }
        supervisor::tell(Word::Alive);
    }

    async fn do_chores(&self, ground: &Ground, repeats: &Repeats) {
        for keeper in self.keepers().iter().filter(|keeper| keeper.failure().is_some()) {
            keeper.try_again(ground).await;
            match keeper.failure() {
                Some(_) => say_trouble(keeper),
                None => tracing::info!(vault = %keeper.plan.dir.display(), "kept again"),
            }
        }
        self.look_after_folders();
        self.announce_nearby();
        match repeats.held_back() {
            0 => {}
            lines => tracing::info!(lines, "lines that said the same again were not written"),
        }
    }

    fn look_after_folders(&self) {
        self.keepers().iter().for_each(|keeper| keeper.look_after_folders());
    }

    /// Vaults that came or went are announced, or no longer.
    fn announce_nearby(&self) {
        if let Some(nearby) = &mut *locked(&self.nearby) {
            nearby.announce(&self.keepers());
        }
    }

    /// Reads the settings anew: vaults that are no longer in them are let go, those that changed are begun anew, the rest goes on
    /// undisturbed. What is wrong with them is said, and everything stays as it was.
    async fn reload(self: &Arc<Self>, cli: &MirordCli, ground: &Ground) {
        supervisor::tell(Word::Reloading);
        match Plan::resolve(cli) {
            Ok(plan) => self.take_over(&plan, ground).await,
            Err(failure) => tracing::error!("the settings are left as they were: {}", failure.message),
        }
        supervisor::tell(Word::Ready(&self.state().line()));
    }

    async fn take_over(self: &Arc<Self>, plan: &Plan, ground: &Ground) {
        self.limit(&plan.bwlimit);
        let (mut left, mut keepers) = (self.keepers(), Vec::new());
        for vault in &plan.vaults {
            match left.iter().position(|keeper| keeper.plan.keeps(vault)) {
                Some(at) => keepers.push(left.swap_remove(at)),
                None => {
                    // Its directory and its ports have to be free first.
                    for keeper in left.iter().filter(|keeper| keeper.plan.dir == vault.dir) {
                        keeper.stop().await;
                    }
                    keepers.push(Arc::new(Keeper::start(vault.clone(), ground).await));
                }
            }
        }
        for keeper in &left {
            keeper.stop().await;
        }
        if !left.is_empty() {
            wait_for_ports(&keepers, ground).await;
        }
        *locked(&self.keepers) = keepers.clone();
        keepers.iter().for_each(say_trouble);
        self.announce_nearby();
        let pages = std::mem::take(&mut *locked(&self.pages));
        let pages = pages.moved(plan.ui, plan.metrics, self).await;
        *locked(&self.pages) = pages;
        tracing::info!("settings were read: {}", self.state().line());
    }

    /// Ends everything in order, all vaults at once.
    async fn end(&self) {
        tracing::info!("stopping");
        locked(&self.pages).close();
        // Says goodbye, so that nobody dials any more.
        locked(&self.nearby).take();
        let mut ending: JoinSet<()> = self.keepers().into_iter().map(|keeper| async move { keeper.stop().await }).collect();
        while ending.join_next().await.is_some() {}
    }

    /// What held until now, for ever or by the clock, holds no longer.
    fn limit(&self, bandwidth: &Bandwidth) {
        let mut switching = locked(&self.switching);
        *switching = None;
        match bandwidth {
            Bandwidth::Always(limit) => bandwidth::set(&self.limits, *limit),
            Bandwidth::ByTime(timetable) => {
                let tell = Box::new(|text: &str| tracing::info!("{text}"));
                *switching = Some(Switching::begin(timetable.clone(), &self.limits, tell));
            }
        }
    }

    fn limit_by(&self, entries: &str) -> Result<(), Failure> {
        let timetable: Timetable = entries.parse().map_err(|error: QuantityError| Failure::usage(error.to_string()))?;
        self.limit(&Bandwidth::ByTime(timetable));
        Ok(())
    }

    fn timed(&self) -> Option<Timed> {
        let switching = locked(&self.switching);
        let switching = switching.as_ref()?;
        Some(Timed { entries: switching.timetable().to_string(), until: switching.until().map(|until| until.to_string()) })
    }

    fn keepers(&self) -> Vec<Arc<Keeper>> {
        locked(&self.keepers).clone()
    }

    /// What is going on.
    pub(super) fn state(&self) -> DaemonState {
        let pages = locked(&self.pages).places();
        DaemonState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            home: self.home.clone(),
            since_ms: self.since_ms,
            limits: Rates { send: self.limits.send.get(), receive: self.limits.receive.get() },
            timetable: self.timed(),
            ui: pages.0,
            metrics: pages.1,
            vaults: self.keepers().iter().map(|keeper| keeper.state()).collect(),
        }
    }

    /// The vault with this id, if it is kept.
    pub(super) fn vault(&self, id: &str) -> Option<Arc<Vault>> {
        self.vaults().into_iter().find(|vault| vault.info().id.to_string() == id)
    }

    fn vaults(&self) -> Vec<Arc<Vault>> {
        self.keepers().into_iter().filter_map(|keeper| keeper.with_node(|node| node.vault())).collect()
    }

    fn answer(&self, question: Question) -> Answer {
        let done = match question {
            Question::Status => Ok(()),
            Question::Limits { send, receive } => {
                *locked(&self.switching) = None;
                self.limits.send.set(send);
                self.limits.receive.set(receive);
                Ok(())
            }
            Question::Timetable { entries } => self.limit_by(&entries),
            Question::Pause { vault } => self.each(vault.as_deref(), |keeper| _ = keeper.with_node(|node| node.pause())),
            Question::Resume { vault } => self.each(vault.as_deref(), |keeper| _ = keeper.with_node(|node| node.resume())),
            Question::Stop => {
                self.stop.notify_one();
                Ok(())
            }
        };
        match done {
            Ok(()) => Answer::Daemon(Box::new(self.state())),
            Err(failure) => Answer::Error(Refusal::from(failure)),
        }
    }

    /// Does it to the vault in `dir`, or to all.
    fn each(&self, dir: Option<&Path>, does: impl Fn(&Keeper)) -> Result<(), Failure> {
        let keepers = self.keepers();
        let is_meant = |keeper: &&Arc<Keeper>| dir.is_none_or(|dir| keeper.plan.dir == dir);
        let meant: Vec<&Arc<Keeper>> = keepers.iter().filter(is_meant).collect();
        if let (true, Some(dir)) = (meant.is_empty(), dir) {
            let kept: Vec<String> = keepers.iter().map(|keeper| keeper.plan.dir.display().to_string()).collect();
            return Err(Failure::usage(format!("mirord does not keep {}", dir.display())).hint(format!("it keeps {}", kept.join(", "))));
        }
        meant.into_iter().for_each(|keeper| does(keeper));
        Ok(())
    }
}

impl Names for Arc<Daemon> {
    fn of(&self, device: &DeviceId) -> String {
        let known = |vault: Arc<Vault>| vault.home().peer_of(device).ok().flatten().map(|peer| peer.name);
        self.vaults().into_iter().find_map(known).unwrap_or_else(|| device.short().to_string())
    }
}

/// Caches, then what allocators keep free: the memory of the caches is among it.
fn give_back(vaults: Vec<Arc<Vault>>) -> impl FnOnce() + Send {
    move || {
        for vault in vaults {
            if let Err(error) = vault.give_back() {
                tracing::debug!(%error, vault = %vault.info().id, "caches were kept");
            }
        }
        surplus::give_back();
    }
}

/// The next of `news`; never, without any.
async fn next(news: &mut Option<News>) -> Option<DeviceId> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

/// What has just ended has its ports until the goodbyes of its connections were heard.
async fn wait_for_ports(keepers: &[Arc<Keeper>], ground: &Ground) {
    let begun = clock::now();
    while keepers.iter().any(|keeper| keeper.lacks_ports()) && begun.elapsed() < PORTS_CLOSE {
        sleep(PORTS_LOOK).await;
        for keeper in keepers.iter().filter(|keeper| keeper.lacks_ports()) {
            keeper.try_again(ground).await;
        }
    }
}

fn say_trouble(keeper: &Arc<Keeper>) {
    if let Some(failure) = keeper.failure() {
        tracing::error!(vault = %keeper.plan.dir.display(), hint = failure.hint, "not kept, tried again: {}", failure.message);
    }
}

/// What a thread that panicked left is whole: nothing is ever half changed under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
