//! Paths in virtual time, and what the choice ends on.

use super::*;
use crate::clock;

/// A path in virtual time: what each kind moves when it may, and what that costs.
struct Path {
    now: Sample,
    chooser: Chooser,
    pull: Pull,
    /// When each kind began to move what it moves now; it doubles from little until it moves all it can.
    began: [Option<Instant>; 2],
    /// Bytes a second of QUIC and TCP alone; together each gets its `share`.
    alone: (f64, f64),
    share: (f64, f64),
    /// CPU seconds for each byte.
    cost: (f64, f64),
    /// Of QUIC's packets, how many the path loses.
    loss: f64,
    /// TCP's sockets take bytes in lumps of so many.
    lump: f64,
    moved: (f64, f64),
    sent: f64,
    switches: u32,
}

const MB: f64 = 1e6;
const PACKET: f64 = 1_452.0;

fn path(rtt_ms: u64, quic_mb_s: f64, tcp_mb_s: f64) -> Path {
    let first = Sample {
        now: clock::now(),
        quic: 0,
        tcp: 0,
        cpu: Duration::ZERO,
        rtt: Duration::from_millis(rtt_ms),
        rtt_min: Duration::from_millis(rtt_ms).mul_f64(0.8),
        sent: 0,
        lost: 0,
        tcp_lanes: TcpLanes::Dialling,
        supply: Supply::Plenty,
        path: None,
    };
    Path {
        now: first,
        chooser: Chooser::new(first),
        pull: Pull::Neither,
        began: [None; 2],
        alone: (quic_mb_s * MB, tcp_mb_s * MB),
        share: (quic_mb_s * MB / 2.0, tcp_mb_s * MB / 2.0),
        cost: (3e-9, 1.5e-9),
        loss: 0.0,
        lump: 1.0,
        moved: (0.0, 0.0),
        sent: 0.0,
        switches: 0,
    }
}

impl Path {
    fn tcp_connects(mut self) -> Self {
        self.now.tcp_lanes = TcpLanes::Ready;
        self
    }

    /// Slow start: a sixty-fourth at first, twice as much each round trip.
    fn started(&mut self, carrier: Carrier) -> f64 {
        let began = &mut self.began[carrier as usize];
        if !self.pull.allows(carrier) {
            *began = None;
            return 0.0;
        }
        let passed = self.now.now.duration_since(*began.get_or_insert(self.now.now));
        let round_trips = passed.as_secs_f64() / self.now.rtt.as_secs_f64().max(1e-4);
        (round_trips.exp2() / 64.0).min(1.0)
    }

    fn step(&mut self) {
        let pull = self.chooser.step(self.now);
        self.switches += u32::from(pull != self.pull);
        self.pull = pull;
        let step = self.chooser.next_step();
        let (quic, tcp) = if self.pull == Pull::Both { self.share } else { self.alone };
        let seconds = step.as_secs_f64();
        let moved = (quic * self.started(Carrier::Quic) * seconds, tcp * self.started(Carrier::Tcp) * seconds);
        self.moved = (self.moved.0 + moved.0, self.moved.1 + moved.1);
        self.sent += moved.0 / PACKET / (1.0 - self.loss);
        (self.now.sent, self.now.lost) = (self.sent as u64, (self.sent * self.loss) as u64);
        self.now.cpu += Duration::from_secs_f64(moved.0 * self.cost.0 + moved.1 * self.cost.1);
        (self.now.quic, self.now.tcp) = (self.moved.0 as u64, ((self.moved.1 / self.lump).floor() * self.lump) as u64);
        self.now.now += step;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.now + time;
        while self.now.now < end {
            self.step();
        }
    }

    /// What it has settled on once all is measured.
    fn settled(&mut self) -> Carrier {
        self.run(Duration::from_secs(20));
        while matches!(self.chooser.phase, Phase::Looking(_)) {
            self.step();
        }
        self.step();
        match self.pull {
            Pull::Only(carrier) => carrier,
            other => panic!("{other:?}"),
        }
    }
}

/// Round trip in milliseconds, loss, MB/s alone of QUIC and TCP, and what it ends on.
#[test]
fn it_ends_on_what_suits_the_path() {
    let (quic, tcp) = (Carrier::Quic, Carrier::Tcp);
    let cases = [
        (0, 0.0, 600.0, 2_100.0, tcp, "a fast near link"),
        (2, 0.0, 117.0, 119.0, tcp, "a clean link that both fill"),
        (10, 0.0, 600.0, 1_200.0, tcp, "a fast clean link"),
        (100, 0.0, 12.0, 11.8, tcp, "a long clean link that both fill"),
        (100, 0.0, 100.0, 58.0, quic, "a long clean link that TCP's buffers do not fill"),
        (100, 0.01, 11.5, 10.0, quic, "a long lossy link that TCP nearly fills"),
        (100, 0.01, 11.5, 11.9, quic, "a long lossy link that both fill"),
        (100, 0.01, 11.5, 0.3, quic, "a long lossy link on which TCP collapses"),
        (50, 0.2, 1.0, 11.0, tcp, "a link that lets only little UDP pass"),
        (50, 0.0, 1.0, 11.0, tcp, "a link that holds UDP back"),
    ];
    for (rtt_ms, loss, quic, tcp, ends_on, what) in cases {
        for lump in [1.0, 1.4 * MB] {
            let mut path = path(rtt_ms, quic, tcp).tcp_connects();
            (path.loss, path.lump) = (loss, lump);
            assert_eq!(path.settled(), ends_on, "{what}, lumps of {lump}");
        }
    }
}

#[test]
fn where_the_path_itself_loses_packets_quic_is_not_disturbed_by_a_trial_for_long() {
    let mut path = path(100, 11.5, 11.9).tcp_connects();
    path.loss = 0.01;
    path.run(Duration::from_secs(14));
    assert_eq!(path.now.tcp, 0);
    assert_eq!(path.chooser.reason(), "the path itself loses packets");
}

#[test]
fn a_lossy_path_on_which_tcp_is_clearly_better_ends_on_it_after_a_while() {
    let mut path = path(100, 5.0, 11.0).tcp_connects();
    path.loss = 0.01;
    path.run(Duration::from_secs(10));
    assert_eq!(path.pull, Pull::Only(Carrier::Quic));
    assert_eq!(path.settled(), Carrier::Tcp);
}

#[test]
fn a_lossy_path_that_quic_has_never_filled_is_tried_at_once() {
    let mut path = path(100, 5.0, 11.0).tcp_connects();
    (path.loss, path.now.rtt_min) = (0.01, path.now.rtt);
    path.run(Duration::from_secs(8));
    assert_eq!(path.pull, Pull::Only(Carrier::Tcp));
}

#[test]
fn a_path_that_loses_nothing_any_more_is_looked_at() {
    let mut path = path(100, 11.0, 11.0).tcp_connects();
    path.loss = 0.01;
    path.run(Duration::from_secs(8));
    assert_eq!(path.pull, Pull::Only(Carrier::Quic));
    path.loss = 0.0;
    assert_eq!(path.settled(), Carrier::Tcp);
}

#[test]
fn two_that_are_nearly_as_fast_are_not_changed_for_each_other_again_and_again() {
    for better in [0.85, 0.95, 1.05, 1.18] {
        let mut path = path(50, 10.0, 10.0).tcp_connects();
        for minute in 0..30 {
            let wobble = if minute % 2 == 0 { better } else { 1.0 / better };
            path.alone.1 = 10.0 * MB * wobble;
            path.run(Duration::from_secs(60));
        }
        assert!(path.switches < 40, "{better}: {}", path.switches);
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
    assert!(path.now.quic as f64 > 0.93 * 20.0 * 10.0 * MB, "but for its start");
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
