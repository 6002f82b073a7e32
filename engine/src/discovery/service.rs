//! What is said of a served vault, and what is made of what others say: pure, no network.

use super::DiscoveryError;
use crate::{id::DeviceId, keys::ReplicationKey, limits::ADDRESSES_MAX};
use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceInfo};
use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    str::FromStr,
};

/// The kind of service. QUIC's port and TCP's are the same.
pub(super) const KIND: &str = "_mirror._udp.local.";
const VERSION: &str = "1";
const TAG_BYTES: usize = 8;

/// Which of its vaults a device serves at a port, for those who know the vault: a keyed hash over the device, so that two devices
/// with the same vault show different tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; TAG_BYTES]);

impl Tag {
    /// The tag of the vault with this key where `device` serves it.
    pub fn of(key: &ReplicationKey, device: &DeviceId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 discovery tag");
        let hash = hasher.update(key.as_bytes()).update(device.as_bytes()).finalize();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&hash.as_bytes()[..TAG_BYTES]);
        Self(tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for Tag {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(|tag| Self(tag.to_be_bytes()))
    }
}

/// One service as one device announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) device: DeviceId,
    pub(super) tag: Option<Tag>,
    /// Best first.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Heard {
    /// What a resolved service says; none for what is not ours, of another version or without an address.
    pub(super) fn of(service: &ResolvedService) -> Option<Self> {
        if service.get_property_val_str("v") != Some(VERSION) {
            return None;
        }
        let device = service.get_property_val_str("d")?.parse().ok()?;
        let tag = service.get_property_val_str("t").and_then(|text| text.parse().ok());
        let addresses = best_first(service.get_addresses().iter().map(|ip| with_port(ip, service.get_port())));
        (service.get_port() > 0 && !addresses.is_empty()).then_some(Self { device, tag, addresses })
    }
}

/// A link-local address is good on one interface only, which is part of it.
fn with_port(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into(),
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

/// Without repetitions, and no more than a dialer tries: IPv4 before IPv6, then what only works on one link, then what only works here.
pub(super) fn best_first(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> =
        addresses.into_iter().filter(|addr| !addr.ip().is_unspecified() && !addr.ip().is_multicast()).collect();
    addresses.sort_by_key(|addr| (rank(addr.ip()), *addr));
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

fn rank(ip: IpAddr) -> u8 {
    match ip {
        ip if ip.is_loopback() => 4,
        IpAddr::V4(v4) if v4.is_link_local() => 2,
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 3,
        IpAddr::V6(_) => 1,
    }
}

/// The services for what is open at `listening`: one for each port. An unspecified address stands for all that this machine has, as they
/// come and go.
pub(super) fn services(device: &DeviceId, tag: Tag, listening: &[SocketAddr]) -> Result<Vec<ServiceInfo>, DiscoveryError> {
    let mut ports: Vec<u16> = listening.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let of_port = |port| service(device, tag, port, listening.iter().filter(|addr| addr.port() == port).map(SocketAddr::ip).collect());
    ports.into_iter().map(of_port).collect()
}

fn service(device: &DeviceId, tag: Tag, port: u16, ips: Vec<IpAddr>) -> Result<ServiceInfo, DiscoveryError> {
    let short = device.short();
    let host = format!("mirror-{short}-{port}.local.");
    let properties = [("v", VERSION.to_owned()), ("d", device.to_string()), ("t", tag.to_string())];
    let everywhere: Vec<IfKind> = ips.iter().filter(|ip| ip.is_unspecified()).map(family).collect();
    let fixed: Vec<IpAddr> = ips.into_iter().filter(|ip| !ip.is_unspecified()).collect();
    let service = ServiceInfo::new(KIND, &format!("{short}-{port}"), &host, &fixed[..], port, &properties[..])?;
    if everywhere.is_empty() {
        return Ok(service);
    }
    let mut service = service.enable_addr_auto();
    service.set_interfaces(everywhere);
    Ok(service)
}

/// A listener on IPv6's unspecified address takes IPv4 along.
fn family(unspecified: &IpAddr) -> IfKind {
    if unspecified.is_ipv6() { IfKind::All } else { IfKind::IPv4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        DeviceId::from_bytes([0x3f; 32])
    }

    fn announced(listening: &[&str]) -> Vec<ServiceInfo> {
        let listening: Vec<SocketAddr> = listening.iter().map(|addr| addr.parse().unwrap()).collect();
        services(&device(), Tag([7; TAG_BYTES]), &listening).unwrap()
    }

    fn heard(service: ServiceInfo) -> Option<Heard> {
        Heard::of(&service.as_resolved_service())
    }

    #[test]
    fn what_is_announced_is_what_is_heard() {
        let service = announced(&["10.0.0.7:7740", "10.0.1.7:7740"]).pop().unwrap();
        let addresses = vec!["10.0.0.7:7740".parse().unwrap(), "10.0.1.7:7740".parse().unwrap()];
        assert_eq!(heard(service), Some(Heard { device: device(), tag: Some(Tag([7; TAG_BYTES])), addresses }));
    }

    #[test]
    fn each_port_is_a_service_of_its_own() {
        let names: Vec<String> =
            announced(&["10.0.0.7:7740", "[2001:db8::7]:7740", "10.0.0.7:99"]).iter().map(|s| s.get_fullname().to_owned()).collect();
        assert_eq!(names, ["3f3f3f3f-99._mirror._udp.local.", "3f3f3f3f-7740._mirror._udp.local."]);
    }

    #[test]
    fn a_listener_on_all_interfaces_follows_the_machine_s_addresses() {
        assert!(announced(&["[::]:7740"])[0].is_addr_auto());
        assert!(announced(&["0.0.0.0:7740"])[0].is_addr_auto());
        assert!(!announced(&["10.0.0.7:7740"])[0].is_addr_auto());
    }

    #[test]
    fn nothing_on_the_wire_names_the_machine() {
        let service = announced(&["10.0.0.7:7740"]).pop().unwrap();
        assert_eq!(service.get_hostname(), "mirror-3f3f3f3f-7740.local.");
    }

    #[test]
    fn what_is_not_ours_is_not_heard() {
        let service = |properties: &[(&str, &str)], port| ServiceInfo::new(KIND, "x", "x.local.", "10.0.0.7", port, properties).unwrap();
        let id = device().to_string();
        assert!(heard(service(&[("v", "1"), ("d", &id)], 1)).is_some(), "a tag may be missing");
        assert_eq!(heard(service(&[("v", "2"), ("d", &id)], 1)), None, "a version to come");
        assert_eq!(heard(service(&[("v", "1"), ("d", "3f")], 1)), None, "no device");
        assert_eq!(heard(service(&[("v", "1")], 1)), None);
        assert_eq!(heard(service(&[("v", "1"), ("d", &id)], 0)), None, "no port");
    }

    #[test]
    fn addresses_that_reach_farther_come_first_and_their_number_is_bounded() {
        let typed = ["127.0.0.1:1", "[fe80::1%3]:1", "[2001:db8::1]:1", "169.254.0.1:1", "10.0.0.1:1", "10.0.0.1:1", "0.0.0.0:1"];
        let sorted = best_first(typed.map(|addr| addr.parse().unwrap()));
        let expected = ["10.0.0.1:1", "[2001:db8::1]:1", "169.254.0.1:1", "[fe80::1%3]:1", "127.0.0.1:1"].map(|addr| addr.parse().unwrap());
        assert_eq!(sorted, expected);
        let many = (0..=u8::MAX).map(|last| SocketAddr::from(([10, 0, 0, last], 1)));
        assert_eq!(best_first(many).len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_tag_is_of_one_vault_and_one_device() {
        let key = |byte| ReplicationKey::from_bytes([byte; 32]);
        let other = DeviceId::from_bytes([1; 32]);
        let tag = Tag::of(&key(1), &device());
        assert_ne!(tag, Tag::of(&key(2), &device()));
        assert_ne!(tag, Tag::of(&key(1), &other));
        assert_eq!(tag.to_string().parse(), Ok(tag));
        assert_eq!(Tag([0, 0, 0, 0, 0, 0, 0, 1]).to_string().parse(), Ok(Tag([0, 0, 0, 0, 0, 0, 0, 1])), "leading zeros stay");
    }
}
