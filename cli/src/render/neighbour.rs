//! Devices that announce themselves on the local network.

use super::{Record, escape};
use mirror_engine::{discovery::Neighbour, vault::Acquaintance};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct NeighbourRecord {
    /// What it is called here, if it is known.
    name: Option<String>,
    device: String,
    addresses: Vec<String>,
}

impl Record for NeighbourRecord {
    const TYPE: &'static str = "neighbour";
}

pub(crate) fn neighbour_record(neighbour: &Neighbour, known: Option<&Acquaintance>) -> NeighbourRecord {
    NeighbourRecord {
        name: known.map(|known| known.peer.name.clone()),
        device: neighbour.device.to_string(),
        addresses: neighbour.addresses.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn neighbour_text(neighbour: &Neighbour, known: Option<&Acquaintance>) -> String {
    let name = known.map_or("unknown".into(), |known| escape(known.peer.name.as_bytes()));
    let addresses: Vec<String> = neighbour.addresses.iter().map(ToString::to_string).collect();
    format!("{name}  {}  {}", neighbour.device, addresses.join(", "))
}

/// What to type when an unknown device is one's own.
pub(crate) fn neighbour_hint(neighbour: &Neighbour) -> String {
    let address = neighbour.addresses.first().map_or("ADDR".to_owned(), ToString::to_string);
    format!("hint: if you know it, mirror peer add NAME {address} --device {}", neighbour.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_engine::id::DeviceId;

    fn neighbour() -> Neighbour {
        Neighbour {
            device: DeviceId::from_bytes([0xab; 32]),
            addresses: vec!["10.0.0.7:7740".parse().unwrap(), "[2001:db8::7]:7740".parse().unwrap()],
        }
    }

    #[test]
    fn an_unknown_device_is_called_so_and_comes_with_the_next_command() {
        let id = "ab".repeat(32);
        assert_eq!(neighbour_text(&neighbour(), None), format!("unknown  {id}  10.0.0.7:7740, [2001:db8::7]:7740"));
        assert_eq!(neighbour_hint(&neighbour()), format!("hint: if you know it, mirror peer add NAME 10.0.0.7:7740 --device {id}"));
    }

    #[test]
    fn a_record_has_no_name_for_who_is_not_known() {
        let json = super::super::json_line(&neighbour_record(&neighbour(), None));
        assert!(json.starts_with(r#"{"type":"neighbour","name":null,"device":"abab"#), "{json}");
    }
}
