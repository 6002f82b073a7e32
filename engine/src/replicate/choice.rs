//! Which kind of lane carries the bytes, decided by measurement: a pure state machine, no IO, no clock.
//!
//! ```text
//! Opening ── TCP connected, near path ──────────────────────────────► Settled(tcp)
//!    └────── TCP connected, any other ──► Looking: incumbent alone ─► both ─► challenger alone ─► Settled(better)
//!                                            ▲          │             └ a weak challenger ───► Settled(incumbent)
//!                                            │          └ QUIC, and the path itself loses packets ──► Settled(quic)
//!                                            └── goodput halved · path changed · it was close or spared, a while ago ── Settled
//! ```
//! Spans wait in one queue, and both kinds of lanes take from it; the answer of every step is which may take now. So a change of mind
//! moves what is still missing, restarts nothing and sends nothing twice.
//!
//! # Why this way
//! - On a near path (a round trip below two milliseconds, nothing lost) TCP costs half of QUIC's CPU time and was never slower: it is
//!   measured only when it disappoints.
//! - Elsewhere nobody knows: QUIC begins at once, since it is there, and TCP has to prove itself. While both run, the incumbent goes on,
//!   so a challenger that the path does not suit costs nothing; only one that gets a fair part of the path is tried alone.
//! - A path that loses packets without a queue is what QUIC's congestion control is made for, and what the system's TCP may collapse on
//!   (CUBIC) or fight for (BBR fills the queue, and both lose). There a trial costs most and promises least: QUIC, once it has filled
//!   the path, is spared it for a while, and TCP has to be clearly better, not merely cheaper.
//! - Goodput decides; within a tenth, CPU time for each byte does.
//! - Stretches are measured until one brings no more than the last: slow start is over then, however long it takes. What counts is the
//!   last two together.
//! - TCP's sockets take bytes in lumps of a third of their buffer. A stretch begins and ends with a lump, so that none is counted in part.

mod sample;
#[cfg(test)]
mod tests;

pub(super) use sample::{Sample, Supply, TcpLanes};

use sample::Measured;

use std::time::{Duration, Instant};

/// Round trips below this are those of a near path.
const NEAR: Duration = Duration::from_millis(2);
/// How long bytes wait on a near path for TCP to connect. Without TCP they then leave over QUIC.
const NEAR_PATIENCE: Duration = Duration::from_millis(10);
/// A near path that carries less is looked at: bytes a second.
const NEAR_GOODPUT: f64 = 50e6;
/// A stretch: at least so long, or so many round trips, but never longer than the last.
const STRETCH: (Duration, u32, Duration) = (Duration::from_millis(150), 6, Duration::from_millis(1_500));
/// A stretch that brings this much more than the last is still part of the start.
const GROWN: f64 = 1.1;
/// After so many stretches what was seen has to do.
const STRETCHES_MAX: u32 = 6;
/// What the resting kind had taken must have drained, but is not waited for longer than this.
const DRAIN: Duration = Duration::from_secs(3);
/// A kind that moves no more than this from one step to the next rests: control messages, keep-alives.
const REST_BYTES: u64 = 32 << 10;
/// The part of the path that a challenger must get beside the incumbent to be tried alone.
const FAIR_SHARE: f64 = 0.25;
/// Goodputs nearer to each other than this are the same, and CPU time decides.
const SAME: f64 = 0.9;
/// QUIC is spared trials for so many pauses where the path itself loses packets.
const SPARED_PAUSES: u32 = 3;
/// A round trip this much longer than the shortest: the path was full.
const FILLED: f64 = 1.15;
/// A winner this much better shows that the path is another now: looks may be frequent again.
const DECISIVE: f64 = 2.0;
/// A loser that came this near is looked at again after a while.
const CLOSE: f64 = 0.75;
/// Goodput is watched in intervals of this length.
const WATCH: Duration = Duration::from_secs(1);
/// So many intervals in a row, below half of the best or without losses, mean that something has changed.
const INTERVALS: u32 = 3;
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
    /// What a path that itself loses packets means for this look.
    losses: Losses,
    slice: Slice,
    /// When the slice began.
    began: Instant,
    stretches: Stretches,
    alone: Option<Measured>,
    /// The longest round trip so far.
    slowest: Duration,
}

/// What a path that itself loses packets means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losses {
    /// QUIC stays, untried.
    Spare,
    /// It has been spared long enough.
    Try,
}

/// The stretches of a slice so far.
#[derive(Debug, Clone, Copy, Default)]
struct Stretches {
    /// Where the last one and the one under way began.
    starts: [Option<Sample>; 2],
    /// Bytes a second in the last one.
    rate: Option<f64>,
    count: u32,
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
    /// Intervals in a row in which the path itself lost nothing.
    lossless: u32,
    rival: Rival,
}

/// What is known of the one that was not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Unknown,
    /// It was not tried, because the path itself loses packets.
    Spared,
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
            TcpLanes::Ready => self.begin_look(Carrier::Quic, Losses::Spare, "both are there", sample),
        }
    }

    fn begin_look(&mut self, incumbent: Carrier, losses: Losses, reason: &'static str, sample: &Sample) -> Phase {
        self.reason = reason;
        let (slice, stretches) = (Slice::Incumbent, Stretches::default());
        Phase::Looking(Look { incumbent, losses, slice, began: sample.now, stretches, alone: None, slowest: sample.rtt })
    }

    fn look(&mut self, mut look: Look, sample: &Sample) -> Phase {
        look.slowest = look.slowest.max(sample.rtt);
        let Some(measured) = self.measure(&mut look, sample) else { return Phase::Looking(look) };
        let next = |slice| {
            let (stretches, alone) = (Stretches::default(), look.alone.or(Some(measured)));
            Phase::Looking(Look { slice, began: sample.now, stretches, alone, ..look })
        };
        match (look.slice, look.alone) {
            (Slice::Incumbent, _) if look.spares(&measured, sample) => {
                self.settle(Carrier::Quic, Rival::Spared, "the path itself loses packets", sample)
            }
            (Slice::Incumbent, _) | (_, None) => next(Slice::Together),
            (Slice::Together, _) if measured.of(look.incumbent.other()) < FAIR_SHARE * measured.total() => {
                self.settle(look.incumbent, Rival::Beaten, "the other gets little of the path", sample)
            }
            (Slice::Together, _) => next(Slice::Challenger),
            (Slice::Challenger, Some(alone)) => self.decide(look.incumbent, alone, measured, sample),
        }
    }

    /// What the slice has shown, once its start is over.
    fn measure(&self, look: &mut Look, sample: &Sample) -> Option<Measured> {
        let [_, under_way] = look.stretches.starts;
        let Some(from) = under_way else {
            if self.is_drained(look, sample) {
                look.stretches.starts[1] = Some(*sample);
            }
            return None;
        };
        let (passed, least) = (sample.now.duration_since(from.now), stretch(sample.rtt));
        let lump = sample.bytes(look.watched()) > self.last.bytes(look.watched());
        if passed < least || !lump && passed < 2 * least {
            return None;
        }
        look.stretches.end(&from, look.watched(), sample)
    }

    /// Whether the resting kind is at rest.
    fn is_drained(&self, look: &Look, sample: &Sample) -> bool {
        let other = look.watched().other();
        let resting = match look.slice {
            Slice::Together => 0,
            Slice::Incumbent | Slice::Challenger => sample.bytes(other).saturating_sub(self.last.bytes(other)),
        };
        let passed = sample.now.duration_since(look.began);
        resting <= REST_BYTES && !passed.is_zero() || passed >= DRAIN
    }

    fn decide(&mut self, incumbent: Carrier, before: Measured, after: Measured, sample: &Sample) -> Phase {
        let challenger = incumbent.other();
        let (held, reached) = (before.of(incumbent), after.of(challenger));
        let (worse, better) = (held.min(reached), held.max(reached));
        let rival = if worse >= CLOSE * better { Rival::Close } else { Rival::Beaten };
        if worse < SAME * better {
            let winner = if reached > held { challenger } else { incumbent };
            if winner == challenger && reached > DECISIVE * held {
                self.pause = PAUSE.0;
            }
            return self.settle(winner, rival, "it has the higher goodput", sample);
        }
        if before.loses_by_itself() || after.loses_by_itself() {
            return self.settle(Carrier::Quic, rival, "both are as fast, and the path itself loses packets", sample);
        }
        let winner = if after.cpu_per_byte < before.cpu_per_byte { challenger } else { incumbent };
        self.settle(winner, rival, "both are as fast, and it costs less CPU time", sample)
    }

    fn settle(&mut self, on: Carrier, rival: Rival, reason: &'static str, sample: &Sample) -> Phase {
        self.reason = reason;
        let (from, since) = (*sample, sample.now);
        Phase::Settled(Settled { on, since, from, supply: Supply::Plenty, best: 0.0, poor: 0, lossless: 0, rival })
    }

    fn watch(&mut self, mut settled: Settled, sample: &Sample) -> Phase {
        if sample.supply == Supply::Short {
            settled.supply = Supply::Short;
        }
        if sample.path != self.last.path {
            self.pause = PAUSE.0;
            return self.begin_look(settled.on, Losses::Spare, "the path has changed", sample);
        }
        if sample.now.duration_since(settled.from.now) < WATCH {
            return Phase::Settled(settled);
        }
        let measured = Measured::between(&settled.from, sample);
        let fair = settled.supply == Supply::Plenty;
        settled.end_interval(&measured, sample);
        let wish = if fair { self.wants_look(&settled, measured.of(settled.on), sample) } else { None };
        match wish {
            None => Phase::Settled(settled),
            Some((losses, reason)) => {
                self.pause = (2 * self.pause).min(PAUSE.1);
                self.begin_look(settled.on, losses, reason, sample)
            }
        }
    }

    fn wants_look(&self, settled: &Settled, rate: f64, sample: &Sample) -> Option<(Losses, &'static str)> {
        let rested = sample.now.duration_since(settled.since);
        match settled.rival {
            Rival::Unknown if rate < NEAR_GOODPUT => Some((Losses::Spare, "it carries little for a near path")),
            _ if rested < self.pause => None,
            _ if settled.poor >= INTERVALS => Some((Losses::Spare, "its goodput has halved")),
            Rival::Spared if settled.lossless >= INTERVALS => Some((Losses::Spare, "the path loses nothing any more")),
            Rival::Spared if rested >= SPARED_PAUSES * self.pause => Some((Losses::Try, "it was spared a trial for long enough")),
            Rival::Close if rested >= 6 * self.pause => Some((Losses::Try, "it was close")),
            _ => None,
        }
    }
}

impl Look {
    /// Whose rate says whether the start is over.
    fn watched(&self) -> Carrier {
        match self.slice {
            Slice::Incumbent => self.incumbent,
            Slice::Together | Slice::Challenger => self.incumbent.other(),
        }
    }

    /// A queue that stood once shows that QUIC has filled the path. Where none did, a window that losses or a bad start keep small may
    /// leave room that TCP would use.
    fn spares(&self, measured: &Measured, sample: &Sample) -> bool {
        let has_filled = self.slowest >= sample.rtt_min.mul_f64(FILLED);
        self.incumbent == Carrier::Quic && self.losses == Losses::Spare && has_filled && measured.loses_by_itself()
    }
}

impl Stretches {
    /// Ends the stretch that began with `from`. The last two together, if the later one of them brought no more than the other; but
    /// losses of the last alone, because slow start may end in a burst of them.
    fn end(&mut self, from: &Sample, watched: Carrier, sample: &Sample) -> Option<Measured> {
        let last = Measured::between(from, sample);
        let rate = last.of(watched);
        let is_steady = self.rate.is_some_and(|last| rate <= GROWN * last);
        self.count += 1;
        if is_steady || self.count == STRETCHES_MAX {
            let began = self.starts[0].unwrap_or(*from);
            return Some(Measured::between(&began, sample).with_losses_of(&last));
        }
        self.starts = [Some(*from), Some(*sample)];
        self.rate = Some(rate);
        None
    }
}

impl Settled {
    fn end_interval(&mut self, measured: &Measured, sample: &Sample) {
        let rate = measured.of(self.on);
        let is_fair = self.supply == Supply::Plenty;
        self.poor = if is_fair && rate < self.best / 2.0 { self.poor + 1 } else { 0 };
        self.lossless = if is_fair && !measured.loses_by_itself() { self.lossless + 1 } else { 0 };
        self.best = self.best.max(rate);
        (self.from, self.supply) = (*sample, Supply::Plenty);
    }
}

fn is_near(sample: &Sample) -> bool {
    sample.rtt < NEAR && sample.lost == 0
}

/// The length of a stretch.
fn stretch(rtt: Duration) -> Duration {
    let (least, round_trips, most) = STRETCH;
    (rtt * round_trips).clamp(least, most)
}
