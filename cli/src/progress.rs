//! How far a long operation is: a bar on a terminal, JSON lines for programs, or nothing.
//!
//! Workers only add to counters ([`Meter`]); one thread of ours looks at them a few times a second and draws. So a million
//! small objects cost a million additions, not a million drawings.

use crate::{
    config::ProgressPlace,
    interrupt::Interrupt,
    render::{Output, Record, StageShares, Talk, bytes_text, json_line, rate_text, span_text, stage_text},
};
use indicatif::{ProgressBar, ProgressStyle};
use mirror_engine::{
    meter::{Shares, Stage},
    replicate,
    vault::Watch,
};
use serde::Serialize;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const JSON_INTERVAL: Duration = Duration::from_millis(500);

/// What workers count up, and where they ask whether to stop.
#[derive(Debug)]
pub(crate) struct Meter {
    operation: &'static str,
    items: AtomicU64,
    items_total: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    course: Mutex<Course>,
    started: Instant,
    interrupt: Interrupt,
}

/// What is known of the connection that is up, or of the last one.
///
/// A sender counts what it hands to the transport. Of what was on its way when a connection broke it learns only by what the peer asks for over
/// the next one: more than had not been sent yet. So much is taken back.
#[derive(Debug, Default)]
struct Course {
    transport: Option<String>,
    /// Of the last half second or so; none before anything has moved for so long.
    stages: Option<Shares>,
    /// Over all connections.
    moved: Amount,
    /// Of that, when this one came up: what is still to come counts on top of it.
    before: Amount,
    to_receive: Amount,
    to_send: Amount,
    /// Over this connection, and what of it the peer is known to have.
    sent: Amount,
    settled: Amount,
    /// Sent over the connection before, and perhaps lost with it.
    in_doubt: Amount,
    /// To be sent when that broke.
    unsent: Amount,
    /// Taken back for earlier connections.
    taken_back: Amount,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    items: u64,
    bytes: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        Self { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn at_most(self, other: Self) -> Self {
        Self { items: self.items.min(other.items), bytes: self.bytes.min(other.bytes) }
    }
}

impl Course {
    /// Another connection is up.
    fn connect(&mut self, transport: String) {
        let repeated = self.repeated();
        let moved = self.moved.minus(repeated);
        let (in_doubt, unsent) = match self.to_send {
            // It broke before the peer had said what it lacks.
            asked if asked == Amount::default() => (self.in_doubt, self.unsent),
            asked => (self.sent.minus(self.settled), asked.minus(self.sent)),
        };
        let taken_back = self.taken_back.plus(repeated);
        *self = Self { transport: Some(transport), moved, before: moved, in_doubt, unsent, taken_back, ..Self::default() };
    }

    fn passed(&mut self, amount: Amount) {
        self.moved = self.moved.plus(amount);
    }

    /// What this connection sends a second time.
    fn repeated(&self) -> Amount {
        self.to_send.minus(self.unsent).at_most(self.in_doubt)
    }

    /// In all, over this connection and those before it.
    fn total(&self) -> Amount {
        self.before.minus(self.repeated()).plus(self.to_receive).plus(self.to_send)
    }
}

#[derive(Serialize)]
struct ProgressRecord {
    operation: &'static str,
    objects: u64,
    objects_total: u64,
    bytes: u64,
    bytes_total: u64,
    elapsed_ms: u64,
    rate_bits_per_s: u64,
    eta_ms: Option<u64>,
    transport: Option<String>,
    limiting_stage: Option<&'static str>,
    stages: Option<StageShares>,
    #[serde(skip)]
    limiting: Option<Stage>,
}

impl Record for ProgressRecord {
    const TYPE: &'static str = "progress";
}

impl Meter {
    fn new(operation: &'static str, interrupt: Interrupt) -> Self {
        Self {
            operation,
            items: AtomicU64::new(0),
            items_total: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            course: Mutex::default(),
            started: Instant::now(),
            interrupt,
        }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> ProgressRecord {
        let course = self.course();
        let counted = Amount { items: self.items.load(Relaxed), bytes: self.bytes.load(Relaxed) };
        let expected = Amount { items: self.items_total.load(Relaxed), bytes: self.bytes_total.load(Relaxed) };
        let total = course.total().plus(expected);
        let counted = counted.minus(course.taken_back.plus(course.repeated()));
        // What a peer lacks of a list is reckoned by the mean of its chunks: the sum may be off by a part of one.
        let Amount { items, bytes } = if course.in_doubt == Amount::default() { counted } else { counted.at_most(total) };
        let bytes_total = total.bytes;
        let elapsed = self.started.elapsed();
        let bytes_per_s = bytes as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = bytes_total.saturating_sub(bytes) as f64;
        let stages = course.stages;
        let limiting = stages.map(|shares| shares.limiting());
        ProgressRecord {
            operation: self.operation,
            objects: items,
            objects_total: total.items,
            bytes,
            bytes_total,
            elapsed_ms: elapsed.as_millis() as u64,
            rate_bits_per_s: (bytes_per_s * 8.0) as u64,
            eta_ms: (bytes > 0 && bytes_total >= bytes && bytes_total > 0).then(|| (left / bytes_per_s * 1000.0) as u64),
            transport: course.transport.clone(),
            limiting_stage: limiting.map(Stage::name),
            stages: stages.map(StageShares),
            limiting,
        }
    }
}

impl Watch for Meter {
    fn advance(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn expect(&self, items: u64, bytes: u64) {
        self.items_total.fetch_add(items, Relaxed);
        self.bytes_total.fetch_add(bytes, Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }
}

impl replicate::Observer for Meter {
    fn progress(&self, progress: replicate::Progress) {
        use replicate::Progress as P;
        match progress {
            P::Connected { transport, .. } => self.course().connect(transport.to_string()),
            P::Total { chunks, bytes } => self.course().to_receive = Amount { items: chunks, bytes },
            P::ToSend { chunks, bytes } => self.course().to_send = Amount { items: chunks, bytes },
            P::Stages(shares) => self.course().stages = Some(shares),
            P::Received { chunks, bytes } => {
                self.course().passed(Amount { items: chunks, bytes });
                self.advance(chunks, bytes);
            }
            P::Sent { chunks, bytes } => {
                let (amount, mut course) = (Amount { items: chunks, bytes }, self.course());
                course.sent = course.sent.plus(amount);
                course.passed(amount);
                drop(course);
                self.advance(chunks, bytes);
            }
            P::Identical { .. } => {
                let mut course = self.course();
                course.settled = course.sent;
            }
            // Nothing limits what stands still.
            P::Waiting { .. } => self.course().stages = None,
            P::Live | P::Silent | P::Heard | P::PeerHolds { .. } | P::PeerApplied { .. } => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }
}

/// Several sessions at once, as a server has them. What has moved adds up; what one of them still expects, and what limits it, says nothing
/// of the others.
#[derive(Debug)]
pub(crate) struct Several(pub(crate) Arc<Meter>);

impl replicate::Observer for Several {
    fn progress(&self, progress: replicate::Progress) {
        if let replicate::Progress::Received { .. } | replicate::Progress::Sent { .. } = progress {
            replicate::Observer::progress(&*self.0, progress);
        }
    }

    fn cancelled(&self) -> bool {
        replicate::Observer::cancelled(&*self.0)
    }
}

/// A meter and the thread that shows it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    meter: Arc<Meter>,
    /// Dropping the sender tells the thread to end.
    thread: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
}

impl Progress {
    /// Counts, and shows it at `place`. Without a thread to spare nothing is shown.
    pub(crate) fn start(operation: &'static str, place: ProgressPlace, output: &Arc<Output>, talk: &Talk, interrupt: Interrupt) -> Self {
        let meter = Arc::new(Meter::new(operation, interrupt));
        let (stop, stopped) = mpsc::channel();
        let shown = Arc::clone(&meter);
        let spawned = match place {
            ProgressPlace::Nowhere => return Self { meter, thread: None },
            ProgressPlace::JsonLines => {
                let output = Arc::clone(output);
                thread::Builder::new().spawn(move || every(JSON_INTERVAL, &stopped, || print(&shown, &output)))
            }
            ProgressPlace::Terminal => {
                let bar = talk.screen.add(ProgressBar::new(0));
                thread::Builder::new().spawn(move || {
                    every(BAR_INTERVAL, &stopped, || draw(&shown, &bar));
                    bar.finish_and_clear();
                })
            }
        };
        Self { meter, thread: spawned.ok().map(|handle| (stop, handle)) }
    }

    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, handle)) = self.thread.take() {
            drop(stop);
            drop(handle.join());
        }
    }
}

fn every(interval: Duration, stopped: &mpsc::Receiver<()>, mut show: impl FnMut()) {
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        show();
    }
}

/// A stdout that fails is noticed by the command when it prints its result.
fn print(meter: &Meter, output: &Output) {
    drop(output.line(&json_line(&meter.record())).and_then(|()| output.flush()));
}

/// A bar needs an end.
fn style(record: &ProgressRecord) -> ProgressStyle {
    let template = if record.bytes_total > 0 { "{bar:24} {msg}" } else { "{msg}" };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn draw(meter: &Meter, bar: &ProgressBar) {
    let record = meter.record();
    bar.set_style(style(&record));
    bar.set_length(record.bytes_total.max(record.bytes));
    bar.set_position(record.bytes);
    bar.set_message(message(&record, bar.per_sec(), bar.eta()));
}

/// What stands beside the bar; parts that are not known are left out.
fn message(record: &ProgressRecord, bytes_per_s: f64, eta: Duration) -> String {
    let of = |total: u64, text: String| if total > 0 { format!(" of {text}") } else { String::new() };
    let mut parts = vec![
        format!("{}{}", bytes_text(record.bytes), of(record.bytes_total, bytes_text(record.bytes_total))),
        format!("{}{} objects", record.objects, of(record.objects_total, record.objects_total.to_string())),
        rate_text(bytes_per_s * 8.0),
    ];
    if record.bytes_total > record.bytes && record.bytes > 0 {
        parts.push(format!("{} left", span_text(eta)));
    }
    parts.extend(record.transport.clone());
    parts.extend(record.limiting.map(|stage| format!("limited by {}", stage_text(stage))));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter::new("push", Interrupt::default())
    }

    #[test]
    fn counters_and_expectations_add_up() {
        let meter = meter();
        meter.expect(2, 10);
        meter.expect(2, 90);
        meter.advance(1, 30);
        meter.advance(1, 20);
        let record = meter.record();
        assert_eq!((record.objects, record.objects_total, record.bytes, record.bytes_total), (2, 4, 50, 100));
        assert!(record.eta_ms.is_some());
    }

    #[test]
    fn nothing_is_promised_before_anything_has_moved() {
        let record = meter().record();
        assert_eq!((record.eta_ms, &record.transport), (None, &None));
        assert_eq!(message(&record, 0.0, Duration::ZERO), "0 B · 0 objects · 0 bit/s (0 B/s)");
    }

    #[test]
    fn a_message_says_how_much_how_fast_how_long_and_over_what() {
        let meter = meter();
        meter.expect(4, 4 << 20);
        meter.advance(1, 1 << 20);
        let connected = replicate::Progress::Connected { transport: mirror_engine::transport::TransportKind::Quic, address: None };
        replicate::Observer::progress(&meter, connected);
        let text = message(&meter.record(), 1e6, Duration::from_secs(3));
        assert_eq!(text, "1.0 MiB of 4.0 MiB · 1 of 4 objects · 8.0 Mbit/s (1.0 MB/s) · 3.0 s left · quic");
    }

    #[test]
    fn what_limits_is_said_once_it_is_known() {
        let meter = meter();
        assert!(json_line(&meter.record()).contains(r#""limiting_stage":null,"stages":null"#));
        let reading = mirror_engine::meter::Load { elapsed_us: 10, read_us: 9, ..Default::default() };
        let shares = Shares::of(&reading, &Default::default());
        replicate::Observer::progress(&meter, replicate::Progress::Stages(shares));
        assert!(json_line(&meter.record()).contains(r#""limiting_stage":"read","stages":{"read":0.9,"#));
        assert!(message(&meter.record(), 0.0, Duration::ZERO).ends_with(" · limited by reading at the sender (disk)"));
    }

    fn told(meter: &Meter, progress: replicate::Progress) {
        replicate::Observer::progress(meter, progress);
    }

    fn connected(meter: &Meter, transport: mirror_engine::transport::TransportKind) {
        told(meter, replicate::Progress::Connected { transport, address: None });
    }

    #[test]
    fn what_is_to_come_counts_on_top_of_what_connections_before_have_moved() {
        use mirror_engine::transport::TransportKind::{Quic, Tcp};
        use replicate::Progress as P;
        let meter = meter();
        connected(&meter, Quic);
        told(&meter, P::Total { chunks: 10, bytes: 100 });
        told(&meter, P::Received { chunks: 4, bytes: 40 });
        connected(&meter, Tcp);
        let broken = meter.record();
        assert_eq!((broken.bytes, broken.bytes_total, broken.transport.as_deref()), (40, 40, Some("tcp")), "until the peer is heard");
        told(&meter, P::Total { chunks: 6, bytes: 60 });
        told(&meter, P::Received { chunks: 6, bytes: 60 });
        let done = meter.record();
        assert_eq!((done.objects, done.objects_total, done.bytes, done.bytes_total), (10, 10, 100, 100));
    }

    #[test]
    fn what_was_on_its_way_when_a_connection_broke_counts_once() {
        use mirror_engine::transport::TransportKind::{Quic, Tcp};
        use replicate::Progress as P;
        let meter = meter();
        let shown = || (meter.record().objects, meter.record().bytes, meter.record().bytes_total);
        connected(&meter, Quic);
        told(&meter, P::ToSend { chunks: 10, bytes: 100 });
        told(&meter, P::Sent { chunks: 6, bytes: 60 });
        connected(&meter, Tcp);
        assert_eq!(shown(), (6, 60, 60), "until the peer is heard");
        // Two of the six were lost, and it does not ask for everything at once.
        told(&meter, P::ToSend { chunks: 2, bytes: 20 });
        assert_eq!(shown(), (6, 60, 80));
        told(&meter, P::ToSend { chunks: 6, bytes: 60 });
        assert_eq!(shown(), (4, 40, 100));
        told(&meter, P::Sent { chunks: 5, bytes: 50 });
        // Broken once more, and then once more before anything was said: one chunk of the five was lost.
        connected(&meter, Quic);
        connected(&meter, Tcp);
        told(&meter, P::ToSend { chunks: 2, bytes: 20 });
        assert_eq!(shown(), (8, 80, 100));
        told(&meter, P::Sent { chunks: 2, bytes: 20 });
        assert_eq!(shown(), (10, 100, 100));
    }

    #[test]
    fn what_the_peer_is_known_to_have_is_not_taken_back() {
        use mirror_engine::transport::TransportKind::Tcp;
        use replicate::Progress as P;
        let meter = meter();
        connected(&meter, Tcp);
        told(&meter, P::ToSend { chunks: 10, bytes: 100 });
        told(&meter, P::Sent { chunks: 10, bytes: 100 });
        told(&meter, P::Identical { root: mirror_engine::id::Root::from_bytes([1; 32]) });
        connected(&meter, Tcp);
        told(&meter, P::ToSend { chunks: 3, bytes: 30 });
        let record = meter.record();
        assert_eq!((record.bytes, record.bytes_total), (100, 130), "those are new");
    }

    #[test]
    fn both_ways_have_their_totals() {
        use replicate::Progress as P;
        let meter = meter();
        connected(&meter, mirror_engine::transport::TransportKind::Tcp);
        told(&meter, P::ToSend { chunks: 1, bytes: 10 });
        told(&meter, P::Total { chunks: 2, bytes: 20 });
        told(&meter, P::ToSend { chunks: 3, bytes: 30 });
        told(&meter, P::Sent { chunks: 1, bytes: 10 });
        let record = meter.record();
        assert_eq!((record.objects, record.objects_total, record.bytes, record.bytes_total), (1, 5, 10, 50));
    }

    #[test]
    fn a_server_adds_up_what_moves_and_promises_nothing() {
        use replicate::{Observer, Progress as P};
        let meter = Arc::new(meter());
        let several = Several(Arc::clone(&meter));
        several.progress(P::Total { chunks: 2, bytes: 20 });
        several.progress(P::Received { chunks: 1, bytes: 10 });
        several.progress(P::ToSend { chunks: 9, bytes: 90 });
        several.progress(P::Sent { chunks: 1, bytes: 5 });
        let record = meter.record();
        assert_eq!((record.bytes, record.bytes_total, record.eta_ms), (15, 0, None));
    }

    /// What a terminal of 100 columns shows.
    fn drawn(meter: &Meter) -> String {
        let terminal = indicatif::InMemoryTerm::new(3, 100);
        let bar = ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        draw(meter, &bar);
        bar.tick();
        terminal.contents()
    }

    #[test]
    fn a_bar_fills_up_to_its_end_and_without_an_end_there_is_none() {
        let unknown = meter();
        unknown.advance(1, 1 << 20);
        assert!(drawn(&unknown).starts_with("1.0 MiB · 1 objects"), "{}", drawn(&unknown));
        unknown.expect(4, 4 << 20);
        let shown = drawn(&unknown);
        let (bar, text) = shown.split_at(shown.find(' ').unwrap());
        assert_eq!(bar.chars().filter(|sign| *sign == '█').count(), 6, "a quarter of 24: {shown}");
        assert!(text.contains("1.0 MiB of 4.0 MiB · 1 of 4 objects"), "{shown}");
    }

    #[test]
    fn a_record_is_one_json_line_with_its_type() {
        assert!(json_line(&meter().record()).starts_with(r#"{"type":"progress","operation":"push","objects":0"#));
    }
}
