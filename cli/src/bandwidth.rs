//! Bandwidth limits by the clock on the wall: set at the start, and switched while a transfer runs.
//!
//! The clock is looked at every minute, when it changes, instead of waiting for the next entry: a machine that slept, or whose clock or
//! time zone was changed, keeps to the timetable again within a minute.

use crate::{
    args::{Bandwidth, BandwidthLimit, Minute, Timetable},
    render::{Talk, rate_text},
};
use jiff::Zoned;
use mirror_engine::replicate::Limits;
use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Limits as they are now, for those who share them, and what keeps them to the timetable until it is dropped.
pub(crate) struct Kept {
    pub(crate) limits: Arc<Limits>,
    _switching: Option<Switching>,
}

/// Keeps limits to a timetable. Once it is dropped nothing is switched any more.
#[derive(Debug)]
pub(crate) struct Switching {
    timetable: Timetable,
    /// Dropping the sender tells the thread to end.
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Kept {
    /// Without a thread to spare, what holds now holds on.
    pub(crate) fn to(bandwidth: Option<&Bandwidth>, talk: &Talk) -> Self {
        let limits = Arc::new(Limits::default());
        match bandwidth {
            None => Self { limits, _switching: None },
            Some(Bandwidth::Always(limit)) => {
                set(&limits, *limit);
                Self { limits, _switching: None }
            }
            Some(Bandwidth::ByTime(timetable)) => {
                let talk = talk.clone();
                let switching = Switching::begin(timetable.clone(), &limits, Box::new(move |text| talk.note(text)));
                Self { limits, _switching: Some(switching) }
            }
        }
    }
}

/// Hears what holds from now on.
type Tell = Box<dyn Fn(&str) + Send>;

impl Switching {
    /// Sets what holds now, and keeps to it. Without a thread to spare, what holds now holds on.
    pub(crate) fn begin(timetable: Timetable, limits: &Arc<Limits>, tell: Tell) -> Self {
        let mut clerk = Clerk { timetable: timetable.clone(), limits: Arc::clone(limits), tell, said: None };
        clerk.look(now());
        let (stop, stopped) = mpsc::channel();
        let spawned = thread::Builder::new().name("timetable".into()).spawn(move || clerk.follow(&stopped));
        Self { timetable, thread: spawned.ok().map(|thread| (stop, thread)) }
    }

    /// By what it switches.
    pub(crate) fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// When something else holds next, if ever.
    pub(crate) fn until(&self) -> Option<Minute> {
        self.timetable.changes(now())
    }
}

/// Waits for the thread, which is not asleep any more: it could set what it has just read from the clock.
impl Drop for Switching {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            drop(thread.join());
        }
    }
}

/// Looks at the clock.
struct Clerk {
    timetable: Timetable,
    limits: Arc<Limits>,
    tell: Tell,
    said: Option<BandwidthLimit>,
}

impl Clerk {
    fn follow(mut self, stopped: &mpsc::Receiver<()>) {
        while stopped.recv_timeout(until_next_minute()) == Err(RecvTimeoutError::Timeout) {
            self.look(now());
        }
    }

    fn look(&mut self, now: Minute) {
        let limit = self.timetable.at(now);
        if self.said != Some(limit) {
            set(&self.limits, limit);
            (self.tell)(&limit_text(limit, self.timetable.changes(now)));
            self.said = Some(limit);
        }
    }
}

/// Sets both.
pub(crate) fn set(limits: &Limits, limit: BandwidthLimit) {
    limits.send.set(limit.send.map(|rate| rate.bytes_per_s));
    limits.receive.set(limit.receive.map(|rate| rate.bytes_per_s));
}

fn limit_text(limit: BandwidthLimit, until: Option<Minute>) -> String {
    let side = |rate: Option<crate::args::Rate>| {
        rate.map_or("no limit".to_owned(), |rate| format!("at most {}", rate_text(rate.bytes_per_s as f64 * 8.0)))
    };
    let until = until.map_or(String::new(), |until| format!(", until {until}"));
    format!("by the timetable: sending {}, receiving {}{until}", side(limit.send), side(limit.receive))
}

/// The time zone is the system's, or `TZ`.
fn now() -> Minute {
    let now = Zoned::now();
    let day = now.weekday().to_monday_zero_offset();
    let part = |number: i8| number.unsigned_abs();
    // A calendar has no other days and hours.
    Minute::new(part(day), part(now.hour()), part(now.minute())).unwrap_or(Minute::FIRST)
}

fn until_next_minute() -> Duration {
    Duration::from_secs(60 - u64::from(Zoned::now().second().unsigned_abs()).min(59))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Style, Volume};
    use indicatif::MultiProgress;

    fn clerk(timetable: &str) -> Clerk {
        Clerk { timetable: timetable.parse().unwrap(), limits: Arc::default(), tell: Box::new(|_| {}), said: None }
    }

    fn rates(clerk: &Clerk) -> (Option<u64>, Option<u64>) {
        (clerk.limits.send.get(), clerk.limits.receive.get())
    }

    #[test]
    fn limits_change_while_those_who_share_them_run() {
        let mut clerk = clerk("08:00,1MiB:256KiB 19:00,off");
        clerk.look(Minute::new(0, 18, 59).unwrap());
        assert_eq!(rates(&clerk), (Some(1 << 20), Some(256 << 10)));
        clerk.look(Minute::new(0, 19, 0).unwrap());
        assert_eq!(rates(&clerk), (None, None));
        clerk.look(Minute::new(1, 8, 0).unwrap());
        assert_eq!(rates(&clerk), (Some(1 << 20), Some(256 << 10)));
    }

    #[test]
    fn what_somebody_else_has_set_stays_until_the_timetable_says_something_new() {
        let mut clerk = clerk("08:00,1MiB 19:00,off");
        clerk.look(Minute::new(0, 9, 0).unwrap());
        clerk.limits.send.set(Some(7));
        clerk.look(Minute::new(0, 9, 1).unwrap());
        assert_eq!(rates(&clerk), (Some(7), Some(1 << 20)));
        clerk.look(Minute::new(0, 19, 0).unwrap());
        assert_eq!(rates(&clerk), (None, None));
    }

    #[test]
    fn what_holds_is_said_with_when_it_ends() {
        let limit = "1MB:off".parse().unwrap();
        assert_eq!(
            limit_text(limit, Minute::new(4, 19, 0)),
            "by the timetable: sending at most 8.0 Mbit/s (1.0 MB/s), receiving no limit, until Fri 19:00"
        );
        assert!(limit_text(limit, None).ends_with("no limit"));
    }

    #[test]
    fn the_thread_ends_with_what_it_keeps() {
        let bandwidth: Bandwidth = "00:00,1MiB".parse().unwrap();
        let talk = Talk { volume: Volume::Errors, style: Style::Plain, screen: MultiProgress::new() };
        let kept = Kept::to(Some(&bandwidth), &talk);
        assert_eq!(kept.limits.send.get(), Some(1 << 20));
        let limits = Arc::downgrade(&kept.limits);
        drop(kept);
        assert_eq!(limits.strong_count(), 0);
    }
}
