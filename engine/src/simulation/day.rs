//! Must-pass 4: a day of two laptops that keep each other equal, in seconds.
//!
//! ```text
//! laptop 0  ── changes ──── asleep ───────── changes ── Wi-Fi gone ── other address ──►  24 h
//! laptop 1  ──── changes ────── changes ── asleep ───── changes ─────────────────────►
//! ```
//! On each runs a [`Node`](crate::node::Node) that knows the other: both serve, both dial, and which session stays is theirs to decide. The
//! system tells a node that its own network has changed and nothing of the other's; where the other is, it hears by multicast a moment after
//! the link is up. Some paths are cut half-way, so that nobody is told at all. For every change counts how long it takes to the other laptop,
//! from when it was made, or from when the link came back: never more than [`ALWAYS_WITHIN`].
//!
//! Changes are a person's: some hundred a day, most of less than a kilobyte, one in twenty of up to 20, one in a hundred of up to 400.
//! Latency is 0.5 to 60 ms one way, jitter up to 10 ms of each packet by itself (so that they overtake each other), loss 0 to 5 %;
//! `MIRROR_LATENCY_MS` says another bound of the latency.
//!
//! # What is not played
//! TCP: its retransmissions are the system's, and a model of them would be what is measured. So UDP is never blocked here; what happens then
//! is tried on real sockets (`tests/faults/network.rs`). And a laptop that sleeps hears and says nothing, but its timers go on, as those of
//! a process do whose system counts sleep.

use super::{
    TOLD, asked,
    dice::Dice,
    held::{self, Held},
    net::{Plugged, Weather},
    play,
    replica::Program,
    tell,
    world::World,
};
use crate::event::Dot;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);
const ALWAYS_WITHIN: Duration = Duration::from_secs(5);
/// Whoever is away for longer is asleep.
const AWAY: Duration = Duration::from_secs(600);
/// One way.
const LATENCY_MS_MAX: u64 = 60;
/// How long it takes until the others of a network have heard of who came to it (RFC 6762, section 6).
const ANNOUNCED_WITHIN: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_millis(120);
/// Of fewer moments the 99th percentile says nothing.
const MOMENTS_MIN: usize = 1_000;
const MOSTLY_WITHIN: Duration = Duration::from_secs(1);
/// A backlog of more bytes, or a value, is bound by what its path carries, not by how soon the two agree.
const LITTLE_BYTES: u64 = 64 << 10;

/// How long changes took, of a day or of many.
#[derive(Debug, Default)]
struct Delays {
    /// Of each change that was made while the link was up.
    live: Vec<Duration>,
    /// Of each return of the link, until everything was there that was made before.
    returned: Vec<Duration>,
    /// Of the same, where it was little.
    returned_little: Vec<Duration>,
    /// Of the same, until the first of it was there: how long it took to find each other.
    found: Vec<Duration>,
}

struct Day {
    seed: u64,
    lasts: Duration,
    /// What is held for both, every [`MONTH`] of more than one day.
    held: Vec<Held>,
    world: World,
    dice: Dice,
    began: Instant,
    delays: Delays,
    /// Changes that the other laptop does not have yet.
    open: Vec<Change>,
    /// Since when both laptops are on the network.
    up: Option<Instant>,
    /// The return of the link of which something has arrived.
    found_at: Option<Instant>,
    /// Of what was made before the link's return and has arrived since: changes and bytes.
    backlog: (u64, u64),
    weather: Weather,
    /// When each comes back to it.
    back: [Option<Instant>; 2],
    /// When the path between the networks is whole again.
    mended: Option<Instant>,
    /// When those who are on the network have heard where the others are.
    announced: Option<Instant>,
    next_change: Instant,
    next_trouble: Instant,
}

struct Change {
    dot: Dot,
    on: usize,
    bytes: u64,
    made: Instant,
}

impl Day {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let world = World::new(dice.split(), 2, Program::Node).await;
        let began = Instant::now();
        Self {
            seed,
            lasts: DAY,
            held: Vec::new(),
            world,
            dice,
            began,
            delays: Delays::default(),
            open: Vec::new(),
            up: Some(began),
            found_at: None,
            backlog: (0, 0),
            weather: Weather::FAIR,
            back: [None; 2],
            mended: None,
            announced: None,
            next_change: began + Duration::from_secs(10),
            next_trouble: began + Duration::from_secs(60),
        }
    }

    /// So many days on, with disks that never fail.
    async fn lasting(seed: u64, days: u32) -> Self {
        let day = Self::new(seed).await;
        day.world.replicas.iter().for_each(|replica| replica.disk.make_dependable());
        Self { lasts: DAY * days, ..day }
    }

    async fn run(mut self) -> Self {
        while self.began.elapsed() < self.lasts {
            let next = self
                .back
                .iter()
                .chain([&self.mended, &self.announced])
                .flatten()
                .copied()
                .fold(self.next_change.min(self.next_trouble), Instant::min);
            self.pass_until(next).await;
            let now = Instant::now();
            for number in 0..2 {
                if self.back[number].is_some_and(|back| back <= now) {
                    self.comes_back(number);
                }
            }
            if self.mended.is_some_and(|mended| mended <= now) {
                self.is_mended();
            }
            if self.announced.is_some_and(|announced| announced <= now) {
                self.announced = None;
                self.world.announce();
            }
            if self.next_change <= now {
                self.change();
            }
            if self.next_trouble <= now {
                self.trouble();
            }
            self.world.check().await;
            if self.began.elapsed() >= MONTH * self.held.len() as u32 {
                self.look_what_is_held();
            }
        }
        self.world.heal().await;
        self.look_what_is_held();
        self.world.check_end().await;
        self
    }

    /// Of one day nobody asks.
    fn look_what_is_held(&mut self) {
        if self.lasts > DAY {
            let held = Held::by(&self.world);
            eprintln!("{:?}: {held:?}", self.began.elapsed());
            self.held.push(held);
        }
    }

    /// Lets time pass, and notes when changes arrive.
    async fn pass_until(&mut self, until: Instant) {
        let stores = [0, 1].map(|number| self.world.replicas[number].vault().unwrap().store().clone());
        let mut grown = [0, 1].map(|number| stores[number].changes());
        loop {
            self.arrived();
            let [first, second] = &mut grown;
            let due = self.due();
            tokio::select! {
                biased;
                Ok(()) = first.changed() => {}
                Ok(()) = second.changed() => {}
                () = sleep_until(until.min(due.unwrap_or(until))) => {
                    self.arrived();
                    let late = due.is_some_and(|due| due <= Instant::now()) && self.due().is_some_and(|due| due <= Instant::now());
                    assert!(!late, "seed {}, {:?}: a change is not there {ALWAYS_WITHIN:?} after it could go", self.seed, self.began.elapsed());
                    if Instant::now() >= until {
                        return;
                    }
                }
            }
        }
    }

    /// When the oldest change must have arrived; none while the link is down.
    fn due(&self) -> Option<Instant> {
        let up = self.up?;
        self.open.iter().map(|change| change.made.max(up) + ALWAYS_WITHIN).min()
    }

    fn arrived(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let frontiers = [0, 1].map(|number| self.world.replicas[number].vault().unwrap().store().frontier());
        let now = Instant::now();
        let up = self.up;
        self.open
            .iter()
            .filter(|change| frontiers[1 - change.on].contains(&change.dot))
            .for_each(|change| tell(|| format!("change {} has arrived", change.dot.sequence)));
        let mut of_return = false;
        for change in self.open.extract_if(.., |change| frontiers[1 - change.on].contains(&change.dot)).collect::<Vec<_>>() {
            match up {
                Some(up) if up > change.made => {
                    of_return = true;
                    self.backlog = (self.backlog.0 + 1, self.backlog.1 + change.bytes);
                }
                // What was on its way when the link went away arrives all the same.
                Some(_) | None => {
                    self.delays.live.push(now - change.made);
                    self.tell_slow(now - change.made, (1, change.bytes));
                }
            }
        }
        if let Some(up) = up.filter(|_| of_return && self.found_at != up) {
            self.found_at = Some(up);
            self.delays.found.push(now - up);
        }
        if let Some(up) = up.filter(|up| of_return && self.open.iter().all(|change| change.made > *up)) {
            self.delays.returned.push(now - up);
            if self.backlog.1 <= LITTLE_BYTES {
                self.delays.returned_little.push(now - up);
            }
            self.tell_slow(now - up, self.backlog);
            self.backlog = (0, 0);
        }
    }

    /// Tells of each moment that is among the slowest.
    fn tell_slow(&self, delay: Duration, (changes, bytes): (u64, u64)) {
        if delay > MOSTLY_WITHIN {
            let found = self.found_at.map(|at| at.max(self.began) - self.began);
            let Weather { latency, jitter, lost, .. } = self.weather;
            let at = self.began.elapsed();
            eprintln!(
                "seed {}, {at:?}: {delay:?} for {changes} changes, {bytes} bytes ({latency:?} + {jitter:?}, {:.1} % lost; return {found:?})",
                self.seed,
                f64::from(lost) / 1e4
            );
        }
    }

    fn change(&mut self) {
        // Nobody types on a laptop that sleeps or has no network for long.
        let asleep = |number: usize| self.back[number].is_some_and(|back| back > Instant::now() + AWAY);
        let on = self.dice.index(2);
        let on = if asleep(on) { 1 - on } else { on };
        let bytes = match self.dice.below(100) {
            0..94 => self.dice.within(0..1_000),
            94..99 => self.dice.within(1_000..20_000),
            _ => self.dice.within(20_000..400_000),
        };
        self.world.put(on, bytes as usize).unwrap();
        let vault = self.world.replicas[on].vault().unwrap();
        let author = vault.info().replica;
        let dot = Dot { author, sequence: vault.store().frontier().sequence_of(&author) };
        tell(|| format!("change {} on laptop {on}", dot.sequence));
        self.open.push(Change { dot, on, bytes, made: Instant::now() });
        // Sometimes one after the other, mostly now and then.
        let pauses = [Duration::from_millis(50), Duration::from_secs(30), Duration::from_secs(900), Duration::from_secs(900)];
        let longest = pauses[self.dice.index(pauses.len())];
        self.next_change = Instant::now() + self.dice.between(Duration::ZERO..longest);
    }

    fn trouble(&mut self) {
        let number = self.dice.index(2);
        match self.dice.below(10) {
            // The Wi-Fi is gone for a moment, or for some minutes.
            0..3 => self.goes_away(number, Duration::from_millis(100)..Duration::from_secs(20)),
            // Somewhere between the two, and nobody is told.
            3..4 => self.is_cut(Duration::from_millis(100)..Duration::from_secs(60)),
            4..5 => self.goes_away(number, Duration::from_secs(20)..Duration::from_secs(600)),
            // Asleep.
            5..6 => self.goes_away(number, Duration::from_secs(600)..Duration::from_secs(5 * 3_600)),
            6..8 => self.moves(number),
            _ => self.weather(),
        }
        let pause = [Duration::from_secs(30), Duration::from_secs(600), Duration::from_secs(3_600)][self.dice.index(3)];
        self.next_trouble = Instant::now() + self.dice.between(Duration::ZERO..pause);
    }

    fn goes_away(&mut self, number: usize, range: std::ops::Range<Duration>) {
        let back = Instant::now() + self.dice.between(range);
        self.back[number] = self.back[number].max(Some(back));
        self.world.replicas[number].nic.plug(Plugged::Out);
        tell(|| format!("laptop {number} goes away until {:?}", back - self.began));
        self.up = None;
    }

    fn is_cut(&mut self, range: std::ops::Range<Duration>) {
        let mended = Instant::now() + self.dice.between(range);
        self.mended = self.mended.max(Some(mended));
        [(0, 1), (1, 0)].into_iter().for_each(|(from, to)| self.world.net.block(from, to));
        tell(|| format!("the path is cut until {:?}", mended - self.began));
        self.up = None;
    }

    fn is_mended(&mut self) {
        self.mended = None;
        self.world.net.unblock();
        tell(|| "the path is mended".into());
        self.link_may_be_up();
    }

    fn link_may_be_up(&mut self) {
        if self.back == [None; 2] && self.mended.is_none() {
            self.backlog = (0, 0);
            self.up = Some(Instant::now());
            self.announced = Some(Instant::now() + self.dice.between(ANNOUNCED_WITHIN));
        }
    }

    fn comes_back(&mut self, number: usize) {
        self.back[number] = None;
        if self.dice.hits(300_000) {
            self.world.replicas[number].nic.move_to(self.dice.below(200) as u8);
        }
        self.world.replicas[number].nic.plug(Plugged::In);
        tell(|| format!("laptop {number} is back"));
        self.link_may_be_up();
    }

    /// The same link with another address counts as a link that came back just now.
    fn moves(&mut self, number: usize) {
        self.world.replicas[number].nic.move_to(self.dice.below(200) as u8);
        tell(|| format!("laptop {number} moves to {}", self.world.replicas[number].nic.address()));
        self.link_may_be_up();
    }

    fn weather(&mut self) {
        self.weather = Weather {
            latency: self.dice.between(Duration::from_micros(500)..Duration::from_millis(asked("MIRROR_LATENCY_MS", LATENCY_MS_MAX))),
            jitter: self.dice.between(Duration::ZERO..Duration::from_millis(10)),
            lost: self.dice.below(50_001) as u32,
            ..Weather::FAIR
        };
        self.world.net.set_weather(self.weather.clone());
    }
}

impl Delays {
    fn join(&mut self, other: Self) {
        self.live.extend(other.live);
        self.returned.extend(other.returned);
        self.returned_little.extend(other.returned_little);
        self.found.extend(other.found);
    }

    /// Of all moments p99 counts. Of returns alone it is told: there it is the backlog that takes its time.
    fn hold(&mut self) {
        let mut all: Vec<Duration> = self.live.iter().chain(&self.returned).copied().collect();
        let p99 = told("all", &mut all);
        told("while up", &mut self.live);
        told("after a return, the first", &mut self.found);
        told("after a return, all", &mut self.returned);
        told("after a return, all of a little", &mut self.returned_little);
        assert!(all.len() < MOMENTS_MIN || p99 <= MOSTLY_WITHIN, "p99 {p99:?}");
    }
}

/// Tells the distribution of `delays`; returns its 99th percentile.
fn told(what: &str, delays: &mut [Duration]) -> Duration {
    delays.sort();
    let at = |percent: usize| delays.get((delays.len() * percent / 100).min(delays.len().saturating_sub(1))).copied().unwrap_or_default();
    eprintln!("{what}: {} times, p50 {:?}, p99 {:?}, most {:?}", delays.len(), at(50), at(99), at(100));
    at(99)
}

/// Plays days on all processors.
fn days(seeds: std::ops::Range<u64>) -> Delays {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let play_some = || {
        let mut delays = Delays::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return delays;
            }
            delays.join(play(seed, async { Day::new(seed).await.run().await.delays }));
        }
    };
    thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play_some)).collect();
        let mut delays = Delays::default();
        players.into_iter().for_each(|player| delays.join(player.join().unwrap()));
        delays
    })
}

/// Days of the tests that always run.
const FEW: u64 = 1;
/// Days of must-pass 4.
const MANY: u64 = 100;

#[test]
fn must_pass_4_two_laptops_are_equal_whenever_the_link_is_up() {
    days(0..FEW).hold();
}

/// `MIRROR_SEEDS` says how many, `MIRROR_FIRST_SEED` from which on.
#[test]
#[ignore = "minutes"]
fn must_pass_4_on_a_hundred_days() {
    let first = asked("MIRROR_FIRST_SEED", 0);
    days(first..first + asked("MIRROR_SEEDS", MANY)).hold();
}

#[test]
#[ignore = "the one that MIRROR_SEED says, to look into"]
fn one_day() {
    let seed = asked("MIRROR_SEED", 0);
    TOLD.store(true, Ordering::Relaxed);
    play(seed, async { Day::new(seed).await.run().await.delays }).hold();
}

/// `MIRROR_DAYS` says how many.
#[test]
#[ignore = "half an hour"]
fn a_year_of_two_laptops_leaves_nothing_behind() {
    let days = asked("MIRROR_DAYS", 365) as u32;
    let mut year = play(0, async { Day::lasting(asked("MIRROR_SEED", 0), days).await.run().await });
    year.delays.hold();
    held::stays(&year.held);
}
