//! Lines that say the same again and again are not written: a peer that is refused each second, or somebody who knocks at a port all day,
//! must not fill a disk.
//!
//! Two rules for each place in the code that logs: what it said last is not said again within [`AGAIN`], and in each such time it says no
//! more than [`LINES_MAX`] things. What is held back is counted, and the count is written by whoever asks for it ([`Repeats::held_back`]).

use std::{
    collections::HashMap,
    fmt::{self, Write},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::{
    Event, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// After so long a line may be said again.
const AGAIN: Duration = Duration::from_secs(60);
/// What one place in the code may say in that time.
const LINES_MAX: u32 = 30;

/// Shared by the layers that write and whoever counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    /// As many as there are places in the code that log.
    places: HashMap<Identifier, Said>,
    held_back: u64,
}

#[derive(Debug)]
struct Said {
    last: u64,
    since: Instant,
    lines: u32,
}

impl Repeats {
    /// Lines that were not written since this was last asked.
    pub(super) fn held_back(&self) -> u64 {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).held_back)
    }

    fn is_news(&self, place: Identifier, said: u64, now: Instant) -> bool {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = ledger.places.entry(place).or_insert(Said { last: !said, since: now, lines: 0 });
        if now.duration_since(entry.since) >= AGAIN {
            *entry = Said { last: !said, since: now, lines: 0 };
        }
        let news = entry.last != said && entry.lines < LINES_MAX;
        if news {
            (entry.last, entry.lines) = (said, entry.lines + 1);
        } else {
            ledger.held_back += 1;
        }
        news
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let mut digest = Digest(DefaultHasher::new());
        event.record(&mut digest);
        self.is_news(event.metadata().callsite(), digest.0.finish(), mirror_engine::clock::now())
    }
}

/// What a line says, as a number.
struct Digest(DefaultHasher);

impl Visit for Digest {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        field.name().hash(&mut self.0);
        // Hashing does not fail.
        _ = write!(self, "{value:?}");
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.hash(&mut self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::{Layer, Registry, layer::SubscriberExt};

    #[derive(Clone, Default)]
    struct Counting(Arc<Mutex<u32>>);

    impl<S: Subscriber> Layer<S> for Counting {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn the_same_line_is_written_once_and_others_up_to_a_bound() {
        let (repeats, counting) = (Repeats::default(), Counting::default());
        let subscriber = Registry::default().with(counting.clone().with_filter(repeats.clone()));
        tracing::subscriber::with_default(subscriber, || {
            (0..10).for_each(|_| tracing::warn!(peer = "nas", "refused"));
            assert_eq!((*counting.0.lock().unwrap(), repeats.held_back()), (1, 9));
            (0..2 * LINES_MAX).for_each(|port| tracing::warn!(port, "a stranger"));
            assert_eq!(*counting.0.lock().unwrap(), 1 + LINES_MAX);
            assert_eq!((repeats.held_back(), repeats.held_back()), (u64::from(LINES_MAX), 0));
        });
    }

    #[test]
    fn after_a_while_it_is_said_again() {
        struct Somewhere;
        impl tracing::callsite::Callsite for Somewhere {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("it is only told from other places")
            }
        }
        static SOMEWHERE: Somewhere = Somewhere;
        let (repeats, now, place) = (Repeats::default(), mirror_engine::clock::now(), Identifier(&SOMEWHERE));
        assert!(repeats.is_news(place.clone(), 7, now));
        assert!(!repeats.is_news(place.clone(), 7, now + AGAIN / 2));
        assert!(repeats.is_news(place, 7, now + AGAIN));
    }
}
