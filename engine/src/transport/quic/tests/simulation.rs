//! Congestion control on a simulated path: a line of fixed rate with a queue that drops what does not fit, a fixed delay, and packets
//! that get lost by dice. Time is virtual and the dice have a seed, so a run has one outcome.

use super::super::adaptive::{Acked, Adaptive, Demand, Loss};
use crate::clock;
use quinn::congestion::Controller;
use std::{
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

const PACKET: u64 = 1_452;
/// Packets after which one that is missing counts as lost, as endpoints are set up.
const REORDER: u64 = 32;

/// A path, and how long is looked at it.
#[derive(Clone, Copy)]
struct Scene {
    mbit: f64,
    round_trip: Duration,
    queue: u64,
    loss_percent: f64,
    /// Of each packet by itself: some overtake others.
    jitter: Duration,
    run: Duration,
}

struct Packet {
    number: u64,
    sent: Instant,
    arrives: bool,
}

/// One flow: what is in flight, in order, and what came through in the second half of the run.
struct Flow {
    control: Adaptive,
    joins: Instant,
    next: u64,
    in_flight: VecDeque<Packet>,
    /// When the next packet may be sent, by quinn's pacer: 5/4 of a window each round trip.
    paced: Instant,
    smoothed: Duration,
    delivered: u64,
    dropped: u64,
}

/// What happens next; the earliest is the greatest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: std::cmp::Reverse<Instant>,
    flow: usize,
    number: std::cmp::Reverse<u64>,
}

struct World {
    scene: Scene,
    began: Instant,
    now: Instant,
    flows: Vec<Flow>,
    events: BinaryHeap<Event>,
    /// When the line will have sent all that is queued.
    line_free: Instant,
    dice: u64,
}

impl World {
    fn new(scene: Scene, joins: &[Duration]) -> Self {
        let began = clock::now();
        let flows = joins.iter().map(|after| Flow::new(began + *after, scene.round_trip)).collect();
        Self { scene, began, now: began, flows, events: BinaryHeap::new(), line_free: began, dice: 7 }
    }

    fn roll(&mut self) -> f64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts a packet on the line; it arrives, and its acknowledgement comes back, unless queue or dice say otherwise.
    fn send(&mut self, flow: usize) {
        let per_packet = Duration::from_secs_f64(PACKET as f64 * 8.0 / (self.scene.mbit * 1e6));
        let waits = self.line_free.saturating_duration_since(self.now);
        let queued = (waits.as_secs_f64() / per_packet.as_secs_f64()) as u64 * PACKET;
        let fits = queued + PACKET <= self.scene.queue;
        if fits {
            self.line_free = self.line_free.max(self.now) + per_packet;
        }
        let arrives = fits && self.roll() * 100.0 >= self.scene.loss_percent;
        let delayed = if self.scene.jitter.is_zero() { Duration::ZERO } else { self.scene.jitter.mul_f64(self.roll()) };
        let sender = &mut self.flows[flow];
        let packet = Packet { number: sender.next, sent: self.now, arrives };
        if arrives {
            let at = std::cmp::Reverse(self.line_free + self.scene.round_trip + delayed);
            self.events.push(Event { at, flow, number: std::cmp::Reverse(packet.number) });
        }
        sender.dropped += u64::from(!fits);
        sender.next += 1;
        sender.in_flight.push_back(packet);
        let pace = sender.smoothed.as_secs_f64() * PACKET as f64 / (1.25 * sender.control.window() as f64);
        sender.paced = sender.paced.max(self.now) + Duration::from_secs_f64(pace);
    }

    fn acknowledge(&mut self, flow: usize, number: u64) {
        let counted = self.now >= self.began + self.scene.run / 2;
        let sender = &mut self.flows[flow];
        let lost_until = number.saturating_sub(REORDER);
        let mut lost = (0, self.began);
        sender.in_flight.retain(|packet| {
            let gone = !packet.arrives && packet.number <= lost_until;
            lost = if gone { (lost.0 + PACKET, packet.sent) } else { lost };
            !gone
        });
        if let Some(at) = sender.in_flight.iter().position(|packet| packet.number == number) {
            let packet = sender.in_flight.remove(at).unwrap();
            let trip = self.now - packet.sent;
            sender.smoothed = sender.smoothed.mul_f64(0.875) + trip.mul_f64(0.125);
            sender.delivered += u64::from(counted) * PACKET;
            sender.control.acked(Acked { now: self.now, sent: packet.sent, bytes: PACKET, demand: Demand::Network });
        }
        if lost.0 > 0 {
            sender.control.lost(self.now, lost.1, Loss::Bytes(lost.0));
        }
    }

    /// The next moment at which a flow whose window is open may send.
    fn next_send(&self) -> Option<(Instant, usize)> {
        let open = |flow: &Flow| (flow.in_flight.len() as u64 + 1) * PACKET <= flow.control.window();
        let ready = self.flows.iter().enumerate().filter(|(_, flow)| open(flow));
        ready.map(|(index, flow)| (flow.paced.max(flow.joins).max(self.now), index)).min()
    }

    fn run(mut self) -> Vec<Flow> {
        let end = self.began + self.scene.run;
        while self.now < end {
            let acknowledged = self.events.peek().map(|event| event.at.0);
            match (self.next_send(), acknowledged) {
                (Some((at, flow)), next) if next.is_none_or(|next| at < next) => {
                    self.now = at;
                    self.send(flow);
                }
                (_, Some(at)) => {
                    self.now = at;
                    let event = self.events.pop().unwrap();
                    self.acknowledge(event.flow, event.number.0);
                }
                _ => break,
            }
        }
        self.flows
    }
}

impl Flow {
    fn new(joins: Instant, round_trip: Duration) -> Self {
        Self {
            control: Adaptive::new(joins, PACKET as u16),
            joins,
            next: 0,
            in_flight: VecDeque::new(),
            paced: joins,
            smoothed: round_trip,
            delivered: 0,
            dropped: 0,
        }
    }
}

/// Share of the line that each flow got in the second half.
fn shares(scene: Scene, joins: &[Duration]) -> Vec<f64> {
    let whole = scene.mbit * 1e6 / 8.0 * scene.run.as_secs_f64() / 2.0;
    World::new(scene, joins).run().iter().map(|flow| flow.delivered as f64 / whole).collect()
}

const fn scene(mbit: f64, round_trip_ms: u64, queue_kb: u64, loss_percent: f64) -> Scene {
    let (round_trip, run) = (Duration::from_millis(round_trip_ms), Duration::from_secs(20));
    Scene { mbit, round_trip, queue: queue_kb * 1_000, loss_percent, jitter: Duration::ZERO, run }
}

#[test]
fn loss_of_the_path_itself_does_not_cost_the_rate() {
    for (loss, least) in [(0.1, 0.93), (1.0, 0.9), (2.0, 0.85)] {
        let share = shares(scene(20.0, 100, 250, loss), &[Duration::ZERO])[0];
        assert!(share > least, "{loss} % loss: {share:.3} of the line");
    }
}

#[test]
fn nor_does_loss_with_jitter() {
    for round_trip in [40, 120] {
        let scene = Scene { jitter: Duration::from_millis(15), run: Duration::from_secs(8), ..scene(20.0, round_trip, 250, 4.0) };
        let share = shares(scene, &[Duration::ZERO])[0];
        assert!(share > 0.3, "{round_trip} ms: {share:.3} of the line");
    }
}

#[test]
fn a_few_of_the_first_packets_are_no_share() {
    let now = clock::now();
    let mut control = Adaptive::new(now, PACKET as u16);
    let before = control.window();
    (0..20).for_each(|_| control.acked(Acked { now, sent: now, bytes: PACKET, demand: Demand::Application }));
    control.lost(now, now, Loss::Bytes(3 * PACKET));
    assert_eq!(control.window(), before, "3 of 23");
    control.lost(now + Duration::from_millis(60), now + Duration::from_millis(1), Loss::Bytes(10 * PACKET));
    let after = control.window();
    assert_eq!(after, (before as f64 * 0.7) as u64, "13 of 33");
    control.lost(now + Duration::from_millis(200), now + Duration::from_millis(100), Loss::Bytes(2 * PACKET));
    assert_eq!(control.window(), after, "what was judged is judged once");
}

#[test]
fn what_is_lost_before_the_peer_can_have_the_keys_is_no_congestion() {
    let (began, trip) = (clock::now(), Duration::from_millis(60));
    let mut control = Adaptive::new(began, PACKET as u16);
    control.acked(Acked { now: began + trip, sent: began, bytes: PACKET, demand: Demand::Network });
    let before = control.window();
    control.lost(began + 3 * trip, began + trip, Loss::Bytes(20 * PACKET));
    assert_eq!(control.window(), before);
    control.lost(began + 4 * trip, began + 2 * trip, Loss::Bytes(20 * PACKET));
    assert!(control.window() < before);
}

#[test]
fn a_path_that_was_not_filled_for_long_is_a_new_one() {
    let began = clock::now();
    let mut control = Adaptive::new(began, PACKET as u16);
    let fresh = control.window();
    control.lost(began, began, Loss::Everything);
    let at = |s: u64, trip_ms: u64| {
        let sent = began + Duration::from_secs(s);
        Acked { now: sent + Duration::from_millis(trip_ms), sent, bytes: PACKET, demand: Demand::Application }
    };
    control.acked(at(9, 5));
    assert_eq!(control.window(), 4 * PACKET);
    control.acked(at(11, 150));
    assert_eq!(control.window(), fresh);
    // The route is longer by now. Once nothing of before it is left, that is no queue.
    (22..45).for_each(|s| control.acked(at(s, 150)));
    (0..40).for_each(|_| control.acked(Acked { demand: Demand::Network, ..at(45, 150) }));
    assert_eq!(control.window(), fresh + 40 * PACKET, "slow start goes on");
}

#[test]
fn a_window_that_is_used_stays_whatever_limits() {
    let began = clock::now();
    let mut control = Adaptive::new(began, PACKET as u16);
    let used = control.window();
    for round in 0..200 {
        let sent = began + round * Duration::from_millis(100);
        let now = sent + Duration::from_millis(100);
        (0..used / PACKET / 2).for_each(|_| control.acked(Acked { now, sent, bytes: PACKET, demand: Demand::Application }));
    }
    control.lost(began + Duration::from_secs(20), began + Duration::from_secs(20), Loss::Everything);
    control.acked(Acked {
        now: began + Duration::from_secs(21),
        sent: began + Duration::from_millis(20_900),
        bytes: PACKET,
        demand: Demand::Application,
    });
    assert_eq!(control.window(), 4 * PACKET, "twenty seconds at half the window were no rest");
}

#[test]
fn a_clean_path_is_filled_with_any_queue() {
    for queue in [50, 125, 250, 1_000] {
        let share = shares(scene(20.0, 100, queue, 0.0), &[Duration::ZERO])[0];
        assert!(share > 0.85, "a queue of {queue} kB: {share:.3} of the line");
    }
}

#[test]
fn little_is_dropped_by_a_queue() {
    let flows = World::new(scene(20.0, 100, 250, 1.0), &[Duration::ZERO]).run();
    let share = flows[0].dropped as f64 / flows[0].next as f64;
    assert!(share < 0.01, "{:.2} % dropped", share * 100.0);
}

#[test]
fn two_flows_share_a_line_with_and_without_loss() {
    for loss in [0.0, 1.0] {
        let mut scene = scene(20.0, 40, 100, loss);
        scene.run = Duration::from_secs(60);
        let got = shares(scene, &[Duration::ZERO, Duration::from_secs(5)]);
        let (least, most) = (got[0].min(got[1]), got[0].max(got[1]));
        assert!(most / least < 2.0 && least + most > 0.85, "{loss} % loss: {got:.3?}");
    }
}

#[test]
fn heavy_loss_is_congestion_even_without_a_queue() {
    let share = shares(scene(20.0, 100, 250, 15.0), &[Duration::ZERO])[0];
    assert!(share < 0.3, "{share:.3} of a line that loses every seventh packet");
}

#[test]
fn silence_starts_over_from_the_smallest_window() {
    let now = clock::now();
    let mut control = Adaptive::new(now, PACKET as u16);
    control.lost(now, now, Loss::Everything);
    assert_eq!(control.window(), 4 * PACKET);
    control.acked(Acked {
        now: now + Duration::from_millis(20),
        sent: now + Duration::from_millis(10),
        bytes: PACKET,
        demand: Demand::Network,
    });
    assert_eq!(control.window(), 5 * PACKET);
}

#[test]
fn a_mark_of_the_network_is_congestion() {
    let now = clock::now();
    let mut control = Adaptive::new(now, PACKET as u16);
    let before = control.window();
    control.lost(now, now, Loss::Marked);
    assert_eq!(control.window(), (before as f64 * 0.7) as u64);
}
