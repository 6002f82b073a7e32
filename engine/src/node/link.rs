//! What a node knows of one device: where it is, which sessions with it are up, how far it is behind, what has moved.
//!
//! Written by sessions as they run (see [`Leash`](super::leash::Leash)), by the follower of the device, and read by whoever asks for the
//! status. Nothing here waits, and no lock is held while anything else is called.

use super::{
    Dialled, Lag, Path, Pause, PauseReason, PeerStatus, State, Traffic,
    flow::{Flow, left},
};
use crate::{
    clock,
    event::Frontier,
    id::{DeviceId, Root},
    meter::Stage,
    replicate::Progress,
    store::{LogPosition, Store},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// Events of a lagging peer that are looked at to add up what it lacks.
const LAG_BYTES_READ_MAX: usize = 4 << 20;

/// One device.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) device: DeviceId,
    record: Mutex<Record>,
    up: watch::Sender<Up>,
    /// Dial now.
    pub(super) wake: Notify,
}

/// Live sessions of which something is heard, by who dialled them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Up {
    pub(super) ours: usize,
    pub(super) theirs: usize,
    /// Those that we dialled and of which nothing is heard.
    pub(super) ours_silent: usize,
    /// Sessions that we dialled and that are connected, live or not.
    pub(super) ours_connected: usize,
    /// The newest that the peer dialled and in which it is heard, live or not.
    pub(super) theirs_newest: Option<u64>,
}

/// What the follower is at while no session is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// It dials.
    Dial,
    /// It waits.
    Wait { reason: String, until: Option<Instant> },
    /// It was sent away.
    Refused { reason: String, until: Instant },
    /// Something here has to change.
    Pause { reason: PauseReason, text: String, until: Option<Instant> },
}

#[derive(Debug)]
struct Record {
    name: String,
    /// As in `peers.toml`.
    typed: Vec<String>,
    /// What was found for them when it was last looked.
    looked_up: Vec<SocketAddr>,
    /// What somebody else found.
    found: Vec<SocketAddr>,
    plan: Plan,
    plan_since_ms: u64,
    sessions: Vec<Running>,
    peer: Option<(Frontier, Root)>,
    /// The newest session that has said so.
    told_by: u64,
    /// Since when the two differ, as far as that is known.
    apart: Option<Instant>,
    sent: Flow,
    received: Flow,
    limiting: Option<Stage>,
    lived: u64,
    lived_seen: u64,
    last_error: Option<String>,
    said: Option<State>,
    lag: Option<Reckoned>,
}

#[derive(Debug)]
struct Running {
    number: u64,
    dialled: Dialled,
    stop: watch::Sender<bool>,
    path: Option<Path>,
    live: bool,
    silent: bool,
    expected_bytes: u64,
    received_bytes: u64,
}

/// What a peer lacks, as it was reckoned last: good as long as neither side has moved.
#[derive(Debug, Clone, Copy)]
struct Reckoned {
    peer: Root,
    end: LogPosition,
    bytes: Option<u64>,
}

impl Link {
    pub(super) fn new(device: DeviceId, now: Instant) -> Self {
        let record = Record {
            name: device.short(),
            typed: Vec::new(),
            looked_up: Vec::new(),
            found: Vec::new(),
            plan: Plan::Wait { reason: "no address is known".into(), until: None },
            plan_since_ms: clock::wall_ms(),
            sessions: Vec::new(),
            peer: None,
            told_by: 0,
            apart: None,
            sent: Flow::new(now),
            received: Flow::new(now),
            limiting: None,
            lived: 0,
            lived_seen: 0,
            last_error: None,
            said: None,
            lag: None,
        };
        Self { device, record: Mutex::new(record), up: watch::Sender::new(Up::default()), wake: Notify::new() }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        self.record().name.clone()
    }

    /// What `peers.toml` says. Returns whether that is news.
    pub(super) fn set_known(&self, name: &str, typed: &[String]) -> bool {
        let mut record = self.record();
        let news = record.name != name || record.typed != typed;
        if news {
            (record.name, record.typed) = (name.to_owned(), typed.to_vec());
        }
        news
    }

    /// Where somebody else found it. Returns whether that is news.
    pub(super) fn set_found(&self, mut found: Vec<SocketAddr>) -> bool {
        found.sort_unstable();
        let mut record = self.record();
        let news = record.found != found;
        record.found = found;
        news
    }

    pub(super) fn set_looked_up(&self, addresses: Vec<SocketAddr>) {
        self.record().looked_up = addresses;
    }

    pub(super) fn typed(&self) -> Vec<String> {
        self.record().typed.clone()
    }

    /// Whether somebody else found it.
    pub(super) fn is_found(&self) -> bool {
        !self.record().found.is_empty()
    }

    /// Where to dial: what was found first, because it is newer than what somebody once typed.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.record().addresses()
    }

    /// Whether there is anything to dial.
    pub(super) fn has_address(&self) -> bool {
        let record = self.record();
        !record.typed.is_empty() || !record.found.is_empty()
    }

    /// How the last contact ended, from before this node was started. What a session has told since is newer.
    pub(super) fn recall(&self, frontier: Frontier, root: Root, ours: Root, ago: Duration, now: Instant) {
        let mut record = self.record();
        if record.peer.is_some() {
            return;
        }
        record.peer = Some((frontier, root));
        record.apart = (root != ours).then(|| now.checked_sub(ago).unwrap_or(now));
    }

    /// Notices that this replica's digest is `root` now.
    pub(super) fn grown(&self, root: Root, now: Instant) {
        self.record().compare(root, now);
    }

    /// Whether its fuse has blown over what is here by now: a person has let it pass.
    pub(super) fn is_freed_by(&self, ours: &Frontier) -> bool {
        let record = self.record();
        let has_blown = matches!(record.plan, Plan::Pause { reason: PauseReason::Fuse, .. }) && record.sessions.is_empty();
        has_blown && record.peer.as_ref().is_some_and(|(theirs, _)| ours.covers(theirs))
    }

    pub(super) fn plan(&self, plan: Plan) {
        let mut record = self.record();
        if record.plan != plan {
            (record.plan, record.plan_since_ms) = (plan, clock::wall_ms());
        }
    }

    /// Whether a session was live since this was last asked.
    pub(super) fn take_lived(&self) -> bool {
        let mut record = self.record();
        let lived = record.lived;
        std::mem::replace(&mut record.lived_seen, lived) != lived
    }

    /// Whether a session is under way, live or not.
    pub(super) fn is_busy(&self) -> bool {
        !self.record().sessions.is_empty()
    }

    pub(super) fn failed(&self, why: Option<String>) {
        self.record().last_error = why;
    }

    /// Live sessions, and each change of them.
    pub(super) fn up(&self) -> watch::Receiver<Up> {
        self.up.subscribe()
    }

    /// A session begins. What is returned ends with it.
    pub(super) fn begin(self: &Arc<Self>, number: u64, dialled: Dialled) -> (Presence, watch::Receiver<bool>) {
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        let running = Running { number, dialled, stop, path: None, live: false, silent: false, expected_bytes: 0, received_bytes: 0 };
        self.record().sessions.push(running);
        (Presence { link: self.clone(), number }, stopped)
    }

    /// Asks sessions to come to their end.
    pub(super) fn stop(&self, which: impl Fn(u64) -> bool) {
        let record = self.record();
        record.sessions.iter().filter(|running| which(running.number)).for_each(|running| {
            running.stop.send_replace(true);
        });
    }

    /// What session `number` tells.
    pub(super) fn note(&self, number: u64, progress: &Progress, store: &Store) {
        let (now, ours) = (clock::now(), ours(progress, store));
        let mut record = self.record();
        record.note(number, progress, now);
        if let Some((frontier, root)) = ours {
            record.hear(number, progress, (frontier, root), now);
        }
        let up = record.up();
        drop(record);
        self.up.send_if_modified(|told| std::mem::replace(told, up) != up);
    }

    fn end(&self, number: u64) {
        let mut record = self.record();
        record.sessions.retain(|running| running.number != number);
        let up = record.up();
        drop(record);
        self.up.send_if_modified(|told| std::mem::replace(told, up) != up);
    }

    /// Its state, if that says something new.
    pub(super) fn news(&self) -> Option<State> {
        let mut record = self.record();
        let state = record.state(clock::now());
        let quiet = match state {
            State::Transferring(path) => State::Live(path),
            other => other,
        };
        let news = record.said.as_ref().is_none_or(|said| !said.says_the_same(&quiet));
        if news {
            record.said = Some(quiet.clone());
        }
        news.then_some(quiet)
    }

    /// All of it. Reads the log only where the peer lacks something and that has not been added up yet.
    pub(super) fn status(&self, store: &Store, root: Root) -> PeerStatus {
        let known = self.record().lag_to_reckon(root, store.log_end());
        if let Some((frontier, peer)) = known {
            let bytes = lacking_bytes(store, &frontier);
            self.record().lag = Some(Reckoned { peer, end: store.log_end(), bytes });
        }
        self.record().status(self.device, &store.frontier(), root, clock::now())
    }
}

/// What this replica holds, where `progress` asks for a comparison.
fn ours(progress: &Progress, store: &Store) -> Option<(Frontier, Root)> {
    let compares = matches!(progress, Progress::PeerHolds { .. } | Progress::PeerApplied { .. } | Progress::Identical { .. });
    compares.then(|| {
        let heads = store.heads();
        (heads.frontier(), heads.root())
    })
}

/// Bytes of chunks that events beyond `frontier` name; none if they are too many to look at.
fn lacking_bytes(store: &Store, frontier: &Frontier) -> Option<u64> {
    let batch = store.events_beyond(frontier, LogPosition::START, LAG_BYTES_READ_MAX).ok()?;
    let lists = batch.events.iter().flat_map(|(event, _)| &event.header().lists);
    batch.done.then(|| lists.map(|list| list.bytes).sum())
}

impl Record {
    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = self.found.clone();
        addresses.extend(self.looked_up.iter().filter(|address| !self.found.contains(address)));
        addresses
    }

    fn up(&self) -> Up {
        let live = |dialled, silent| {
            let is = |running: &&Running| running.live && running.dialled == dialled && running.silent == silent;
            self.sessions.iter().filter(is).count()
        };
        let connected = |dialled| self.sessions.iter().filter(move |running| running.path.is_some() && running.dialled == dialled);
        Up {
            ours: live(Dialled::ByUs, false),
            theirs: live(Dialled::ByThem, false),
            ours_silent: live(Dialled::ByUs, true),
            ours_connected: connected(Dialled::ByUs).count(),
            theirs_newest: connected(Dialled::ByThem).filter(|running| !running.silent).map(|running| running.number).max(),
        }
    }

    /// The peer said in session `number` what it holds, while this replica holds `ours`.
    fn hear(&mut self, number: u64, progress: &Progress, ours: (Frontier, Root), now: Instant) {
        let root_here = ours.1;
        match progress {
            Progress::PeerHolds { frontier, root } | Progress::PeerApplied { frontier, root } => {
                self.learn(number, (frontier.clone(), *root));
            }
            // What both held then; this replica may have grown since.
            Progress::Identical { root } if *root == root_here => self.learn(number, ours),
            _ => {}
        }
        self.compare(root_here, now);
    }

    /// An older session's word may come after a newer one's: then only what says more is news.
    fn learn(&mut self, number: u64, said: (Frontier, Root)) {
        let is_news = self.peer.as_ref().is_none_or(|(known, _)| number >= self.told_by || said.0.covers(known));
        if is_news {
            (self.peer, self.told_by) = (Some(said), self.told_by.max(number));
        }
    }

    fn note(&mut self, number: u64, progress: &Progress, now: Instant) {
        match progress {
            Progress::Received { bytes, .. } => self.received.add(*bytes, now),
            Progress::Sent { bytes, .. } => self.sent.add(*bytes, now),
            Progress::Stages(shares) => self.limiting = Some(shares.limiting()),
            Progress::Live => {
                self.lived += 1;
                self.last_error = None;
            }
            _ => {}
        }
        if let Some(running) = self.sessions.iter_mut().find(|running| running.number == number) {
            running.note(progress);
        }
    }

    /// From when on the two differ, or that they do not.
    fn compare(&mut self, ours: Root, now: Instant) {
        match &self.peer {
            Some((_, peer)) if *peer == ours => self.apart = None,
            Some(_) => drop(self.apart.get_or_insert(now)),
            None => {}
        }
    }

    /// The newest session that is up, else the newest.
    fn best(&self) -> Option<&Running> {
        let newest = |live: bool| self.sessions.iter().filter(move |running| running.live == live).max_by_key(|running| running.number);
        newest(true).or_else(|| newest(false))
    }

    fn state(&mut self, now: Instant) -> State {
        let moving = self.sent.is_moving(now) || self.received.is_moving(now);
        match self.best() {
            Some(Running { live: true, path: Some(path), .. }) if moving => State::Transferring(path.clone()),
            Some(Running { live: true, path: Some(path), .. }) => State::Live(path.clone()),
            Some(Running { path: Some(path), .. }) => State::Connecting { since_ms: path.since_ms },
            _ => self.planned(now),
        }
    }

    fn planned(&self, now: Instant) -> State {
        let since_ms = self.plan_since_ms;
        match &self.plan {
            Plan::Dial => State::Connecting { since_ms },
            Plan::Wait { reason, until } => State::Waiting { reason: reason.clone(), since_ms, next_in: left(*until, now) },
            Plan::Refused { reason, until } => State::Refused { reason: reason.clone(), since_ms, next_in: left(Some(*until), now) },
            Plan::Pause { reason, text, until } => {
                State::Paused(Pause { reason: *reason, text: text.clone(), since_ms, next_in: left(*until, now) })
            }
        }
    }

    /// What the peer holds, where what it lacks has to be added up anew.
    fn lag_to_reckon(&self, ours: Root, end: LogPosition) -> Option<(Frontier, Root)> {
        let (frontier, peer) = self.peer.as_ref().filter(|(_, peer)| *peer != ours)?;
        let is_known = self.lag.is_some_and(|lag| lag.peer == *peer && lag.end == end);
        (!is_known).then(|| (frontier.clone(), *peer))
    }

    fn lag(&self, ours: &Frontier, root: Root, now: Instant) -> Lag {
        let Some((theirs, peer)) = &self.peer else { return Lag::default() };
        if *peer == root {
            return Lag { events_out: Some(0), events_in: Some(0), bytes_out: Some(0), bytes_in: Some(0), age: Some(Duration::ZERO) };
        }
        let coming = |running: &Running| running.expected_bytes.saturating_sub(running.received_bytes);
        Lag {
            events_out: Some(ours.events_beyond(theirs)),
            events_in: Some(theirs.events_beyond(ours)),
            bytes_out: self.lag.and_then(|lag| lag.bytes),
            bytes_in: self.best().map(coming),
            age: self.apart.map(|since| now.duration_since(since)),
        }
    }

    fn status(&mut self, device: DeviceId, ours: &Frontier, root: Root, now: Instant) -> PeerStatus {
        PeerStatus {
            name: self.name.clone(),
            device,
            addresses: self.addresses(),
            state: self.state(now),
            lag: self.lag(ours, root, now),
            traffic: Traffic {
                bytes_sent: self.sent.total(),
                bytes_received: self.received.total(),
                sent_per_s: self.sent.per_s(now),
                received_per_s: self.received.per_s(now),
            },
            limiting: self.limiting,
            sessions: self.lived,
            last_error: self.last_error.clone(),
        }
    }
}

impl Running {
    fn note(&mut self, progress: &Progress) {
        match progress {
            Progress::Connected { transport, address } => {
                let since_ms = clock::wall_ms();
                self.path = Some(Path { transport: *transport, address: *address, dialled: self.dialled, since_ms });
                (self.live, self.silent) = (false, false);
            }
            Progress::Live => self.live = true,
            Progress::Silent => self.silent = true,
            Progress::Heard => self.silent = false,
            Progress::Total { bytes, .. } => self.expected_bytes = *bytes,
            Progress::Received { bytes, .. } => self.received_bytes += bytes,
            _ => {}
        }
    }
}

/// A session is in the books for as long as this is kept, also when its task panics.
#[derive(Debug)]
pub(super) struct Presence {
    link: Arc<Link>,
    pub(super) number: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.link.end(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Dot, id::ReplicaId, transport::TransportKind};

    fn link() -> Arc<Link> {
        Arc::new(Link::new(DeviceId::from_bytes([1; 32]), clock::now()))
    }

    fn frontier(sequence: u64) -> Frontier {
        [Dot { author: ReplicaId::from_bytes([7; 32]), sequence }].into_iter().collect()
    }

    fn root(n: u8) -> Root {
        Root::from_bytes([n; 32])
    }

    fn tell(link: &Link, number: u64, progress: &Progress) {
        link.record().note(number, progress, clock::now());
    }

    const CONNECTED: Progress = Progress::Connected { transport: TransportKind::Quic, address: None };

    #[test]
    fn what_is_shown_is_the_newest_live_session_else_the_plan() {
        let (link, now) = (link(), clock::now());
        let dialled = |state: State| match state {
            State::Live(path) | State::Transferring(path) => Some(path.dialled),
            _ => None,
        };
        let state = || link.record().state(now);
        assert!(matches!(state(), State::Waiting { next_in: None, .. }));
        let (older, _stop) = link.begin(1, Dialled::ByThem);
        tell(&link, 1, &CONNECTED);
        assert!(matches!(state(), State::Connecting { .. }));
        tell(&link, 1, &Progress::Live);
        let (newer, _stop) = link.begin(2, Dialled::ByUs);
        tell(&link, 2, &CONNECTED);
        assert_eq!(dialled(state()), Some(Dialled::ByThem), "the other is not up yet");
        tell(&link, 2, &Progress::Live);
        let up = link.record().up();
        assert_eq!((dialled(state()), up.ours, up.theirs), (Some(Dialled::ByUs), 1, 1));
        drop(newer);
        assert_eq!(dialled(state()), Some(Dialled::ByThem));
        drop(older);
        assert!(matches!(state(), State::Waiting { .. }) && link.record().sessions.is_empty());
    }

    #[test]
    fn a_session_in_which_nothing_is_heard_keeps_nobody_from_dialling() {
        let link = link();
        let (_ours, _stop) = link.begin(1, Dialled::ByUs);
        let (_theirs, _stop) = link.begin(2, Dialled::ByThem);
        let up = |number: u64, progress: &Progress| {
            tell(&link, number, progress);
            let up = link.record().up();
            (up.ours, up.theirs, up.ours_silent)
        };
        up(1, &Progress::Live);
        up(2, &Progress::Live);
        assert_eq!(up(2, &Progress::Silent), (1, 0, 0));
        assert_eq!(up(1, &Progress::Silent), (0, 0, 1));
        assert_eq!(up(2, &Progress::Heard), (0, 1, 1));
        up(1, &CONNECTED);
        assert_eq!(up(1, &Progress::Live), (1, 1, 0), "over another connection");
    }

    #[test]
    fn the_peers_dial_that_has_come_through_is_told_from_ours_that_has_not() {
        let link = link();
        let (_ours, _stop) = link.begin(1, Dialled::ByUs);
        let (_theirs, _stop) = link.begin(2, Dialled::ByThem);
        let up = || {
            let up = link.record().up();
            (up.ours_connected, up.theirs_newest)
        };
        assert_eq!(up(), (0, None));
        tell(&link, 2, &CONNECTED);
        assert_eq!(up(), (0, Some(2)));
        tell(&link, 2, &Progress::Silent);
        tell(&link, 1, &CONNECTED);
        assert_eq!(up(), (1, None));
    }

    #[test]
    fn the_same_state_is_told_once_and_bytes_are_no_news() {
        let link = link();
        let (_presence, _stop) = link.begin(1, Dialled::ByUs);
        assert!(matches!(link.news(), Some(State::Waiting { .. })));
        tell(&link, 1, &CONNECTED);
        tell(&link, 1, &Progress::Live);
        assert!(matches!(link.news(), Some(State::Live(_))));
        tell(&link, 1, &Progress::Received { chunks: 1, bytes: 10 });
        assert_eq!(link.news(), None);
    }

    #[test]
    fn a_lag_has_the_age_of_the_first_difference_and_none_when_both_are_the_same() {
        let (link, now) = (link(), clock::now());
        let hear = |progress: &Progress, ours: u64, at| link.record().hear(1, progress, (frontier(ours), root(ours as u8)), at);
        let lag = |ours: u64, at| link.record().lag(&frontier(ours), root(ours as u8), at);
        assert_eq!(lag(3, now), Lag::default());
        hear(&Progress::PeerHolds { frontier: frontier(3), root: root(3) }, 3, now);
        assert_eq!(lag(3, now).age, Some(Duration::ZERO));
        let at = |s| now + Duration::from_secs(s);
        link.grown(root(5), at(10));
        link.grown(root(6), at(20));
        let behind = lag(6, at(25));
        assert_eq!((behind.events_out, behind.events_in, behind.age), (Some(3), Some(0), Some(Duration::from_secs(15))));
        hear(&Progress::PeerApplied { frontier: frontier(6), root: root(6) }, 6, at(30));
        assert_eq!((lag(6, at(40)).events_out, lag(6, at(40)).age), (Some(0), Some(Duration::ZERO)));
    }

    #[test]
    fn what_a_session_has_told_outweighs_what_is_remembered_and_what_an_older_one_says_late() {
        let (link, now) = (link(), clock::now());
        let is_identical = || link.record().lag(&frontier(6), root(6), now).events_out == Some(0);
        let says = |sequence: u64| Progress::PeerHolds { frontier: frontier(sequence), root: root(sequence as u8) };
        let hear = |number: u64, sequence: u64| link.record().hear(number, &says(sequence), (frontier(6), root(6)), now);
        link.recall(frontier(3), root(3), root(6), Duration::from_secs(1), now);
        assert!(!is_identical(), "nothing else is known");
        hear(2, 6);
        assert!(is_identical());
        link.recall(frontier(3), root(3), root(6), Duration::from_secs(1), now);
        assert!(is_identical(), "a peer that is noticed only after it has dialled is not behind");
        hear(1, 4);
        assert!(is_identical(), "the older session's word is late");
        hear(3, 4);
        assert!(!is_identical(), "it has lost something");
        hear(2, 6);
        assert!(is_identical(), "more is news, whoever tells it");
    }

    #[test]
    fn a_fuse_that_blew_is_tried_again_once_what_it_stopped_is_here() {
        let link = link();
        link.record().peer = Some((frontier(4), root(4)));
        assert!(!link.is_freed_by(&frontier(4)));
        link.plan(Plan::Pause { reason: PauseReason::Fuse, text: "too many".into(), until: None });
        assert!(!link.is_freed_by(&frontier(3)) && link.is_freed_by(&frontier(5)));
    }
}
