//! How many a listener serves at once, and how many of them may be of one kind: so that neither one known device nor strangers who
//! were let in to pair can take all there is.

use crate::{
    id::DeviceId,
    limits::{EXAMINATIONS_MAX, PAIRINGS_MAX, SESSIONS_MAX, SESSIONS_PER_DEVICE_MAX},
    transport::Protocol,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug, Default)]
struct Taken {
    sessions: HashMap<DeviceId, usize>,
    pairings: usize,
    examinations: usize,
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
                let own = taken.sessions.entry(self.device).or_default();
                *own = own.saturating_sub(1);
                if *own == 0 {
                    taken.sessions.remove(&self.device);
                }
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
