//! How many a listener serves at once, and how many of them may be of one kind: so that neither one known device nor strangers who
//! were let in to pair can take all there is.

use crate::{
    clock,
    id::DeviceId,
    limits::{EXAMINATIONS_MAX, PAIRINGS_MAX, SESSION_PER_DEVICE_MS, SESSIONS_AT_ONCE_MAX, SESSIONS_MAX, SESSIONS_PER_DEVICE_MAX},
    transport::Protocol,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
struct Taken {
    sessions: HashMap<DeviceId, usize>,
    pairings: usize,
    examinations: usize,
    /// When each device would have come often enough, had it come evenly. Those for whom that is over are forgotten.
    even: HashMap<DeviceId, Instant>,
}

impl Taken {
    /// Whether `device` comes no more often than it may (GCRA, ITU-T I.371): a number of sessions at once, and one more every so often.
    fn comes_seldom(&mut self, device: &DeviceId, now: Instant) -> bool {
        let each = Duration::from_millis(SESSION_PER_DEVICE_MS);
        self.even.retain(|_, even| *even > now);
        let even = self.even.get(device).copied().unwrap_or(now);
        let comes_seldom = even.duration_since(now) < each * SESSIONS_AT_ONCE_MAX;
        if comes_seldom {
            self.even.insert(*device, even + each);
        }
        comes_seldom
    }

    fn free(&mut self, device: &DeviceId) {
        let own = self.sessions.entry(*device).or_default();
        *own = own.saturating_sub(1);
        if *own == 0 {
            self.sessions.remove(device);
        }
    }
}

/// The places of one listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Taken>>);

/// A place; free again when it is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    device: DeviceId,
    protocol: Protocol,
}

impl Seats {
    /// A place for `device`, unless all that it may have are taken.
    pub(super) fn take(&self, device: &DeviceId, protocol: Protocol) -> Option<Seat> {
        self.take_at(device, protocol, clock::now())
    }

    fn take_at(&self, device: &DeviceId, protocol: Protocol, now: Instant) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match protocol {
            Protocol::Pairing if taken.pairings >= PAIRINGS_MAX => return None,
            Protocol::Pairing => taken.pairings += 1,
            Protocol::Doctor if taken.examinations >= EXAMINATIONS_MAX => return None,
            Protocol::Doctor => taken.examinations += 1,
            Protocol::Session => {
                let all: usize = taken.sessions.values().sum();
                let own = taken.sessions.entry(*device).or_default();
                if all >= SESSIONS_MAX || *own >= SESSIONS_PER_DEVICE_MAX {
                    return None;
                }
                *own += 1;
                if !taken.comes_seldom(device, now) {
                    taken.free(device);
                    return None;
                }
            }
        }
        Some(Seat { seats: self.clone(), device: *device, protocol })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        match self.protocol {
            Protocol::Pairing => taken.pairings -= 1,
            Protocol::Doctor => taken.examinations -= 1,
            Protocol::Session => {
                taken.free(&self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    #[test]
    fn one_device_leaves_room_for_others_and_gets_it_back() {
        let seats = Seats::default();
        let mut held: Vec<Seat> = (0..SESSIONS_PER_DEVICE_MAX).filter_map(|_| seats.take(&device(1), Protocol::Session)).collect();
        assert_eq!(held.len(), SESSIONS_PER_DEVICE_MAX);
        assert!(seats.take(&device(1), Protocol::Session).is_none());
        assert!(seats.take(&device(2), Protocol::Session).is_some());
        held.pop();
        assert!(seats.take(&device(1), Protocol::Session).is_some());
    }

    #[test]
    fn a_device_that_comes_again_and_again_is_slowed_down_alone_and_leaves_nothing_behind() {
        let (seats, now) = (Seats::default(), clock::now());
        let let_in = |n: u8, at| seats.take_at(&device(n), Protocol::Session, at).is_some();
        let minute = Duration::from_secs(60);
        let admitted = (0..200).filter(|n| let_in(1, now + minute * *n / 200)).count() as u64;
        let expected = u64::from(SESSIONS_AT_ONCE_MAX) + 60_000 / SESSION_PER_DEVICE_MS;
        assert!(admitted < 200 && admitted.abs_diff(expected) <= 1, "{admitted}");
        assert!(let_in(2, now + minute), "another device is none the slower");
        assert!(let_in(1, now + 2 * minute), "it may come again");
        assert!(let_in(2, now + 4 * minute));
        let taken = seats.0.lock().unwrap();
        assert_eq!((taken.even.len(), taken.sessions.len()), (1, 0));
    }

    #[test]
    fn one_examination_at_a_time() {
        let seats = Seats::default();
        let held = seats.take(&device(1), Protocol::Doctor);
        assert!(held.is_some() && seats.take(&device(2), Protocol::Doctor).is_none());
        drop(held);
        assert!(seats.take(&device(2), Protocol::Doctor).is_some());
    }

    #[test]
    fn strangers_take_no_place_of_a_session() {
        let seats = Seats::default();
        let strangers: Vec<Seat> = (0..100).filter_map(|n| seats.take(&device(n), Protocol::Pairing)).collect();
        assert_eq!(strangers.len(), PAIRINGS_MAX);
        let known: Vec<Seat> = (0..100).filter_map(|n| seats.take(&device(n), Protocol::Session)).collect();
        assert_eq!(known.len(), SESSIONS_MAX);
    }
}
