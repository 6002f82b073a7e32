//! Two drivers, their sessions, and a link that delivers in any order that a real one could: the control stream in order, each lane
//! in order, nothing else. Which of all possible steps comes next is drawn from a seed.

use super::model::{Driver, Effects, VAULT, Vault, config};
use crate::{
    event::Frontier,
    id::Root,
    keys::{Certificate, Witness},
    limits::INLINE_BYTES_MAX,
    session::{Action, Direction, Done, Outcome, Session, SessionEvent, Side, Stay, Windows},
};
use bytes::Bytes;
use std::{collections::VecDeque, mem::discriminant, time::Instant};

/// SplitMix64 (Steele, Lea, Flood 2014): the whole schedule follows from its seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

const LANES: usize = 3;

/// One end of the link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) driver: Driver,
    pub(super) session: Session,
    /// Actions that the driver has not carried out.
    actions: VecDeque<Action>,
    /// On the way to this end.
    control: VecDeque<Bytes>,
    lanes: [VecDeque<Vec<u8>>; LANES],
    /// What was done without the session having heard of it yet.
    late: VecDeque<Done>,
    pub(super) heard: Vec<Bytes>,
    pub(super) events: Vec<SessionEvent>,
}

impl End {
    fn new(vault: Vault, peer: u8, side: Side, options: &Options, now: Instant) -> Self {
        let direction = if side == Side::Dialer { options.direction } else { Direction::Both };
        let mut config = config(&vault, side, direction, options.windows);
        config.cached_peer_frontier = options.cached.clone();
        config.stay = options.stay;
        config.witness = (options.signing[side as usize] == Signing::Known)
            .then(|| Witness::new(VAULT, &vault.device(), Vault::new(peer).device().id()));
        let session = Session::new(config, vault.local(), now);
        let (actions, control, lanes) = (VecDeque::new(), VecDeque::new(), Default::default());
        Self { driver: Driver::new(vault), session, actions, control, lanes, late: VecDeque::new(), heard: Vec::new(), events: Vec::new() }
    }

    /// What it has been told that both have signed, newest last.
    pub(super) fn certificates(&self) -> Vec<&Certificate> {
        self.events
            .iter()
            .filter_map(|event| if let SessionEvent::Certified(certificate) = event { Some(certificate) } else { None })
            .collect()
    }

    /// What it has signed and had signed last.
    pub(super) fn certified(&self) -> Option<Root> {
        self.certificates().last().map(|certificate| certificate.root())
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.events.iter().find_map(|event| if let SessionEvent::Ended(outcome) = event { Some(outcome) } else { None })
    }
}

/// Whether an end knows of certificates. Most tests are about other things, and signing takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    Unknown,
    Known,
}

#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) direction: Direction,
    pub(super) windows: Windows,
    /// What the dialer believes that the listener has.
    pub(super) cached: Option<Frontier>,
    pub(super) stay: Stay,
    /// Of the dialer and the listener.
    pub(super) signing: [Signing; 2],
    /// One chunk in so many comes twice; none if 0.
    pub(super) twice_one_in: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            direction: Direction::Both,
            windows: Windows::default(),
            cached: None,
            stay: Stay::UntilEqual,
            signing: [Signing::Unknown; 2],
            twice_one_in: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) ends: [End; 2],
    dice: Dice,
    windows: Windows,
    twice_one_in: usize,
    /// Another session has brought what this one was about to: what this one has under way is then more than it waits for.
    helped: bool,
    pub(super) now: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Control(usize),
    Lane(usize, usize),
    Act(usize, usize),
    Late(usize),
}

impl World {
    pub(super) fn new(dialer: Vault, listener: Vault, options: &Options, seed: u64) -> Self {
        let now = Instant::now();
        let peers = [dialer.name, listener.name];
        let ends = [End::new(dialer, peers[1], Side::Dialer, options, now), End::new(listener, peers[0], Side::Listener, options, now)];
        let (dice, windows, twice_one_in) = (Dice(seed), options.windows, options.twice_one_in);
        let mut world = Self { ends, dice, windows, twice_one_in, helped: false, now };
        world.collect(0);
        world.collect(1);
        world
    }

    /// Takes everything that the session of an end has for the outside.
    pub(super) fn collect(&mut self, end: usize) {
        while let Some(event) = self.ends[end].session.poll_event() {
            if let SessionEvent::PeerApplied { frontier, .. } = &event {
                let held = self.ends[1 - end].driver.vault.frontier();
                assert!(held.covers(frontier), "acknowledged before it was durable");
            }
            self.ends[end].events.push(event);
        }
        while let Some(message) = self.ends[end].session.poll_message() {
            self.ends[1 - end].control.push_back(message);
        }
        while let Some(action) = self.ends[end].session.poll_action() {
            match action {
                Action::Expect { .. } | Action::Forget { .. } => self.act(end, action),
                _ => self.ends[end].actions.push_back(action),
            }
        }
    }

    /// Something becomes durable at an end that this session has not brought.
    pub(super) fn grow(&mut self, end: usize, change: impl FnOnce(&mut Vault)) {
        let End { driver, session, .. } = &mut self.ends[end];
        change(&mut driver.vault);
        session.handle_local(self.now, driver.vault.frontier(), driver.vault.root());
        self.collect(end);
    }

    /// Another session brings an end all that `other` holds.
    pub(super) fn bring(&mut self, end: usize, other: &Vault) {
        self.helped = true;
        self.grow(end, |vault| vault.receive_all(other));
    }

    /// Carries out all that is to be done at both ends, in no time, then delivers all that was on its way: half a round trip.
    pub(super) fn half_trip(&mut self) {
        self.work();
        let under_way = [0, 1].map(|end| std::mem::take(&mut self.ends[end].control));
        for (end, messages) in under_way.into_iter().enumerate() {
            for message in messages {
                self.ends[end].session.handle_message(self.now, message);
                self.collect(end);
            }
        }
        self.work();
    }

    /// Bytes that the dialer says before it hears anything.
    pub(super) fn ahead(&mut self) -> usize {
        while self.carry_out_one(0) {}
        self.ends[1].control.iter().map(Bytes::len).sum()
    }

    /// Carries out the next action of an end. False when there is none.
    pub(super) fn carry_out_one(&mut self, end: usize) -> bool {
        let action = self.ends[end].actions.pop_front();
        action.map(|action| self.act(end, action)).is_some()
    }

    /// The user at an end stops.
    pub(super) fn stop(&mut self, end: usize) {
        self.ends[end].session.handle_stop(self.now);
        self.collect(end);
    }

    fn work(&mut self) {
        for end in [0, 1] {
            while self.carry_out_one(end) || self.hear_late(end) {}
        }
    }

    fn act(&mut self, end: usize, action: Action) {
        let commit = matches!(action, Action::Commit { .. });
        let Effects { done, lanes } = self.ends[end].driver.carry_out(action);
        if commit && self.dice.roll(2) == 0 {
            // The word that the log has grown may be faster than the answer, and much faster.
            self.grow(end, |_| {});
            self.ends[end].late.extend(done);
            return;
        }
        for frame in lanes {
            let lane = self.dice.roll(LANES);
            self.ends[1 - end].lanes[lane].push_back(frame);
        }
        for done in done {
            self.ends[end].session.handle_done(self.now, done);
            self.collect(end);
        }
    }

    /// The next answer that was late comes. False when there is none.
    fn hear_late(&mut self, end: usize) -> bool {
        let Some(done) = self.ends[end].late.pop_front() else { return false };
        self.ends[end].session.handle_done(self.now, done);
        self.collect(end);
        true
    }

    fn possible(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (at, end) in self.ends.iter().enumerate() {
            if !end.late.is_empty() {
                steps.push(Step::Late(at));
            }
            if !end.control.is_empty() {
                steps.push(Step::Control(at));
            }
            steps.extend((0..LANES).filter(|lane| !end.lanes[*lane].is_empty()).map(|lane| Step::Lane(at, lane)));
            for (nth, action) in end.actions.iter().enumerate() {
                if !end.actions.iter().take(nth).any(|earlier| discriminant(earlier) == discriminant(action)) {
                    steps.push(Step::Act(at, nth));
                }
            }
        }
        steps
    }

    /// Takes one of the possible steps. False when there is none.
    pub(super) fn step(&mut self) -> bool {
        let steps = self.possible();
        if steps.is_empty() {
            return false;
        }
        match steps[self.dice.roll(steps.len())] {
            Step::Late(end) => _ = self.hear_late(end),
            Step::Control(end) => {
                if let Some(message) = self.ends[end].control.pop_front() {
                    self.ends[end].heard.push(message.clone());
                    self.ends[end].session.handle_message(self.now, message);
                    self.collect(end);
                }
            }
            Step::Lane(end, lane) => {
                if let Some(frame) = self.ends[end].lanes[lane].pop_front() {
                    for done in self.ends[end].driver.land(&frame) {
                        self.ends[end].session.handle_done(self.now, done);
                        self.collect(end);
                    }
                    self.repeat(end, frame);
                }
            }
            Step::Act(end, nth) => {
                if let Some(action) = self.ends[end].actions.remove(nth) {
                    self.act(end, action);
                }
            }
        }
        self.check();
        true
    }

    /// A chunk that has come to `end` comes once more, on whichever lane, if its turn has come.
    fn repeat(&mut self, end: usize, frame: Vec<u8>) {
        if self.twice_one_in > 0 && self.dice.roll(self.twice_one_in) == 0 {
            let lane = self.dice.roll(LANES);
            self.ends[end].lanes[lane].push_back(frame);
            self.ends[1 - end].driver.sent_chunks += 1;
        }
    }

    /// What is under way, and so may have to be sent again, stays within the windows.
    fn check(&self) {
        let promised = 2 * (self.windows.inline_bytes_max as usize).min(INLINE_BYTES_MAX) / 49;
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let under_way = self.ends[sender].driver.sent_chunks - self.ends[receiver].driver.landed_chunks;
            assert!(
                self.helped || self.twice_one_in > 0 || under_way <= self.windows.wanted_chunks_max + promised + 1,
                "{under_way} chunks are under way"
            );
        }
    }

    /// Steps until nothing is left to do. Panics if that takes more than `steps`.
    pub(super) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.step() {
                return;
            }
        }
        panic!("no end after {steps} steps: {:?} {:?}", self.ends[0].session.phase(), self.ends[1].session.phase());
    }

    /// The sessions are over, whether they had finished or not; what the disks hold remains.
    pub(super) fn vaults(self) -> [Vault; 2] {
        self.ends.map(|end| end.driver.vault)
    }

    pub(super) fn outcomes(&self) -> [Option<&Outcome>; 2] {
        [self.ends[0].outcome(), self.ends[1].outcome()]
    }

    pub(super) fn heard_kinds(&self, end: usize) -> Vec<u8> {
        self.ends[end].heard.iter().map(|message| message[0]).collect()
    }
}
