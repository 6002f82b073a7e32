//! The driver: connects one session to one connection and one store.
//!
//! ```text
//!            ┌────────── control messages ──────────┐
//! connection ┤                                      ├ session (pure) ─ actions ─► keeper thread (writes) · server thread (reads)
//!            └ lanes ─► runs ─► keeper   spans ◄────┘                 ◄─ done ──┘
//! ```
//! One task turns the crank; it never touches a file. Lanes run as tasks of their own and start only when the session says that
//! bulk data flows. When the session is over, or the connection, everything else ends because its queue does.

use super::{
    Findings, Observer, Options, Progress, ReplicateError,
    carriers::{Carriers, Setup},
    certificates::Certificates,
    failure::Failures,
    follow::Growth,
    keeper::{self, Intake, Keeper},
    loads::Loads,
    outgoing::{self, Outgoing},
    pace::Pace,
    remembered::Remembered,
    rounds::Rounds,
    server::{self, Request, Server},
    silence,
    tally::{Ended, Tally, conclude},
    worker,
};
use crate::{
    clock,
    event::{Frontier, Heads},
    home::{Contact, OwnReplica, VaultHome},
    id::{ListId, ReplicaId},
    keys::{DeviceKey, ReplicationKey, Witness},
    limits::{FORK_BYTES_MAX, MESSAGE_BYTES_MAX, MIB},
    members::Admittance,
    meter::{Flow, Meter, Shares},
    session::{
        Action, Admitted, Config, Done, ForkKnowledge, HelloKeys, Holding, Local, Message, Outcome, Session, SessionError, SessionEvent,
        Side, Stay, Windows,
    },
    store::{Store, StoreError},
    transport::{CloseReason, Connection, ControlReceiver, TransportError},
    vault::{Vault, VaultError},
};
use bytes::Bytes;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};

/// Runs of frames between the lanes and the keeper.
const RUNS_QUEUED: usize = 4;
/// Spans between the server and the lanes.
const SPANS_QUEUED: usize = 4;
/// Control messages that have come are handled together up to about this much.
const HEARD_BYTES_MAX: usize = MIB;
/// Answers of the two threads that are handled together.
const DONE_MAX: usize = 4_096;
/// How often the session is told that bytes come, although no chunk is whole.
const LIVELINESS: Duration = Duration::from_secs(1);
/// How long a finished session waits for the peer's goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Clocks that differ by less are not worth a word, in minutes.
const CLOCKS_DIFFER_MIN: u64 = 5;
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mirror-hello";

/// One end of a conversation.
pub(super) struct Party<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) home: &'a VaultHome,
    /// Newest epoch first.
    pub(super) replication: Vec<ReplicationKey>,
    pub(super) device: &'a DeviceKey,
    pub(super) replica: ReplicaId,
    pub(super) own: &'a OwnReplica,
    pub(super) dir: &'a Path,
    pub(super) options: &'a Options,
}

impl<'a> Party<'a> {
    /// This side, with its vault.
    pub(super) fn of(vault: &'a Vault, options: &'a Options) -> Self {
        Self {
            store: vault.store(),
            home: vault.home(),
            replication: vault.replication_keys(),
            device: vault.device(),
            replica: vault.info().replica,
            own: vault.own(),
            dir: vault.dir(),
            options,
        }
    }
}

/// Runs one session to its end.
pub(super) async fn drive(
    connection: &Connection,
    side: Side,
    party: Party<'_>,
    observer: Arc<dyn Observer>,
) -> Result<Ended, ReplicateError> {
    let began = clock::now();
    let failures = Failures::default();
    let (done_in, done) = mpsc::unbounded_channel();
    let growth = Growth::of(party.store);
    let loads = Loads::new(connection, party.options.lanes);
    let (keeper, pending, holding) = prepare(&party, done_in.clone(), failures.clone(), loads.meter()).await?;
    let resumed = !pending.is_empty();
    let exporter = connection.exporter(EXPORTER_LABEL, b"")?;
    let config = Config {
        side,
        direction: party.options.direction,
        vault: *party.store.vault(),
        replica: party.replica,
        hello_keys: hello_keys(&party.replication, &exporter)?,
        cached_peer_frontier: recall(party.home, connection, party.options),
        stay: stay(side, party.options),
        windows: Windows::default(),
        witness: Some(Witness::new(*party.store.vault(), party.device, connection.peer())),
        wall_ms: clock::wall_ms(),
    };
    let heads = party.store.heads();
    let forks = fork_knowledge(party.store, &heads)?;
    let local = Local { frontier: heads.frontier(), root: heads.root(), pending, holding, forks };
    let root = local.root;
    let dry_run = party.options.dry_run.then(|| local.frontier.clone());
    let crank = Crank {
        session: Session::new(config, local, began),
        began,
        side,
        connection,
        growth,
        tally: Tally::new(root, resumed),
        failures: failures.clone(),
        observer,
        options: party.options,
        loads,
        certificates: Certificates::new(party.home, party.device, connection.peer()),
        dry_run,
        remembered: Remembered::new(&party, connection.peer()),
    };
    let (turned, tally, parts, findings) = crank.run(party.store, keeper, (done_in, done)).await;
    let result = failures.take().map_or(turned, Err);
    if result.is_ok() {
        remember(party.home, connection, &tally);
    }
    Ok(conclude(connection, result, tally, (parts, findings), clock::since(began), party.options.dry_run))
}

/// Nothing in nearly every vault; a few small files where a log was forked.
fn fork_knowledge(store: &Store, heads: &Heads) -> Result<ForkKnowledge, ReplicateError> {
    let (mut proofs, mut bytes) = (Vec::new(), 0);
    for author in store.forks().into_iter().map(|fork| fork.dot.author) {
        let proof = store.proof_of(&author).map_err(VaultError::from)?.filter(|proof| proof.len() < MESSAGE_BYTES_MAX);
        bytes += proof.as_ref().map_or(0, Vec::len) as u64;
        if bytes > FORK_BYTES_MAX {
            break;
        }
        proofs.extend(proof.map(|proof| (author, Bytes::from(proof))));
    }
    let shared = store.shared_of_forks().map_err(VaultError::from)?;
    Ok(ForkKnowledge { heads: heads.clone(), proofs, aside: store.aside_frontier(), shared, wall_ms: clock::wall_ms() })
}

fn hello_keys(epochs: &[ReplicationKey], exporter: &[u8; 32]) -> Result<HelloKeys, ReplicateError> {
    let (newest, older) = epochs.split_first().ok_or_else(|| VaultError::internal("no key to prove membership with"))?;
    let newest = HelloKeys::derive(newest.as_bytes(), exporter);
    Ok(older.iter().fold(newest, |keys, older| keys.and_older(older.as_bytes(), exporter)))
}

/// A dry run sends nothing, and a listener does not speak first.
fn recall(home: &VaultHome, connection: &Connection, options: &Options) -> Option<Frontier> {
    if options.dry_run {
        return None;
    }
    home.contact(&connection.peer()).map(|contact| contact.frontier)
}

/// A listener leaves it to the dialer.
fn stay(side: Side, options: &Options) -> Stay {
    match (side, options.dry_run) {
        (Side::Listener, _) => Stay::Live,
        (Side::Dialer, false) => options.stay,
        (Side::Dialer, true) => Stay::UntilEqual,
    }
}

/// For `status` and for the next session's start: nothing depends on it, so a failure is only logged.
fn remember(home: &VaultHome, connection: &Connection, tally: &Tally) {
    let (Some(frontier), Some(root)) = (&tally.peer_frontier, tally.peer_root) else { return };
    let contact = Contact { at_ms: clock::wall_ms(), transport: connection.kind().to_string(), frontier: frontier.clone(), root };
    if let Err(error) = home.record_contact(&connection.peer(), &contact) {
        tracing::warn!(%error, "the contact with the peer was not recorded");
    }
}

/// Sees what other processes have appended since and what was lost, and takes over what the journal holds.
async fn prepare(
    party: &Party<'_>,
    done: mpsc::UnboundedSender<Done>,
    failures: Failures,
    meter: Arc<Meter>,
) -> Result<(Keeper, Vec<Admitted>, Holding), ReplicateError> {
    let (store, fuse) = (party.store.clone(), party.options.fuse.clone());
    let opened = worker::call(move || {
        store.refresh()?;
        let holding = if store.is_whole()? { Holding::Whole } else { Holding::Gaps };
        let (keeper, pending) = Keeper::new(store, done, failures, fuse, meter)?;
        Ok((keeper, pending, holding))
    });
    let opened = opened.await.map_err(ReplicateError::broke_down)?;
    Ok(opened.map_err(|error: StoreError| VaultError::from(error))?)
}

struct Crank<'a> {
    session: Session,
    began: Instant,
    side: Side,
    connection: &'a Connection,
    growth: Growth,
    tally: Tally,
    failures: Failures,
    observer: Arc<dyn Observer>,
    options: &'a Options,
    loads: Loads,
    certificates: Certificates,
    /// Of a dry run: what this side holds, to compare with the peer's.
    dry_run: Option<Frontier>,
    remembered: Remembered<'a>,
}

/// What the session was last told of bytes on lanes.
struct Carried {
    bytes: u64,
    told: Instant,
}

/// Where the crank's outputs go.
struct Outlets {
    messages: Outgoing,
    keeper: mpsc::Sender<keeper::Job>,
    server: mpsc::UnboundedSender<server::Job>,
    carriers: Carriers,
}

/// What was heard on the control stream; none at its end.
type Heard = Result<Option<Bytes>, TransportError>;
type DoneChannel = (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>);

impl Crank<'_> {
    async fn run(
        mut self,
        store: &Arc<Store>,
        keeper: Keeper,
        (done_in, mut done): DoneChannel,
    ) -> (Result<(), ReplicateError>, Tally, (keeper::Kept, server::Served, Shares), Findings) {
        let Some((control_out, mut control_in)) = self.connection.take_control() else {
            let taken = ReplicateError::Peer("the control stream is taken".into());
            let shares = self.loads.overall(self.connection);
            return (Err(taken), self.tally, (Default::default(), Default::default(), shares), Findings::default());
        };
        let (keeper_in, keeper_jobs) = mpsc::channel(RUNS_QUEUED);
        let keeper = worker::run(self.failures.clone().told(done_in.clone(), keeper.run(keeper_jobs)));
        let (spans_in, spans) = mpsc::channel(SPANS_QUEUED);
        let (messages, outgoing, waiting) = outgoing::queue();
        let (server_in, server_jobs) = mpsc::unbounded_channel();
        let observer = self.observer.clone();
        let server = Server {
            store: store.clone(),
            done: done_in.clone(),
            spans: spans_in,
            failures: self.failures.clone(),
            on_sent: Box::new(move |chunks, bytes| observer.progress(Progress::Sent { chunks, bytes })),
            waiting,
            limits: self.options.limits.clone(),
            meter: self.loads.meter(),
        };
        let server = worker::run(self.failures.clone().told(done_in, server.run(server_jobs)));
        // In a set, so that it ends with this session even if the peer does not read: it holds the connection.
        let mut sender = JoinSet::new();
        sender.spawn(outgoing.say_all(control_out, self.options.network.changes().ok()));
        let mut asking = JoinSet::new();
        asking.spawn(silence::ask(self.connection.clone()));
        let carriers = Carriers::new(Setup {
            connection: self.connection.clone(),
            side: self.side,
            count: self.options.lanes,
            pace_in: Pace::new(&self.options.limits, |limits| &limits.receive, self.loads.meter()),
            pace_out: Pace::new(&self.options.limits, |limits| &limits.send, self.loads.meter()),
            spans,
            keeper: keeper_in.clone(),
            meter: self.loads.meter(),
        });
        let mut outlets = Outlets { messages, keeper: keeper_in, server: server_in, carriers };
        let turned = self.turn(store, &mut control_in, &mut done, &mut outlets).await;
        let Outlets { messages, keeper: keeper_in, server: server_in, carriers } = outlets;
        drop((messages, server_in, keeper_in));
        // A peer that does not read does not hear the last word either.
        let said = tokio::time::timeout(GOODBYE, sender.join_next()).await;
        self.goodbye(&mut control_in, &turned).await;
        drop((said, sender, asking, carriers));
        let mut kept = keeper.await.unwrap_or_default();
        let served = server.await.unwrap_or_default();
        self.certificates.finish().await;
        let shares = self.loads.overall(self.connection);
        let findings = self.remembered.conclude(&self.tally, (std::mem::take(&mut kept.forks), std::mem::take(&mut kept.holes)));
        (turned, self.tally, (kept, served, shares), findings)
    }

    async fn turn(
        &mut self,
        store: &Store,
        control: &mut ControlReceiver,
        done: &mut mpsc::UnboundedReceiver<Done>,
        outlets: &mut Outlets,
    ) -> Result<(), ReplicateError> {
        let mut rounds = Rounds::new(self.observer.stopping());
        let mut stopping = false;
        let mut carried = Carried { bytes: 0, told: self.began };
        loop {
            self.drain(outlets).await?;
            if self.session.is_finished() {
                return Ok(());
            }
            let timeout = self.session.poll_timeout();
            let due = rounds.due;
            select! {
                message = control.recv() => if let Some(end) = self.hear(message, control).await {
                    self.drain(outlets).await?;
                    return self.end(end);
                },
                (frontier, root) = self.growth.next() => self.session.handle_local(clock::now(), frontier, root),
                Some(first) = done.recv() => self.finish(first, done),
                Some(lane) = outlets.carriers.ended() => lane?,
                () = sleep_until(timeout) => self.session.handle_timeout(clock::now()),
                () = rounds.asked_to_stop() => {}
                () = sleep_until(Some(due)) => {
                    self.stay_with_member(store)?;
                    self.tell_liveliness(&mut carried, self.loads.carried(Flow::In));
                    self.tell_load();
                    self.certificates.write_if_due();
                    rounds.done(self.session.phase(), self.loads.carried(Flow::In) + self.loads.carried(Flow::Out));
                }
            }
            rounds.stir(due);
            if !stopping && self.observer.cancelled() {
                stopping = true;
                self.session.handle_stop(clock::now());
            }
        }
    }

    /// A device that is removed while it is connected is cut off.
    fn stay_with_member(&self, store: &Store) -> Result<(), ReplicateError> {
        let removed = store.roster().is_some_and(|roster| roster.admittance(&self.connection.peer()) == Admittance::Removed);
        if removed { Err(ReplicateError::NotAllowed("the peer was removed from the vault".into())) } else { Ok(()) }
    }

    /// A message, and those that have come behind it: what they ask for is handed on together. Returns how the control stream ended, if
    /// it did. Waits for nothing.
    async fn hear(&mut self, first: Heard, control: &mut ControlReceiver) -> Option<Result<(), TransportError>> {
        let (mut bytes, mut heard) = (0, first);
        loop {
            match heard {
                Ok(Some(message)) => {
                    bytes += message.len();
                    self.session.handle_message(clock::now(), message);
                }
                Ok(None) => return Some(Ok(())),
                Err(error) => return Some(Err(error)),
            }
            if bytes >= HEARD_BYTES_MAX {
                return None;
            }
            heard = tokio::select! {
                biased;
                next = control.recv() => next,
                () = std::future::ready(()) => return None,
            };
        }
    }

    /// What is done, `first` and what has been done since: together, so that one commit takes all that became ready.
    fn finish(&mut self, first: Done, more: &mut mpsc::UnboundedReceiver<Done>) {
        let mut done = vec![first];
        while done.len() < DONE_MAX
            && let Ok(next) = more.try_recv()
        {
            done.push(next);
        }
        // What may end the session for the peer comes after the last that we have to say of our stages.
        if done.iter().any(|done| matches!(done, Done::Committed { .. } | Done::Served { .. }))
            && let Some(load) = self.loads.news(self.connection)
        {
            self.session.handle_load(load);
        }
        self.session.handle_all_done(clock::now(), done);
    }

    fn tell_load(&mut self) {
        if let Some(load) = self.loads.due(self.connection) {
            self.session.handle_load(load);
            self.observer.progress(Progress::Stages(self.loads.recent()));
        }
    }

    /// A large chunk takes long on a slow link: the session must not take that for silence.
    fn tell_liveliness(&mut self, carried: &mut Carried, bytes: u64) {
        let now = clock::now();
        if bytes != carried.bytes && now.duration_since(carried.told) >= LIVELINESS {
            *carried = Carried { bytes, told: now };
            self.session.handle_done(now, Done::Progress { list: ListId::from_bytes([0; 32]), chunks: 0, bytes: 0 });
        }
    }

    fn end(&self, end: Result<(), TransportError>) -> Result<(), ReplicateError> {
        match end {
            Ok(()) => self.closed(),
            Err(error) => self.broken(error),
        }
    }

    /// The connection was closed cleanly: fine if the session had nothing left to do.
    fn closed(&self) -> Result<(), ReplicateError> {
        if self.tally.outcome.is_some() || (self.tally.peer_root == Some(self.tally.root) && !self.tally.healing) {
            return Ok(());
        }
        Err(TransportError::Closed(CloseReason::Done).into())
    }

    /// The connection broke. Where both hold the same only the goodbye is lost, and who said it last need not have waited until it was
    /// heard. A session that stays has more to come, so there it matters.
    fn broken(&self, error: TransportError) -> Result<(), ReplicateError> {
        let cut = matches!(error, TransportError::Io { .. } | TransportError::Timeout);
        let equal = self.tally.peer_root == Some(self.tally.root);
        if self.session.is_finished() || (cut && equal && !self.tally.live) { Ok(()) } else { Err(error.into()) }
    }

    async fn drain(&mut self, outlets: &mut Outlets) -> Result<(), ReplicateError> {
        loop {
            let mut idle = true;
            while let Some(event) = self.session.poll_event() {
                self.note(event);
                idle = false;
            }
            // Before the messages: what a Want asks for may come at once, and the keeper drops what it does not expect yet.
            let mut intake = Intake::default();
            while let Some(action) = self.session.poll_action() {
                self.start(action, &mut intake, outlets).await;
                idle = false;
            }
            take(&mut intake, outlets).await;
            while let Some(message) = self.session.poll_message() {
                outlets.messages.say(message);
                idle = false;
            }
            if idle {
                return Ok(());
            }
        }
    }

    /// Hands an action to who does it; what there is to be taken in is gathered until something else is to be done. A thread that is
    /// gone has reported its failure already.
    async fn start(&mut self, action: Action, intake: &mut Intake, outlets: &mut Outlets) {
        if !matches!(action, Action::Expect { .. } | Action::StoreInline { .. }) {
            take(intake, outlets).await;
        }
        match action {
            Action::LoadEvents { beyond, after, bytes_max, events_max } => {
                let _ = outlets.server.send(server::Job::Load { beyond, after, bytes_max, events_max });
            }
            Action::Serve { list, want, via } => {
                let _ = outlets.server.send(server::Job::Serve { request: Request { list, want }, via });
            }
            Action::Admit { frames } => keep(outlets, keeper::Job::Admit(frames)).await,
            Action::Forget { list } => keep(outlets, keeper::Job::Forget(list)).await,
            Action::FindLost { within, after } => keep(outlets, keeper::Job::FindLost { within, after }).await,
            Action::Expect { list, want } => intake.expect.push((list, want)),
            Action::StoreInline { list, frames } => intake.inline.push((list, frames)),
            Action::Commit { events } => keep(outlets, keeper::Job::Commit(events)).await,
            Action::TakeProof { frames } => keep(outlets, keeper::Job::TakeProof(frames)).await,
            Action::OpenLanes => outlets.carriers.open(),
            Action::AcceptLanes => outlets.carriers.accept(),
        }
    }

    fn note(&mut self, event: SessionEvent) {
        let tally = &mut self.tally;
        match event {
            SessionEvent::PeerKnown { replica, frontier, root } => {
                tally.peer_root = Some(root);
                if let Err(error) = self.remembered.heard(replica, &frontier) {
                    self.failures.note(error);
                    self.session.handle_stop(clock::now());
                }
                if let Some(ours) = &self.dry_run {
                    tally.events_sent = ours.events_beyond(&frontier);
                    tally.events_received = frontier.events_beyond(ours);
                    self.session.handle_stop(clock::now());
                }
                self.observer.progress(Progress::PeerHolds { frontier: frontier.clone(), root });
                tally.peer_frontier = Some(frontier);
            }
            SessionEvent::PeerClock { wall_ms } => {
                if let Some(difference) = clock_difference(clock::wall_ms(), wall_ms) {
                    tracing::warn!("{difference}; nothing is ordered by clocks, but times are shown and tickets expire by them");
                }
            }
            SessionEvent::Live => {
                tally.live = true;
                self.observer.progress(Progress::Live);
            }
            SessionEvent::PeerApplied { frontier, root } => {
                tally.peer_root = Some(root);
                self.observer.progress(Progress::PeerApplied { frontier: frontier.clone(), root });
                tally.peer_frontier = Some(frontier);
            }
            SessionEvent::Applied { root, .. } => {
                tally.root = root;
                self.remembered.note_seen();
            }
            SessionEvent::PeerLoad(load) => self.loads.heard(load),
            SessionEvent::Identical { root } => {
                tally.root = root;
                tally.peer_root = Some(root);
                self.observer.progress(Progress::Identical { root });
            }
            SessionEvent::Certified(certificate) => self.certificates.note(certificate),
            SessionEvent::Misattested => tracing::warn!("the peer's word that both are the same is not signed by it; ignored"),
            SessionEvent::Missing { chunks, bytes } => {
                tally.chunks_total += chunks;
                tally.bytes_total += bytes;
                self.observer.progress(Progress::Total { chunks: tally.chunks_total, bytes: tally.bytes_total });
            }
            SessionEvent::ToSend { chunks, bytes } => {
                tally.chunks_to_send = tally.chunks_to_send.saturating_add(chunks);
                tally.bytes_to_send = tally.bytes_to_send.saturating_add(bytes);
                self.observer.progress(Progress::ToSend { chunks: tally.chunks_to_send, bytes: tally.bytes_to_send });
            }
            SessionEvent::Received { chunks, bytes } => {
                tally.first_chunk.get_or_insert(clock::since(self.began));
                tally.chunks_received += chunks;
                tally.bytes_received += bytes;
                self.observer.progress(Progress::Received { chunks, bytes });
            }
            SessionEvent::Served { .. } => {
                tally.first_chunk.get_or_insert(clock::since(self.began));
            }
            SessionEvent::Healing => tally.healing = true,
            SessionEvent::Healed { chunks, .. } => {
                tally.healing = false;
                tally.chunks_healed += chunks;
            }
            SessionEvent::EventsSent { events } => tally.events_sent += events,
            SessionEvent::EventsReceived { events } => tally.events_received += events,
            SessionEvent::DamagedHere { chunks } => {
                tracing::warn!(chunks = chunks.len(), "the peer found chunks of ours damaged; run `mirror scrub`");
            }
            SessionEvent::DamagedThere { chunks } => tracing::warn!(chunks = chunks.len(), "chunks of the peer are damaged"),
            SessionEvent::Ended(outcome) => tally.outcome = Some(outcome),
        }
    }

    /// Closing loses what is still under way, so whoever has said the last word waits until the peer has heard it: it answers with
    /// a goodbye of its own, or closes. A dialer that knows that both are identical has been told so, and waits only until its word has left.
    async fn goodbye(&self, control: &mut ControlReceiver, turned: &Result<(), ReplicateError>) {
        if turned.is_ok() && self.lingers() {
            let heard = async { while control.recv().await.is_ok_and(|message| message.is_some_and(|message| !is_bye(message))) {} };
            let _ = tokio::time::timeout(GOODBYE, heard).await;
        } else if turned.is_ok() {
            self.connection.said().await;
        }
        let gone = matches!(turned, Err(ReplicateError::Transport(TransportError::Closed(_) | TransportError::Timeout)));
        self.connection.close(match turned {
            Ok(()) => self.close_reason(),
            Err(ReplicateError::Peer(_)) => CloseReason::ProtocolError,
            Err(ReplicateError::NotAllowed(_)) => CloseReason::Refused,
            Err(ReplicateError::Transport(TransportError::LaneReset | TransportError::Io { .. })) => CloseReason::Broken,
            Err(_) => CloseReason::Shutdown,
        });
        // Of a connection that has ended already nobody hears anything: over TCP the wait for that would be a second.
        if !gone {
            self.connection.flushed().await;
        }
    }

    fn lingers(&self) -> bool {
        match &self.tally.outcome {
            Some(Outcome::PeerEnded { .. } | Outcome::Failed(SessionError::NotAMember(_))) | None => false,
            Some(Outcome::Complete) => self.side == Side::Listener || self.tally.peer_root != Some(self.tally.root),
            Some(_) => true,
        }
    }

    /// What a session that ran to its end tells by closing: to who is no member, what a device that is not known hears.
    fn close_reason(&self) -> CloseReason {
        match &self.tally.outcome {
            Some(Outcome::Failed(SessionError::NotAMember(_) | SessionError::Refused { .. } | SessionError::NotAllowed { .. })) => {
                CloseReason::Refused
            }
            Some(Outcome::Failed(SessionError::Protocol { .. })) => CloseReason::ProtocolError,
            Some(Outcome::Failed(SessionError::TimedOut { .. } | SessionError::Here { .. })) => CloseReason::Shutdown,
            Some(_) | None => CloseReason::Done,
        }
    }
}

/// How far the peer's clock is off, if that is more than a handshake takes.
fn clock_difference(ours_ms: u64, theirs_ms: u64) -> Option<String> {
    let minutes = ours_ms.abs_diff(theirs_ms) / 60_000;
    let direction = if theirs_ms > ours_ms { "ahead of" } else { "behind" };
    (minutes >= CLOCKS_DIFFER_MIN).then(|| format!("the peer's clock is {minutes} min {direction} this device's"))
}

fn is_bye(message: Bytes) -> bool {
    matches!(Message::decode(message), Ok(Message::Bye { .. }))
}

async fn take(intake: &mut Intake, outlets: &Outlets) {
    if !intake.is_empty() {
        keep(outlets, keeper::Job::Take(std::mem::take(intake))).await;
    }
}

async fn keep(outlets: &Outlets, job: keeper::Job) {
    // A keeper that is gone has reported its failure already.
    let _ = outlets.keeper.send(job).await;
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_a_day_are_worth_a_word_and_by_a_minute_not() {
        let day = 24 * 60 * 60_000;
        assert_eq!(clock_difference(day, day + 60_000), None);
        assert_eq!(clock_difference(day, 0).unwrap(), "the peer's clock is 1440 min behind this device's");
        assert_eq!(clock_difference(0, day).unwrap(), "the peer's clock is 1440 min ahead of this device's");
        assert!(clock_difference(0, u64::MAX).is_some());
    }
}
