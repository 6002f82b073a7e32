//! Which kind of lane carries the bytes, decided by measurement: a pure state machine, no IO, no clock.
//!
//! ```text
//! Opening ── TCP connected, near path ──────────────────────────────► Settled(tcp)
//!    └────── TCP connected, any other ──► Looking: incumbent alone ─► both ─► challenger alone ─► Settled(better)
//!                                            ▲                          └ a weak challenger ───► Settled(incumbent)
//!                                            └── goodput halved · path changed · it was close, a while ago ── Settled
//! ```
//! Spans wait in one queue, and both kinds of lanes take from it; the answer of every step is which may take now. So a change of mind
//! moves what is still missing, restarts nothing and sends nothing twice.
//!
//! # Why this way
//! - On a near path (a round trip below two milliseconds, nothing lost) TCP costs half of QUIC's CPU time and was never slower: it is
//!   measured only when it disappoints.
//! - Elsewhere nobody knows: QUIC begins at once, since it is there, and TCP has to prove itself. While both run, the incumbent goes on,
//!   so a challenger that the path does not suit costs nothing; only one that gets a fair part of the path is tried alone.
//! - Goodput decides; within a tenth, CPU time for each byte does.
//! - The first part of every slice is not measured: windows open, buffers fill, and what the other kind had taken drains.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Round trips below this are those of a near path.
const NEAR: Duration = Duration::from_millis(2);
/// How long bytes wait on a near path for TCP to connect. Without TCP they then leave over QUIC.
const NEAR_PATIENCE: Duration = Duration::from_millis(10);
/// A near path that carries less is looked at: bytes a second.
const NEAR_GOODPUT: f64 = 50e6;
/// A slice that is not measured, then one that is: at least so long, or so many round trips, but never longer than the last.
const RAMP: (Duration, u32, Duration) = (Duration::from_millis(100), 8, Duration::from_millis(1_500));
const MEASURE: (Duration, u32, Duration) = (Duration::from_millis(200), 6, Duration::from_millis(1_500));
/// What the resting kind had taken must have drained, but is not waited for longer than this.
const DRAIN: Duration = Duration::from_secs(3);
/// A kind that moves no more than this from one step to the next rests: control messages, keep-alives.
const REST_BYTES: u64 = 32 << 10;
/// The part of the path that a challenger must get beside the incumbent to be tried alone.
const FAIR_SHARE: f64 = 0.25;
/// Goodputs nearer to each other than this are the same, and CPU time decides.
const SAME: f64 = 0.9;
/// A loser that came this near is looked at again after a while.
const CLOSE: f64 = 0.75;
/// Goodput is watched in intervals of this length.
const WATCH: Duration = Duration::from_secs(1);
/// So many intervals below half of the best mean that something has changed.
const POOR_INTERVALS: u32 = 3;
/// From the end of one look to the next: at first, after each that changed nothing twice as long, at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How often a step should be made while looking, and once settled.
const STEP: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// One of the two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Quic,
    Tcp,
}

impl Carrier {
    const fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tcp,
            Self::Tcp => Self::Quic,
        }
    }
}

/// Which lanes may take spans now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    Neither,
    Only(Carrier),
    Both,
}

impl Pull {
    /// Whether lanes of `carrier` may.
    pub(super) fn allows(self, carrier: Carrier) -> bool {
        match self {
            Self::Neither => false,
            Self::Only(one) => one == carrier,
            Self::Both => true,
        }
    }
}

/// Whether TCP lanes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TcpLanes {
    Dialling,
    Ready,
}

/// Whether there was always something to take since the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    Plenty,
    Short,
}

/// What is known at one moment; counters since the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) now: Instant,
    /// Bytes that the network has taken over QUIC, without those it lost.
    pub(super) quic: u64,
    /// Bytes that TCP's sockets have taken.
    pub(super) tcp: u64,
    /// CPU time of this process.
    pub(super) cpu: Duration,
    /// The path's round-trip time, as QUIC knows it.
    pub(super) rtt: Duration,
    /// Packets that QUIC has lost.
    pub(super) lost: u64,
    pub(super) tcp_lanes: TcpLanes,
    pub(super) supply: Supply,
    /// Where the peer is.
    pub(super) path: Option<SocketAddr>,
}

/// What a slice has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    quic_per_s: f64,
    tcp_per_s: f64,
    cpu_per_byte: f64,
}

impl Measured {
    fn between(from: &Sample, to: &Sample) -> Self {
        let seconds = to.now.duration_since(from.now).as_secs_f64().max(1e-3);
        let (quic, tcp) = (to.quic.saturating_sub(from.quic) as f64, to.tcp.saturating_sub(from.tcp) as f64);
        let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        Self { quic_per_s: quic / seconds, tcp_per_s: tcp / seconds, cpu_per_byte: cpu / (quic + tcp).max(1.0) }
    }

    fn of(&self, carrier: Carrier) -> f64 {
        match carrier {
            Carrier::Quic => self.quic_per_s,
            Carrier::Tcp => self.tcp_per_s,
        }
    }

    fn total(&self) -> f64 {
        self.quic_per_s + self.tcp_per_s
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Until TCP is connected.
    Opening {
        since: Instant,
    },
    Looking(Look),
    Settled(Settled),
}

/// Which slice of a look is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    Incumbent,
    Together,
    Challenger,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    incumbent: Carrier,
    slice: Slice,
    /// When the slice began.
    began: Instant,
    /// What was known when measuring began.
    from: Option<Sample>,
    alone: Option<Measured>,
}

#[derive(Debug, Clone, Copy)]
struct Settled {
    on: Carrier,
    since: Instant,
    /// The interval under way.
    from: Sample,
    supply: Supply,
    /// Bytes a second of the best interval.
    best: f64,
    /// Poor intervals in a row.
    poor: u32,
    rival: Rival,
}

/// What is known of the one that was not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Unknown,
    Close,
    Beaten,
}

/// Decides. See the module.
#[derive(Debug)]
pub(super) struct Chooser {
    phase: Phase,
    last: Sample,
    pause: Duration,
    reason: &'static str,
}

impl Chooser {
    pub(super) fn new(first: Sample) -> Self {
        Self { phase: Phase::Opening { since: first.now }, last: first, pause: PAUSE.0, reason: "TCP is being dialled" }
    }

    /// Why the last answer is what it is, for people.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// How soon the next step should be made.
    pub(super) fn next_step(&self) -> Duration {
        match self.phase {
            Phase::Opening { .. } | Phase::Looking(_) => STEP.0.min(NEAR_PATIENCE),
            Phase::Settled(_) => STEP.1,
        }
    }

    /// Takes note of `sample` and says which lanes may take spans from now on.
    pub(super) fn step(&mut self, sample: Sample) -> Pull {
        self.phase = match self.phase {
            Phase::Opening { since } => self.open(since, &sample),
            Phase::Looking(look) => self.look(look, &sample),
            Phase::Settled(settled) => self.watch(settled, &sample),
        };
        self.last = sample;
        self.pull(&sample)
    }

    fn pull(&self, sample: &Sample) -> Pull {
        match self.phase {
            Phase::Opening { since } if is_near(sample) && sample.now.duration_since(since) < NEAR_PATIENCE => Pull::Neither,
            Phase::Opening { .. } => Pull::Only(Carrier::Quic),
            Phase::Looking(Look { slice: Slice::Incumbent, incumbent, .. }) => Pull::Only(incumbent),
            Phase::Looking(Look { slice: Slice::Together, .. }) => Pull::Both,
            Phase::Looking(Look { slice: Slice::Challenger, incumbent, .. }) => Pull::Only(incumbent.other()),
            Phase::Settled(settled) => Pull::Only(settled.on),
        }
    }

    fn open(&mut self, since: Instant, sample: &Sample) -> Phase {
        match sample.tcp_lanes {
            TcpLanes::Dialling => Phase::Opening { since },
            TcpLanes::Ready if is_near(sample) => self.settle(Carrier::Tcp, Rival::Unknown, "the path is near and loses nothing", sample),
            TcpLanes::Ready => self.begin_look(Carrier::Quic, "both are there", sample),
        }
    }

    fn begin_look(&mut self, incumbent: Carrier, reason: &'static str, sample: &Sample) -> Phase {
        self.reason = reason;
        Phase::Looking(Look { incumbent, slice: Slice::Incumbent, began: sample.now, from: None, alone: None })
    }

    fn look(&mut self, look: Look, sample: &Sample) -> Phase {
        let Some(from) = look.from else {
            let from = self.is_ramped(&look, sample).then_some(*sample);
            return Phase::Looking(Look { from, ..look });
        };
        if sample.now.duration_since(from.now) < slice(MEASURE, sample.rtt) {
            return Phase::Looking(look);
        }
        let measured = Measured::between(&from, sample);
        let next = |slice| Phase::Looking(Look { slice, began: sample.now, from: None, alone: look.alone.or(Some(measured)), ..look });
        match (look.slice, look.alone) {
            (Slice::Incumbent, _) | (_, None) => next(Slice::Together),
            (Slice::Together, _) if measured.of(look.incumbent.other()) < FAIR_SHARE * measured.total() => {
                self.settle(look.incumbent, Rival::Beaten, "the other gets little of the path", sample)
            }
            (Slice::Together, _) => next(Slice::Challenger),
            (Slice::Challenger, Some(alone)) => self.decide(look.incumbent, alone, measured, sample),
        }
    }

    /// Whether windows are open and the resting kind is at rest.
    fn is_ramped(&self, look: &Look, sample: &Sample) -> bool {
        let resting = match (look.slice, look.incumbent) {
            (Slice::Together, _) => 0,
            (Slice::Incumbent, Carrier::Tcp) | (Slice::Challenger, Carrier::Quic) => sample.quic - self.last.quic.min(sample.quic),
            (Slice::Incumbent, Carrier::Quic) | (Slice::Challenger, Carrier::Tcp) => sample.tcp - self.last.tcp.min(sample.tcp),
        };
        let passed = sample.now.duration_since(look.began);
        passed >= slice(RAMP, sample.rtt) && (resting <= REST_BYTES || passed >= DRAIN)
    }

    fn decide(&mut self, incumbent: Carrier, before: Measured, after: Measured, sample: &Sample) -> Phase {
        let challenger = incumbent.other();
        let (held, reached) = (before.of(incumbent), after.of(challenger));
        let rival = if held.min(reached) >= CLOSE * held.max(reached) { Rival::Close } else { Rival::Beaten };
        if held.min(reached) < SAME * held.max(reached) {
            let winner = if reached > held { challenger } else { incumbent };
            self.pause = if winner == challenger { PAUSE.0 } else { self.pause };
            return self.settle(winner, rival, "it has the higher goodput", sample);
        }
        let winner = if after.cpu_per_byte < before.cpu_per_byte { challenger } else { incumbent };
        self.settle(winner, rival, "both are as fast, and it costs less CPU time", sample)
    }

    fn settle(&mut self, on: Carrier, rival: Rival, reason: &'static str, sample: &Sample) -> Phase {
        self.reason = reason;
        let (from, since) = (*sample, sample.now);
        Phase::Settled(Settled { on, since, from, supply: Supply::Plenty, best: 0.0, poor: 0, rival })
    }

    fn watch(&mut self, mut settled: Settled, sample: &Sample) -> Phase {
        if sample.supply == Supply::Short {
            settled.supply = Supply::Short;
        }
        if sample.path != self.last.path {
            self.pause = PAUSE.0;
            return self.begin_look(settled.on, "the path has changed", sample);
        }
        if sample.now.duration_since(settled.from.now) < WATCH {
            return Phase::Settled(settled);
        }
        let rate = Measured::between(&settled.from, sample).of(settled.on);
        let fair = settled.supply == Supply::Plenty;
        settled.poor = if fair && rate < settled.best / 2.0 { settled.poor + 1 } else { 0 };
        settled.best = settled.best.max(rate);
        (settled.from, settled.supply) = (*sample, Supply::Plenty);
        let reason = if fair { self.wants_look(&settled, rate, sample) } else { None };
        match reason {
            None => Phase::Settled(settled),
            Some(reason) => {
                self.pause = (2 * self.pause).min(PAUSE.1);
                self.begin_look(settled.on, reason, sample)
            }
        }
    }

    fn wants_look(&self, settled: &Settled, rate: f64, sample: &Sample) -> Option<&'static str> {
        let rested = sample.now.duration_since(settled.since);
        match settled.rival {
            Rival::Unknown if rate < NEAR_GOODPUT => Some("it carries little for a near path"),
            _ if rested < self.pause => None,
            _ if settled.poor >= POOR_INTERVALS => Some("its goodput has halved"),
            Rival::Close if rested >= 6 * self.pause => Some("it was close"),
            _ => None,
        }
    }
}

fn is_near(sample: &Sample) -> bool {
    sample.rtt < NEAR && sample.lost == 0
}

/// The length of a slice.
fn slice((least, round_trips, most): (Duration, u32, Duration), rtt: Duration) -> Duration {
    (rtt * round_trips).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A path in virtual time: what each kind moves when it may, and what that costs.
    struct Path {
        now: Sample,
        chooser: Chooser,
        pull: Pull,
        /// Bytes a second of QUIC and TCP alone; together each gets its `share`.
        alone: (f64, f64),
        share: (f64, f64),
        /// CPU seconds for each byte.
        cost: (f64, f64),
        moved: (f64, f64),
    }

    const MB: f64 = 1e6;

    fn path(rtt_ms: u64, quic_mb_s: f64, tcp_mb_s: f64) -> Path {
        let first = Sample {
            now: clock::now(),
            quic: 0,
            tcp: 0,
            cpu: Duration::ZERO,
            rtt: Duration::from_millis(rtt_ms),
            lost: 0,
            tcp_lanes: TcpLanes::Dialling,
            supply: Supply::Plenty,
            path: None,
        };
        Path {
            now: first,
            chooser: Chooser::new(first),
            pull: Pull::Neither,
            alone: (quic_mb_s * MB, tcp_mb_s * MB),
            share: (quic_mb_s * MB / 2.0, tcp_mb_s * MB / 2.0),
            cost: (3e-9, 1.5e-9),
            moved: (0.0, 0.0),
        }
    }

    impl Path {
        fn tcp_connects(mut self) -> Self {
            self.now.tcp_lanes = TcpLanes::Ready;
            self
        }

        fn run(&mut self, time: Duration) {
            let end = self.now.now + time;
            while self.now.now < end {
                self.pull = self.chooser.step(self.now);
                let step = self.chooser.next_step();
                let rates = match self.pull {
                    Pull::Neither => (0.0, 0.0),
                    Pull::Only(Carrier::Quic) => (self.alone.0, 0.0),
                    Pull::Only(Carrier::Tcp) => (0.0, self.alone.1),
                    Pull::Both => self.share,
                };
                let moved = (rates.0 * step.as_secs_f64(), rates.1 * step.as_secs_f64());
                self.moved = (self.moved.0 + moved.0, self.moved.1 + moved.1);
                self.now.cpu += Duration::from_secs_f64(moved.0 * self.cost.0 + moved.1 * self.cost.1);
                (self.now.quic, self.now.tcp) = (self.moved.0 as u64, self.moved.1 as u64);
                self.now.now += step;
            }
        }

        /// What it has settled on once all is measured.
        fn settled(&mut self) -> Carrier {
            self.run(Duration::from_secs(20));
            match self.pull {
                Pull::Only(carrier) => carrier,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_near_path_waits_a_moment_for_tcp_and_never_sends_over_quic() {
        let mut path = path(0, 500.0, 1_000.0);
        path.run(Duration::from_millis(5));
        assert_eq!(path.pull, Pull::Neither);
        let mut path = path.tcp_connects();
        assert_eq!(path.settled(), Carrier::Tcp);
        assert_eq!(path.now.quic, 0);
    }

    #[test]
    fn without_tcp_a_near_path_goes_on_over_quic() {
        let mut path = path(0, 500.0, 1_000.0);
        assert_eq!(path.settled(), Carrier::Quic);
        assert!(path.now.quic as f64 > 19.9 * 500.0 * MB, "only a moment was lost");
    }

    #[test]
    fn a_far_path_begins_with_quic_and_ends_with_the_better() {
        for (quic, tcp, better) in [(10.0, 20.0, Carrier::Tcp), (20.0, 10.0, Carrier::Quic)] {
            let mut path = path(50, quic, tcp);
            path.run(Duration::from_millis(40));
            assert_eq!(path.pull, Pull::Only(Carrier::Quic));
            assert_eq!(path.tcp_connects().settled(), better, "{quic} {tcp}");
        }
    }

    #[test]
    fn a_challenger_that_the_path_does_not_suit_never_stops_the_incumbent() {
        let mut path = path(100, 10.0, 0.2).tcp_connects();
        path.share = (9.8 * MB, 0.2 * MB);
        assert_eq!(path.settled(), Carrier::Quic);
        assert!(path.now.quic as f64 > 0.97 * 20.0 * 10.0 * MB);
    }

    #[test]
    fn of_two_that_are_as_fast_the_cheaper_one_is_taken() {
        assert_eq!(path(20, 100.0, 95.0).tcp_connects().settled(), Carrier::Tcp);
        let mut path = path(20, 95.0, 100.0).tcp_connects();
        path.cost = (1e-9, 3e-9);
        assert_eq!(path.settled(), Carrier::Quic);
    }

    #[test]
    fn a_near_path_that_disappoints_over_tcp_is_looked_at() {
        let mut path = path(0, 40.0, 5.0).tcp_connects();
        assert_eq!(path.settled(), Carrier::Quic);
    }

    #[test]
    fn goodput_that_halves_makes_it_look_again() {
        let mut path = path(20, 60.0, 100.0).tcp_connects();
        assert_eq!(path.settled(), Carrier::Tcp);
        (path.alone.1, path.share.1) = (10.0 * MB, 5.0 * MB);
        assert_eq!(path.settled(), Carrier::Quic);
        assert_eq!(path.chooser.reason(), "it has the higher goodput");
    }

    #[test]
    fn a_sender_that_has_little_to_send_is_no_reason_to_look() {
        let mut path = path(20, 60.0, 100.0).tcp_connects();
        assert_eq!(path.settled(), Carrier::Tcp);
        let before = path.now.quic;
        (path.alone.1, path.now.supply) = (MB, Supply::Short);
        path.run(Duration::from_secs(60));
        assert_eq!(path.now.quic, before);
    }

    #[test]
    fn another_path_is_looked_at_at_once() {
        let mut path = path(20, 60.0, 100.0).tcp_connects();
        assert_eq!(path.settled(), Carrier::Tcp);
        path.alone = (100.0 * MB, 60.0 * MB);
        path.now.path = Some(([10, 0, 0, 1], 1).into());
        assert_eq!(path.settled(), Carrier::Quic);
    }

    #[test]
    fn looks_that_change_nothing_become_rare() {
        let mut path = path(0, 5.0, 40.0).tcp_connects();
        path.share = (MB, 39.0 * MB);
        path.run(Duration::from_secs(600));
        assert!((path.now.quic as f64) < 0.02 * path.now.tcp as f64, "{} {}", path.now.quic, path.now.tcp);
    }
}
