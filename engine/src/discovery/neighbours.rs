//! Listening: which devices were heard, and where they are.

use super::{
    Discovery, DiscoveryError,
    service::{Heard, KIND, Tag, best_first},
};
use crate::{clock, id::DeviceId, limits::NEIGHBOURS_MAX};
use mdns_sd::{Receiver, ServiceEvent};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How often somebody who waits is asked whether it still wants to.
const PATIENCE: Duration = Duration::from_millis(50);

/// A device that was heard. Not proved to be it: see [`super`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Which device it says it is.
    pub device: DeviceId,
    /// Where it says it can be reached, best first; none when it has said goodbye.
    pub addresses: Vec<SocketAddr>,
}

/// The devices that are heard, as of now. Listens until it is dropped.
pub struct Neighbours {
    shared: Arc<Shared>,
    /// Keeps the thread that listens, which ends the one that keeps the record.
    _discovery: Discovery,
}

#[derive(Default)]
struct Shared {
    /// By the full name of the service.
    heard: Mutex<BTreeMap<String, Heard>>,
    changed: Condvar,
}

impl Discovery {
    /// Begins to listen. `tell` is called from a thread of its own with each device of which something new is heard, with all of its
    /// addresses. Good for one listener at a time.
    ///
    /// # Errors
    /// When the thread has ended, or the system has none to spare for the record.
    pub fn look(&self, tell: impl Fn(Neighbour) + Send + 'static) -> Result<Neighbours, DiscoveryError> {
        let events = self.daemon.0.browse(KIND)?;
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        let spawned = thread::Builder::new().name("neighbours".into()).spawn(move || kept.follow(&events, &tell));
        spawned.map_err(|error| DiscoveryError(error.to_string()))?;
        Ok(Neighbours { shared, _discovery: self.clone() })
    }
}

impl Neighbours {
    /// All that are there, by device.
    pub fn all(&self) -> Vec<Neighbour> {
        let heard = self.shared.heard();
        let mut devices: Vec<DeviceId> = heard.values().map(|heard| heard.device).collect();
        devices.sort_unstable();
        devices.dedup();
        devices.into_iter().map(|device| Neighbour { device, addresses: addresses(&heard, &device, None) }).collect()
    }

    /// Where `device` serves the vault with this tag; empty when it was not heard.
    pub fn addresses_of(&self, device: &DeviceId, tag: Tag) -> Vec<SocketAddr> {
        addresses(&self.shared.heard(), device, Some(tag))
    }

    /// The same, waited for until it is heard, `limit` is over or `cancelled` says so. Blocks.
    pub fn wait_for(&self, device: &DeviceId, tag: Tag, limit: Duration, cancelled: impl Fn() -> bool) -> Vec<SocketAddr> {
        let deadline = clock::now() + limit;
        let mut heard = self.shared.heard();
        loop {
            let found = addresses(&heard, device, Some(tag));
            let left = deadline.saturating_duration_since(clock::now());
            if !found.is_empty() || left.is_zero() || cancelled() {
                return found;
            }
            let waited = self.shared.changed.wait_timeout(heard, left.min(PATIENCE));
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Of all services of `device` that are, or may be, of this vault.
fn addresses(heard: &BTreeMap<String, Heard>, device: &DeviceId, tag: Option<Tag>) -> Vec<SocketAddr> {
    let is_meant = |heard: &&Heard| heard.device == *device && (tag.is_none() || heard.tag.is_none() || heard.tag == tag);
    best_first(heard.values().filter(is_meant).flat_map(|heard| heard.addresses.iter().copied()))
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the thread that listens does.
    fn follow(&self, events: &Receiver<ServiceEvent>, tell: &impl Fn(Neighbour)) {
        while let Ok(event) = events.recv() {
            if let Some(device) = self.note(event) {
                let addresses = addresses(&self.heard(), &device, None);
                self.changed.notify_all();
                tell(Neighbour { device, addresses });
            }
        }
    }

    /// The device of which something new was heard.
    fn note(&self, event: ServiceEvent) -> Option<DeviceId> {
        let mut all = self.heard();
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let heard = Heard::of(&service)?;
                let name = service.get_fullname().to_owned();
                let is_new = all.get(&name) != Some(&heard);
                let has_room = all.len() < NEIGHBOURS_MAX || all.contains_key(&name);
                (is_new && has_room).then(|| {
                    let device = heard.device;
                    all.insert(name, heard);
                    device
                })
            }
            ServiceEvent::ServiceRemoved(_, name) => all.remove(&name).map(|heard| heard.device),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdns_sd::ServiceInfo;

    fn resolved(instance: &str, device: DeviceId, port: u16) -> ServiceEvent {
        let properties = [("v", "1".to_owned()), ("d", device.to_string())];
        let service = ServiceInfo::new(KIND, instance, "x.local.", "10.0.0.7", port, &properties[..]).unwrap();
        ServiceEvent::ServiceResolved(Box::new(service.as_resolved_service()))
    }

    #[test]
    fn what_is_said_again_is_no_news_and_a_goodbye_is() {
        let shared = Shared::default();
        let device = DeviceId::from_bytes([1; 32]);
        assert_eq!(shared.note(resolved("a", device, 1)), Some(device));
        assert_eq!(shared.note(resolved("a", device, 1)), None);
        assert_eq!(shared.note(resolved("a", device, 2)), Some(device), "another port");
        assert_eq!(shared.note(ServiceEvent::ServiceRemoved(KIND.into(), format!("a.{KIND}"))), Some(device));
        assert!(shared.heard().is_empty());
    }

    #[test]
    fn who_announces_without_end_takes_a_bounded_place() {
        let shared = Shared::default();
        for number in 0..NEIGHBOURS_MAX + 10 {
            shared.note(resolved(&format!("n{number}"), DeviceId::from_bytes([2; 32]), 1));
        }
        assert_eq!(shared.heard().len(), NEIGHBOURS_MAX);
        assert!(shared.note(resolved("n0", DeviceId::from_bytes([3; 32]), 1)).is_some(), "what is known may still change");
    }

    #[test]
    fn a_device_with_two_vaults_is_looked_for_at_the_port_of_the_right_one() {
        let device = DeviceId::from_bytes([1; 32]);
        let [one, two]: [Tag; 2] = ["1", "2"].map(|tag| tag.parse().unwrap());
        let heard = |tag, port| Heard { device, tag, addresses: vec![SocketAddr::from(([10, 0, 0, 7], port))] };
        let all = BTreeMap::from([
            ("a".to_owned(), heard(Some(one), 1)),
            ("b".to_owned(), heard(Some(two), 2)),
            ("c".to_owned(), heard(None, 3)),
        ]);
        let ports = |tag| addresses(&all, &device, tag).iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!(ports(Some(one)), [1, 3]);
        assert_eq!(ports(Some(two)), [2, 3]);
        assert_eq!(ports(None), [1, 2, 3]);
    }
}
