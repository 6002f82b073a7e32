//! One conversation of two replicas, as a pure state machine: no sockets, files, clocks or threads.
//!
//! ```text
//!            messages                 ┌───────────┐  Action: load, admit, serve, store, commit
//! peer ◄────────────────────────────► │  Session  │ ────────────────────────────────────────► driver ──► store, lanes
//!            (control stream)         └───────────┘ ◄──────────────────────────────────────── Done
//!                                          │ SessionEvent: progress, identical, ended
//!                                          ▼
//! ```
//! Inputs are `handle_*`, outputs are `poll_*`; the driver drains all of them after every input. Draining late may be slow, never
//! wrong. `now` is an argument. Chunks on lanes never come through here: the driver checks them against its [`Wants`] and reports counts.
//!
//! # Why this way
//! - **Difference by frontier**: a log has no holes, so two frontiers say exactly which events are missing, in one round trip.
//! - **Resume is a want**: a session keeps nothing. What was under way lies in the journal and is asked for again, from any peer.
//! - **Nothing is acknowledged before it is durable**: `Applied` follows a commit, and only that frees the sender's window.
//!
//! # Parts
//! [`phase`] says what may be said when; `sending` and `receiving` are the two halves, which know nothing of each other; `asking` picks
//! what to want, `healing` what to want of what was lost; `certifying` when to sign that both are the same; [`message`] and [`hello`] are
//! the bytes. The layouts and the table are in `docs/specs/mirror-protocol.md`.

pub mod hello;
pub mod message;
pub mod phase;

mod action;
mod asking;
mod certifying;
mod config;
mod extensions;
mod forks;
mod healing;
mod outbox;
mod receiving;
mod report;
mod sending;
mod wants;

#[cfg(test)]
mod tests;

pub use action::{Action, Admitted, Cursor, Done, LoadedEvent, Via};
pub use config::{Config, Direction, Local, Side, Stay, Windows};
pub use forks::ForkKnowledge;
pub use healing::Holding;
pub use hello::{Hello, HelloKeys, NotAMember};
pub use message::{ByeCode, Message};
pub use report::{Outcome, SessionError, SessionEvent, Waiting};
pub use wants::{Arrival, Landed, Wants};

use crate::{
    event::Frontier,
    id::Root,
    limits::{HANDSHAKE_MS, IDLE_MS, MESSAGE_BYTES_MAX, PROOFS_MAX},
    meter::Load,
};
use bytes::Bytes;
use certifying::Certifying;
use extensions::Extensions;
use outbox::Outbox;
use phase::{Input, Phase, Step};
use receiving::Receiving;
use sending::{Flow, Sending};
use std::time::{Duration, Instant};

const HANDSHAKE: Duration = Duration::from_millis(HANDSHAKE_MS);
const HEARTBEAT: Duration = Duration::from_millis(IDLE_MS);
const PATIENCE: Duration = Duration::from_millis(2 * IDLE_MS);

/// One conversation with one peer. See the [module](self).
#[derive(Debug)]
pub struct Session {
    config: Config,
    phase: Phase,
    out: Outbox,
    sending: Sending,
    receiving: Receiving,
    certifying: Certifying,
    peer_root: Option<Root>,
    /// What became durable here before the peer's Hello came.
    news: Option<(Frontier, Root)>,
    /// The digest at which both were last found equal.
    equal_at: Option<Root>,
    ending: Option<Ending>,
    clocks: Clocks,
    forks: ForkKnowledge,
    /// Proofs of forks that the peer has sent.
    proofs_heard: usize,
}

/// How the session will end once no commit runs.
#[derive(Debug)]
struct Ending {
    outcome: Outcome,
    bye: Option<Message>,
}

/// When things last happened.
#[derive(Debug)]
struct Clocks {
    /// The session began.
    began: Instant,
    /// The peer said something, or the driver finished something.
    stirred: Instant,
    /// Chunks came nearer, or none were awaited.
    fed: Instant,
    /// We said something, or had no reason to.
    spoke: Instant,
    /// Messages said by then.
    said: u64,
    /// The last time that the session was told.
    now: Instant,
}

impl Session {
    /// A session that begins now. A dialer's Hello is ready to be sent.
    pub fn new(config: Config, local: Local, now: Instant) -> Self {
        let windows = config.windows.bounded();
        let forks = local.forks.clone();
        let mut session = Self {
            phase: Phase::Greeting,
            out: Outbox::new(),
            sending: Sending::new(local.frontier.clone(), windows),
            receiving: Receiving::new(local, windows),
            certifying: Certifying::new(config.witness.clone(), config.wall_ms, now),
            peer_root: None,
            news: None,
            equal_at: None,
            ending: None,
            clocks: Clocks { began: now, stirred: now, fed: now, spoke: now, said: 0, now },
            config: Config { windows, ..config },
            forks,
            proofs_heard: 0,
        };
        if session.config.side == Side::Dialer {
            session.greet();
        }
        session
    }

    /// A message of the control stream came, whole. One that breaks the protocol ends the session.
    pub fn handle_message(&mut self, now: Instant, message: Bytes) {
        if matches!(self.phase, Phase::Closing | Phase::Ended) {
            return;
        }
        self.stir(now);
        let read = Message::decode(message).map_err(|error| SessionError::protocol(error.to_string()));
        if let Err(error) = read.and_then(|message| self.hear(now, message)) {
            self.fail(error);
        }
        self.go_on(now);
    }

    /// An action is done, or chunks came on the lanes.
    pub fn handle_done(&mut self, now: Instant, done: Done) {
        self.handle_all_done(now, [done]);
    }

    /// As [`Session::handle_done`] of each, in their order, but looked at once what follows from them: of many short lists that are
    /// complete, one commit then takes all.
    pub fn handle_all_done(&mut self, now: Instant, all: impl IntoIterator<Item = Done>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.stir(now);
        for done in all {
            if let Err(error) = self.take(now, done) {
                self.fail(error);
            }
        }
        self.go_on(now);
    }

    /// This replica holds more than before, whoever wrote it: this user, or a peer in another session. Tells the peer, which may have
    /// sent the same, and in a session that stays sends what is new. The state as it is now; what this session committed may be in it.
    pub fn handle_local(&mut self, now: Instant, frontier: Frontier, root: Root) {
        match self.phase {
            Phase::Greeting => self.news = Some((frontier, root)),
            Phase::Exchanging | Phase::Live | Phase::SentAll | Phase::HeardAll => {
                self.clocks.now = now;
                self.rest(now);
                self.grow(frontier, root);
                self.go_on(now);
            }
            Phase::Closing | Phase::Ended => {}
        }
    }

    /// The time of [`Session::poll_timeout`] has come. Earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|(at, _)| now >= at) {
            let what = self.deadline().map_or("answer", |(_, what)| what);
            self.fail(SessionError::TimedOut { what });
        } else if self.heartbeat().is_some_and(|at| now >= at) {
            self.receiving.say_applied(&mut self.out);
        }
        self.go_on(now);
    }

    /// The user stops: a commit that runs is finished and acknowledged, then the session says goodbye.
    pub fn handle_stop(&mut self, now: Instant) {
        if let Step::To(next) = self.phase.step(Input::Stop) {
            self.end(next, Outcome::Stopped, Some((ByeCode::Stopped, String::new())));
        }
        self.go_on(now);
    }

    /// Tells the peer what our stages have cost so far, if there is a peer to tell.
    pub fn handle_load(&mut self, load: Load) {
        if !matches!(self.phase, Phase::Greeting | Phase::Closing | Phase::Ended) {
            self.out.mention(&Message::Load(load));
        }
    }

    /// The next message to send, in order.
    pub fn poll_message(&mut self) -> Option<Bytes> {
        self.out.next_message()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.next_action()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.out.next_event()
    }

    /// When [`Session::handle_timeout`] is to be called, unless something else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadline().map(|(at, _)| at);
        deadline.into_iter().chain(self.heartbeat()).min()
    }

    /// Nothing follows but what can be polled now. Answers to actions that still run are not needed; the actions should finish.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Where the session stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    fn stir(&mut self, now: Instant) {
        self.clocks.now = now;
        self.clocks.stirred = now;
        self.rest(now);
    }

    /// No time passes for who has nothing to wait for: a session that stays may be quiet for days.
    fn rest(&mut self, now: Instant) {
        if !self.sending.awaits_answer() {
            self.clocks.stirred = now;
        }
        if !self.receiving.awaits_chunks() {
            self.clocks.fed = now;
        }
        if !self.is_busy() {
            self.clocks.spoke = now;
        }
    }

    /// The peer may have to wait for us.
    fn is_busy(&self) -> bool {
        self.receiving.is_working() || self.receiving.awaits_chunks()
    }

    /// Takes over what is held here now.
    fn grow(&mut self, frontier: Frontier, root: Root) {
        self.foresee(&frontier, root);
        if !self.receiving.grow(&frontier, root, &mut self.out) {
            return;
        }
        if self.phase == Phase::Live {
            self.sending.grow(frontier);
            self.compare();
        }
    }

    /// This replica is about to say that it holds `frontier`. The word that goes with it goes ahead: the peer may have nothing more to wait
    /// for after that.
    fn foresee(&mut self, frontier: &Frontier, root: Root) {
        if frontier.covers(self.receiving.frontier()) {
            self.certify(root);
        }
    }

    /// Signs `root`, which this replica holds whole, if the peer does, too.
    fn certify(&mut self, root: Root) {
        if !self.is_whole() {
            return;
        }
        self.certifying.compare(root, self.peer_root, self.clocks.now, &mut self.out);
    }

    /// Whether both have become equal: in any session to sign it, in one that stays to tell.
    fn compare(&mut self) {
        let root = self.receiving.root();
        self.certify(root);
        if self.phase == Phase::Live && self.peer_root == Some(root) && self.equal_at != Some(root) && self.is_whole() {
            self.equal_at = Some(root);
            self.out.tell(SessionEvent::Identical { root });
        }
    }

    /// Neither side is known to lack chunks of what it has applied.
    fn is_whole(&self) -> bool {
        self.receiving.has_healed() && self.receiving.lost() == 0 && self.sending.peer_lost() == Some(0)
    }

    fn features(&self) -> u64 {
        let stays = match self.config.stay {
            Stay::Live => hello::LIVE,
            Stay::UntilEqual => 0,
        };
        let lost = match self.receiving.holding() {
            Holding::Whole => 0,
            Holding::Gaps => hello::LOST,
        };
        hello::HEALS | stays | lost
    }

    fn greet(&mut self) {
        let cached = self.config.cached_peer_frontier.take().filter(|_| self.config.side == Side::Dialer && self.config.direction.sends());
        let early = cached.and_then(|cached| self.sending.begin_early(cached, &mut self.out));
        let hello = Hello {
            version: hello::VERSION,
            features: self.features(),
            vault: self.config.vault,
            replica: self.config.replica,
            direction: self.config.direction,
            frontier: self.receiving.frontier().clone(),
            pending: self.receiving.pending_frontier(),
            root: self.receiving.root(),
            inline_bytes_max: self.config.windows.inline_bytes_max,
            early,
            extensions: Extensions { attestation: self.certifying.introduce(self.receiving.root()), forks: Some(self.forks.to_hello()) }
                .encode(),
        };
        let seal = |keys: &HelloKeys| hello::seal(keys, self.config.side, &hello).into();
        let newest = seal(&self.config.hello_keys);
        let first = self.config.hello_keys.first().filter(|_| self.config.side == Side::Dialer);
        self.out.say(&match first {
            Some(first) => Message::HelloOfEpoch { newest, first: seal(&first) },
            None => Message::Hello(newest),
        });
    }

    fn hear(&mut self, now: Instant, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Hello(sealed) => self.hear_hello(&[&sealed]),
            Message::HelloOfEpoch { newest, first } => self.hear_hello(&[&newest, &first]),
            Message::Events { timing, promise, frames } => {
                self.accept(Input::Offer)?;
                self.receiving.events(timing, promise, frames, &mut self.out)
            }
            Message::Chunks { cause, list, frames } => {
                self.accept(Input::Offer)?;
                self.clocks.fed = now;
                self.receiving.chunks(cause, list, frames, &mut self.out)
            }
            Message::Served { list, unavailable } => {
                self.accept(Input::Offer)?;
                self.clocks.fed = now;
                self.receiving.peer_served(&list, &unavailable)
            }
            Message::Want { list, want } => {
                self.accept(Input::Want)?;
                self.sending.wanted(list, want, &mut self.out)
            }
            Message::Applied { frontier, root, parked } => {
                self.accept(Input::Report)?;
                self.hear_applied(frontier, root, parked)
            }
            Message::Damaged(chunks) => {
                self.accept(Input::Report)?;
                self.out.tell(SessionEvent::DamagedHere { chunks });
                Ok(())
            }
            Message::Healed { lost } => {
                self.accept(Input::Report)?;
                self.sending.peer_healed(lost)?;
                self.compare();
                Ok(())
            }
            Message::Finished => self.hear_finished(),
            Message::Bye { code, reason } => {
                if let Step::To(next) = self.phase.step(Input::PeerBye) {
                    self.end(next, Outcome::PeerEnded { code, reason }, None);
                    self.out.mute();
                }
                Ok(())
            }
            Message::Load(load) if self.phase != Phase::Greeting => {
                self.out.tell(SessionEvent::PeerLoad(load));
                Ok(())
            }
            Message::Attested(theirs) if self.phase != Phase::Greeting => {
                self.certifying.heard(theirs);
                self.certify(self.receiving.root());
                Ok(())
            }
            Message::Fork(frames) if self.phase != Phase::Greeting => {
                self.proofs_heard += 1;
                if self.proofs_heard > PROOFS_MAX {
                    return Err(SessionError::protocol("more forks are proved than there may be"));
                }
                self.out.ask(Action::TakeProof { frames });
                Ok(())
            }
            Message::Load(_) | Message::Attested(_) | Message::Fork(_) | Message::Extension(_) => Ok(()),
        }
    }

    /// Whether `input` may come now; for inputs that leave the phase as it is.
    fn accept(&mut self, input: Input) -> Result<(), SessionError> {
        match self.phase.step(input) {
            Step::Stay | Step::Ignore => Ok(()),
            Step::To(next) => {
                self.phase = next;
                Ok(())
            }
            Step::Refuse(what) => Err(SessionError::protocol(what)),
        }
    }

    fn hear_hello(&mut self, sealed: &[&[u8]]) -> Result<(), SessionError> {
        if self.phase != Phase::Greeting {
            return self.accept(Input::HelloDiffers);
        }
        let (mut hello, keys) = hello::open_any(&self.config.hello_keys, self.config.side.other(), sealed.iter().copied())?;
        self.config.hello_keys = keys;
        if self.config.side == Side::Listener {
            self.greet();
        }
        self.peer_root = Some(hello.root);
        self.check_hello(&hello)?;
        let said = Extensions::decode(&hello.extensions);
        self.certifying.introduced(said.attestation);
        let forks = forks::heard(&hello, said.forks);
        let (replica, frontier, root) = (hello.replica, hello.frontier.clone(), hello.root);
        self.out.tell(SessionEvent::PeerKnown { replica, frontier, root });
        let live = self.config.stay == Stay::Live && hello.features & hello::LIVE != 0;
        let (ours, theirs) = (self.config.direction, hello.direction);
        let (comes, goes) = (ours.receives() && theirs.sends(), ours.sends() && theirs.receives());
        let heals = (comes && self.receiving.heals_from(&hello)) || (goes && sending::heals(&hello));
        if let Some(said) = &forks {
            self.out.tell(SessionEvent::PeerClock { wall_ms: said.wall_ms });
        }
        let proofs_differ = forks.as_ref().is_some_and(|forks| self.forks.differs(forks));
        if hello.root == self.receiving.root() && !live && !heals && !proofs_differ {
            if let Step::To(next) = self.phase.step(Input::HelloIdentical) {
                self.out.tell(SessionEvent::Identical { root });
                self.certify(root);
                self.end(next, Outcome::Complete, None);
            }
            return Ok(());
        }
        self.accept(if live { Input::HelloLive } else { Input::HelloDiffers })?;
        if live {
            self.out.tell(SessionEvent::Live);
        }
        let flow = |open| if open { Flow::Open } else { Flow::Shut };
        let inline = self.config.windows.inline_bytes_max.min(hello.inline_bytes_max);
        if let Some(forks) = forks {
            self.forks.lacking(&forks).for_each(|proof| self.out.say(&Message::Fork(proof)));
            let agreed = self.forks.agreed(&hello, &forks);
            self.sending.send_again(forks::again(&hello, &agreed));
            hello.frontier = agreed;
        }
        self.sending.begin(&hello, inline, flow(goes));
        self.receiving.begin(&hello, inline, flow(comes), &mut self.out);
        self.compare();
        if let Some((frontier, root)) = self.news.take() {
            self.grow(frontier, root);
        }
        Ok(())
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), SessionError> {
        if hello.version < hello::VERSION {
            return Err(SessionError::Refused { what: "it speaks a version that is too old" });
        }
        if hello.vault != self.config.vault {
            return Err(SessionError::protocol("the Hello names another vault"));
        }
        if hello.replica == self.config.replica {
            return Err(SessionError::Refused { what: "it is this very replica" });
        }
        if hello.early.is_some() && self.config.side == Side::Dialer {
            return Err(SessionError::protocol("a listener announced early events"));
        }
        Ok(())
    }

    fn hear_applied(&mut self, frontier: Frontier, root: Root, parked: Frontier) -> Result<(), SessionError> {
        let news = frontier != *self.sending.peer_applied();
        self.sending.applied(frontier.clone(), parked)?;
        self.peer_root = Some(root);
        if self.phase == Phase::Live {
            self.receiving.peer_holds(&frontier);
        }
        if news {
            self.out.tell(SessionEvent::PeerApplied { frontier, root });
        }
        self.compare();
        Ok(())
    }

    fn hear_finished(&mut self) -> Result<(), SessionError> {
        match self.phase.step(Input::PeerFinished) {
            Step::Refuse(what) => return Err(SessionError::protocol(what)),
            Step::Stay | Step::Ignore | Step::To(_) if !self.receiving.is_settled() => {
                return Err(SessionError::protocol("Finished came before its events were acknowledged"));
            }
            Step::To(Phase::Closing) => self.complete(),
            Step::To(next) => self.phase = next,
            Step::Stay | Step::Ignore => {}
        }
        Ok(())
    }

    fn take(&mut self, now: Instant, done: Done) -> Result<(), SessionError> {
        match done {
            Done::Events { events, next } => self.sending.events_loaded(events, next, &mut self.out),
            Done::Served { list, unavailable, bytes } => self.sending.served(list, unavailable, bytes, &mut self.out),
            Done::Inline { list, frames, unavailable } => return self.sending.inlined(list, frames, unavailable, &mut self.out),
            Done::UnknownList { list } => return self.sending.unknown_list(&list),
            Done::Admitted { events } => self.receiving.admitted(events, &mut self.out),
            Done::Refused { reason } => return Err(SessionError::Protocol { what: reason }),
            Done::NotAllowed { reason } => {
                self.receiving.give_up();
                return Err(SessionError::NotAllowed { what: reason });
            }
            Done::Lost { lists, next } => return self.receiving.lost_found(lists, next, &mut self.out),
            Done::Committed { frontier, root } => {
                self.foresee(&frontier, root);
                self.receiving.committed(&frontier, root, &mut self.out);
                self.compare();
            }
            Done::Stored { list } => {
                self.clocks.fed = now;
                self.receiving.stored(&list);
            }
            Done::Progress { list, chunks, bytes } => {
                self.clocks.fed = now;
                self.receiving.progress(&list, chunks, bytes, &mut self.out);
            }
            Done::ListComplete { list } => {
                self.clocks.fed = now;
                self.receiving.list_complete(&list);
            }
            Done::Damaged { list, chunks } => self.receiving.damaged(&list, chunks, &mut self.out),
            Done::ForkFound { proof } => {
                if !proof.is_empty() && proof.len() < MESSAGE_BYTES_MAX {
                    self.out.say(&Message::Fork(proof));
                }
            }
            Done::KeptAside { event } => self.receiving.kept_aside(event),
            Done::Failed { reason } => {
                self.receiving.give_up();
                return Err(SessionError::Here { reason });
            }
        }
        Ok(())
    }

    /// After every input: as far as the windows allow, and to the end if it has come.
    fn go_on(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Exchanging | Phase::Live | Phase::SentAll | Phase::HeardAll) {
            if self.phase == Phase::Live {
                self.sending.look_again();
            }
            let healed = self.receiving.has_healed();
            self.receiving.pump(&mut self.out);
            if self.receiving.has_healed() != healed {
                self.compare();
            }
            self.sending.pump(&mut self.out);
            if self.sending.is_done() {
                self.all_sent();
            }
        }
        if self.phase == Phase::Closing && !self.receiving.is_committing() {
            self.settle();
        }
        if self.out.said() != self.clocks.said {
            (self.clocks.said, self.clocks.spoke) = (self.out.said(), now);
        }
    }

    fn all_sent(&mut self) {
        if let Step::To(next) = self.phase.step(Input::AllSent) {
            self.out.say(&Message::Finished);
            match next {
                Phase::Closing => self.complete(),
                Phase::Greeting | Phase::Exchanging | Phase::Live | Phase::SentAll | Phase::HeardAll | Phase::Ended => self.phase = next,
            }
        }
    }

    /// Both have finished.
    fn complete(&mut self) {
        let (here, there) = (self.receiving.waiting(), self.sending.parked_events());
        let ours = self.receiving.root();
        let (lost_here, lost_there) = (self.receiving.lost(), self.sending.peer_lost().unwrap_or(0));
        let equal = self.peer_root == Some(ours);
        let identical = equal && self.is_whole();
        if identical {
            self.out.tell(SessionEvent::Identical { root: ours });
        }
        let outcome = if !here.is_empty() || [there, lost_here, lost_there] != [0; 3] {
            Outcome::Partial { here, there, lost_here, lost_there }
        } else if !equal && self.sending.peer_applied() == self.receiving.frontier() {
            Outcome::Diverged
        } else {
            Outcome::Complete
        };
        self.end(Phase::Closing, outcome, Some((ByeCode::Done, String::new())));
    }

    fn fail(&mut self, error: SessionError) {
        let Step::To(next) = self.phase.step(Input::Fault) else { return };
        // The peer is told its own faults. Our own troubles are for our own user: a reason may hold paths.
        let reason = match &error {
            SessionError::Here { .. } => String::new(),
            error => error.to_string(),
        };
        self.end(next, Outcome::Failed(error.clone()), Some((error.bye_code(), reason)));
    }

    fn end(&mut self, next: Phase, outcome: Outcome, bye: Option<(ByeCode, String)>) {
        // Whoever has not proved to be a member hears nothing, not even goodbye.
        let heard = self.phase != Phase::Greeting || self.peer_root.is_some();
        self.phase = next;
        let bye = bye.filter(|_| heard).map(|(code, reason)| Message::Bye { code, reason });
        self.ending = Some(Ending { outcome, bye });
    }

    fn settle(&mut self) {
        if let (Step::To(next), Some(Ending { outcome, bye })) = (self.phase.step(Input::Settled), self.ending.take()) {
            if let Some(bye) = bye {
                self.out.say(&bye);
            }
            self.out.tell(SessionEvent::Ended(outcome));
            self.phase = next;
        }
    }

    /// When the peer has kept us waiting too long, and for what.
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        match self.phase {
            Phase::Greeting => Some((self.clocks.began + HANDSHAKE, "say Hello")),
            Phase::Closing | Phase::Ended => None,
            Phase::Exchanging | Phase::Live | Phase::SentAll | Phase::HeardAll if self.receiving.awaits_chunks() => {
                Some((self.clocks.fed + PATIENCE, "send chunks"))
            }
            Phase::Live if !self.sending.awaits_answer() => None,
            Phase::Exchanging | Phase::Live | Phase::SentAll | Phase::HeardAll => {
                let working = self.receiving.is_working() || self.sending.is_working();
                (!working).then_some((self.clocks.stirred + PATIENCE, "answer"))
            }
        }
    }

    /// When to tell the peer that we are still at it, so that it waits for what it sent to be applied.
    fn heartbeat(&self) -> Option<Instant> {
        let active = matches!(self.phase, Phase::Exchanging | Phase::Live | Phase::SentAll | Phase::HeardAll);
        (active && self.is_busy()).then_some(self.clocks.spoke + HEARTBEAT)
    }
}
