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
        Arc, Mutex, OnceLock, PoisonError,
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
    transport: OnceLock<String>,
    /// Of the last half second or so; none before anything has moved for so long.
    stages: Mutex<Option<Shares>>,
    started: Instant,
    interrupt: Interrupt,
}

#[derive(Serialize)]
struct ProgressRecord<'a> {
    operation: &'a str,
    objects: u64,
    objects_total: u64,
    bytes: u64,
    bytes_total: u64,
    elapsed_ms: u64,
    rate_bits_per_s: u64,
    eta_ms: Option<u64>,
    transport: Option<&'a str>,
    limiting_stage: Option<&'static str>,
    stages: Option<StageShares>,
    #[serde(skip)]
    limiting: Option<Stage>,
}

impl Record for ProgressRecord<'_> {
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
            transport: OnceLock::new(),
            stages: Mutex::new(None),
            started: Instant::now(),
            interrupt,
        }
    }

    fn record(&self) -> ProgressRecord<'_> {
        let (bytes, bytes_total) = (self.bytes.load(Relaxed), self.bytes_total.load(Relaxed));
        let elapsed = self.started.elapsed();
        let bytes_per_s = bytes as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = bytes_total.saturating_sub(bytes) as f64;
        let stages = *self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let limiting = stages.map(|shares| shares.limiting());
        ProgressRecord {
            operation: self.operation,
            objects: self.items.load(Relaxed),
            objects_total: self.items_total.load(Relaxed),
            bytes,
            bytes_total,
            elapsed_ms: elapsed.as_millis() as u64,
            rate_bits_per_s: (bytes_per_s * 8.0) as u64,
            eta_ms: (bytes > 0 && bytes_total >= bytes).then(|| (left / bytes_per_s * 1000.0) as u64),
            transport: self.transport.get().map(String::as_str),
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
            // Only the first: a failover in mid-transfer is in the summary.
            P::Connected { transport, .. } => drop(self.transport.set(transport.to_string())),
            P::Total { chunks, bytes } => {
                self.items_total.store(chunks, Relaxed);
                self.bytes_total.store(bytes, Relaxed);
            }
            P::Stages(shares) => *self.stages.lock().unwrap_or_else(PoisonError::into_inner) = Some(shares),
            P::Received { chunks, bytes } | P::Sent { chunks, bytes } => self.advance(chunks, bytes),
            P::Live | P::PeerHolds { .. } | P::PeerApplied { .. } | P::Identical { .. } | P::Waiting { .. } => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
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
                let bar = talk.screen.add(ProgressBar::new(0).with_style(bar_style()));
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

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:24} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn draw(meter: &Meter, bar: &ProgressBar) {
    let record = meter.record();
    bar.set_length(record.bytes_total.max(record.bytes));
    bar.set_position(record.bytes);
    bar.set_message(message(&record, bar.per_sec(), bar.eta()));
}

/// What stands beside the bar; parts that are not known are left out.
fn message(record: &ProgressRecord<'_>, bytes_per_s: f64, eta: Duration) -> String {
    let of = |total: u64, text: String| if total > 0 { format!(" of {text}") } else { String::new() };
    let mut parts = vec![
        format!("{}{}", bytes_text(record.bytes), of(record.bytes_total, bytes_text(record.bytes_total))),
        format!("{}{} objects", record.objects, of(record.objects_total, record.objects_total.to_string())),
        rate_text(bytes_per_s * 8.0),
    ];
    if record.bytes_total > record.bytes && record.bytes > 0 {
        parts.push(format!("{} left", span_text(eta)));
    }
    parts.extend(record.transport.map(str::to_owned));
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
        let record = meter();
        let record = record.record();
        assert_eq!((record.eta_ms, record.transport), (None, None));
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

    #[test]
    fn a_record_is_one_json_line_with_its_type() {
        assert!(json_line(&meter().record()).starts_with(r#"{"type":"progress","operation":"push","objects":0"#));
    }
}
