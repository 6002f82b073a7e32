use super::*;
use crate::{
    id::{ChunkId, ListId, PlaintextId},
    limits::{
        CHUNK_BYTES_MAX, DIRECT_REFERENCES_MAX, EVENT_OPERATIONS_MAX, FRONTIER_AUTHORS_MAX, KEY_BYTES_MAX, LIST_ENTRIES_MAX,
        NODE_DEPTH_MAX, REASON_BYTES_MAX,
    },
};
use proptest::{collection::vec, prelude::*};

const VAULT: VaultId = VaultId::from_bytes([0x11; 32]);

fn device() -> DeviceKey {
    DeviceKey::from_seed(&[0x22; 32])
}

fn header() -> EventHeader {
    EventHeader {
        vault: VAULT,
        device: device().id(),
        incarnation: Incarnation([0x33; 16]),
        sequence: 2,
        lamport: 8,
        previous: Some(EventId::from_bytes([0x44; 32])),
        deps: [Dot { author: ReplicaId::from_bytes([0x55; 32]), sequence: 7 }].into_iter().collect(),
        epoch: 1,
        lists: vec![ListRef { id: ListId::from_bytes([0x66; 32]), entries: 3, bytes: 3_000 }],
        kind: KIND_OPERATIONS,
        body_hash: [0; 32],
        wall_ms: 1_790_000_000_000,
    }
}

fn sign(header: EventHeader) -> Result<Event, EventError> {
    Event::sign(header, b"sealed body", &device())
}

/// A record whose header is `encoded`, rightly signed: what a device that breaks the rules on purpose can make.
fn signed_record(encoded: &[u8], body: &[u8]) -> Vec<u8> {
    let signature = device().sign(&signed_bytes(encoded));
    [(encoded.len() as u32).to_le_bytes().as_slice(), encoded, &signature, body].concat()
}

fn check_header(change: impl FnOnce(&mut EventHeader)) -> Result<Event, EventError> {
    let mut header = EventHeader { body_hash: *blake3::hash(b"").as_bytes(), ..header() };
    change(&mut header);
    Event::check(signed_record(&codec::encode(&header), b""), &VAULT)
}

fn key() -> Key {
    Key::new(*b"some/key").unwrap()
}

fn value(content: Content) -> Value {
    Value { kind: ValueKind::File(0o644), modified_s: -1, modified_ns: 999_999_999, content }
}

fn pieces(count: usize, length: u32) -> Vec<ChunkRef> {
    let piece = ChunkRef { chunk: ChunkId::from_bytes([1; 32]), plaintext: PlaintextId::from_bytes([2; 32]), length };
    vec![piece; count]
}

fn data(count: usize, length: u32) -> Content {
    Content { bytes: count as u64 * u64::from(length), depth: 0, references: pieces(count, length) }
}

mod records {
    use super::*;

    #[test]
    fn a_signed_event_checks_and_says_what_was_signed() {
        let event = sign(header()).unwrap();
        let checked = Event::check(event.record().to_vec(), &VAULT).unwrap();
        assert_eq!(checked, event);
        assert_eq!(Event::from_stored(event.record().to_vec()).unwrap(), event);
        assert_eq!(checked.header(), &EventHeader { body_hash: *blake3::hash(b"sealed body").as_bytes(), ..header() });
        assert_eq!(checked.body(), b"sealed body");
        assert_eq!(checked.dot(), header().dot());
        assert_eq!(checked.id().as_bytes(), blake3::hash(event.record()).as_bytes());
        assert_eq!(event.to_frame().id(), *event.id().as_bytes());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = sign(header()).unwrap().record().to_vec();
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Event::check(damaged, &VAULT).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_off_anywhere_or_continued_is_refused() {
        let record = sign(header()).unwrap().record().to_vec();
        for length in 0..record.len() {
            assert!(Event::check(record[..length].to_vec(), &VAULT).is_err(), "{length} bytes");
        }
        assert!(Event::check([record.as_slice(), &[0]].concat(), &VAULT).is_err());
    }

    #[test]
    fn an_event_of_another_vault_is_refused() {
        let event = sign(header()).unwrap();
        assert_eq!(Event::check(event.record().to_vec(), &VaultId::from_bytes([9; 32])), Err(EventError::WrongVault));
    }

    #[test]
    fn a_signature_of_another_device_is_refused() {
        let encoded = codec::encode(&EventHeader { body_hash: *blake3::hash(b"").as_bytes(), ..header() });
        let signature = DeviceKey::from_seed(&[0x77; 32]).sign(&signed_bytes(&encoded));
        let record = [(encoded.len() as u32).to_le_bytes().as_slice(), &encoded, &signature].concat();
        assert_eq!(Event::check(record, &VAULT), Err(EventError::Signature));
    }

    #[test]
    fn a_signature_over_the_header_alone_is_refused() {
        let encoded = codec::encode(&EventHeader { body_hash: *blake3::hash(b"").as_bytes(), ..header() });
        let record = [(encoded.len() as u32).to_le_bytes().as_slice(), &encoded, &device().sign(&encoded)].concat();
        assert_eq!(Event::check(record, &VAULT), Err(EventError::Signature));
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_an_event_and_never_a_panic(mut record in vec(any::<u8>(), 0..400), honest in any::<bool>()) {
            if honest && record.len() >= LENGTH_BYTES {
                let length = (record.len() / 2) as u32;
                record[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            }
            prop_assert!(Event::check(record.clone(), &VAULT).is_err());
            let _ = Event::from_stored(record);
        }

        #[test]
        fn a_spoiled_header_is_never_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut encoded = codec::encode(&header());
            let at = at.index(encoded.len());
            encoded[at] = byte;
            let _ = Event::check(signed_record(&encoded, b""), &VAULT);
        }
    }
}

mod headers {
    use super::*;

    /// The good header with its encoding changed, rightly signed.
    fn check_bytes(change: impl FnOnce(&mut Vec<u8>)) -> Result<Event, EventError> {
        let mut encoded = codec::encode(&EventHeader { body_hash: *blake3::hash(b"").as_bytes(), ..header() });
        change(&mut encoded);
        Event::check(signed_record(&encoded, b""), &VAULT)
    }

    #[test]
    fn rules_that_need_no_other_event_are_checked() {
        assert!(check_header(|_| ()).is_ok());
        let broken: [fn(&mut EventHeader); 8] = [
            |header| header.sequence = 0,
            |header| header.sequence = 1,
            |header| header.previous = None,
            |header| header.lamport = 0,
            |header| header.lamport = u64::MAX,
            |header| header.lists = vec![header.lists[0]; EVENT_LISTS_MAX + 1],
            |header| header.deps.raise(Dot { author: header.author(), sequence: 1 }),
            |header| header.body_hash = [0; 32],
        ];
        for (number, change) in broken.into_iter().enumerate() {
            assert!(matches!(check_header(change), Err(EventError::Invalid(_))), "rule {number}");
        }
    }

    #[test]
    fn what_check_refuses_is_not_signed() {
        assert!(matches!(sign(EventHeader { sequence: 0, ..header() }), Err(EventError::Invalid(_))));
        assert!(matches!(Event::sign(header(), &vec![0; EVENT_BODY_BYTES_MAX + 1], &device()), Err(EventError::Invalid(_))));
    }

    #[test]
    fn as_many_lists_and_authors_as_allowed_pass() {
        let authors = |count: usize| -> Frontier {
            let author = |number: usize| ReplicaId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
            (0..count).map(|number| Dot { author: author(number), sequence: 1 }).collect()
        };
        assert!(check_header(|header| header.lists = vec![header.lists[0]; EVENT_LISTS_MAX]).is_ok());
        assert!(check_header(|header| header.deps = authors(FRONTIER_AUTHORS_MAX)).is_ok());
        assert!(matches!(check_header(|header| header.deps = authors(FRONTIER_AUTHORS_MAX + 1)), Err(EventError::Codec(_))));
    }

    #[test]
    fn a_header_in_any_other_form_is_refused_though_rightly_signed() {
        assert!(check_bytes(|_| ()).is_ok());
        let refused = |change: fn(&mut Vec<u8>)| assert!(matches!(check_bytes(change), Err(EventError::Codec(_))));
        refused(|bytes| bytes.push(0xf6));
        refused(|bytes| {
            assert_eq!(bytes.remove(0), 0x8c, "an array of twelve");
            bytes.splice(0..0, [0x98, 12]);
        });
        refused(|bytes| {
            bytes[0] = 0x9f;
            bytes.push(0xff);
        });
        refused(|bytes| {
            bytes[0] += 1;
            bytes.push(0);
        });
    }

    #[test]
    fn an_event_of_a_newer_kind_is_kept() {
        assert!(check_header(|header| header.kind = u16::MAX).is_ok());
    }

    #[test]
    fn a_frontier_that_names_nothing_or_an_author_twice_or_out_of_order_is_refused() {
        let entry = |author: u8, sequence: u8| [[0x58, 32].as_slice(), &[author; 32], &[sequence]].concat();
        let decode =
            |entries: &[Vec<u8>]| codec::decode::<Frontier>("frontier", &[&[0xa0 + entries.len() as u8], &*entries.concat()].concat());
        assert!(decode(&[entry(1, 1), entry(2, 1)]).is_ok());
        for entries in [vec![entry(1, 0)], vec![entry(1, 1), entry(1, 2)], vec![entry(2, 1), entry(1, 1)]] {
            assert!(decode(&entries).is_err());
        }
    }

    #[test]
    fn another_incarnation_of_a_device_is_another_author() {
        let device = device().id();
        assert_ne!(author(&device, &Incarnation([0; 16])), author(&device, &Incarnation([1; 16])));
    }
}

mod operations {
    use super::*;

    fn assert_refused(operation: Operation) {
        assert!(encode_operations(std::slice::from_ref(&operation)).is_err(), "encodes {operation:?}");
        let encoded = [vec![0x81], codec::encode(&operation)].concat();
        assert!(decode_operations(&encoded).is_err(), "decodes {operation:?}");
    }

    fn assert_allowed(operation: Operation) {
        let encoded = encode_operations(std::slice::from_ref(&operation)).unwrap();
        assert_eq!(decode_operations(&encoded).unwrap(), [operation]);
    }

    #[test]
    fn limits_are_reached_and_not_passed() {
        assert_allowed(Operation::Put(key(), value(data(DIRECT_REFERENCES_MAX, CHUNK_BYTES_MAX as u32))));
        assert_refused(Operation::Put(key(), value(data(DIRECT_REFERENCES_MAX + 1, 1))));
        assert_refused(Operation::Put(key(), value(data(1, CHUNK_BYTES_MAX as u32 + 1))));
        assert_allowed(Operation::Put(key(), value(Content { depth: NODE_DEPTH_MAX, ..data(1, 1) })));
        assert_refused(Operation::Put(key(), value(Content { depth: NODE_DEPTH_MAX + 1, ..data(1, 1) })));
        assert_refused(Operation::Put(key(), value(Content { bytes: 2, ..data(1, 1) })));
        assert_refused(Operation::Put(key(), Value { modified_ns: 1_000_000_000, ..value(data(1, 1)) }));
        assert_allowed(Operation::Delete(key(), Some("r".repeat(REASON_BYTES_MAX))));
        assert_refused(Operation::Delete(key(), Some("r".repeat(REASON_BYTES_MAX + 1))));
        let link = |bytes: usize| Operation::Put(key(), Value { kind: ValueKind::Symlink(vec![b'x'; bytes]), ..value(data(0, 0)) });
        assert_allowed(link(KEY_BYTES_MAX));
        assert_refused(link(KEY_BYTES_MAX + 1));
        assert_refused(link(0));
    }

    #[test]
    fn keys_have_one_to_as_many_bytes_as_allowed() {
        assert!(Key::new(vec![0xff; KEY_BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![0; KEY_BYTES_MAX + 1]), Err(KeyError));
        assert_eq!(Key::new([]), Err(KeyError));
    }

    #[test]
    fn more_operations_than_allowed_are_refused() {
        let operations = vec![Operation::Delete(key(), None); EVENT_OPERATIONS_MAX + 1];
        assert!(encode_operations(&operations).is_err());
        let encoded = encode_operations(&operations[1..]).unwrap();
        assert_eq!(decode_operations(&encoded).unwrap().len(), EVENT_OPERATIONS_MAX);
        let head = codec::encode(&(EVENT_OPERATIONS_MAX as u64 + 1));
        let too_many = [&[head[0] | 0x80], &head[1..], &encoded[head.len()..], &codec::encode(&operations[0])].concat();
        assert!(decode_operations(&too_many).is_err());
    }

    #[test]
    fn a_count_that_the_bytes_do_not_back_allocates_nothing_and_is_refused() {
        assert!(decode_operations(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode_operations(&[0x99, 0x40, 0x00]).is_err());
    }

    #[test]
    fn other_forms_of_the_same_operations_are_refused() {
        let encoded = encode_operations(&[Operation::Delete(key(), None)]).unwrap();
        assert_eq!(encoded[0], 0x81, "an array of one");
        assert!(decode_operations(&[&encoded[..], &[0]].concat()).is_err(), "trailing");
        assert!(decode_operations(&[&[0x98, 1], &encoded[1..]].concat()).is_err(), "not minimal");
        assert!(decode_operations(&[&[0x9f], &encoded[1..], &[0xff]].concat()).is_err(), "of indefinite length");
        let mut unknown = encoded.clone();
        assert_eq!(unknown[1..3], [0x82, 0x01], "the operation's number");
        unknown[2] = 0x09;
        assert!(decode_operations(&unknown).is_err(), "unknown");
    }

    fn any_operation() -> impl Strategy<Value = Operation> {
        let key = vec(any::<u8>(), 1..40).prop_map(|bytes| Key::new(bytes).unwrap());
        let kind = prop_oneof![
            Just(ValueKind::Blob),
            any::<u32>().prop_map(ValueKind::File),
            any::<u32>().prop_map(ValueKind::Directory),
            vec(any::<u8>(), 1..20).prop_map(ValueKind::Symlink)
        ];
        let content = (0..4_usize, 0..=CHUNK_BYTES_MAX as u32).prop_map(|(count, length)| data(count, length));
        let put = (kind, any::<i64>(), 0..1_000_000_000_u32, content);
        let put = put.prop_map(|(kind, modified_s, modified_ns, content)| Value { kind, modified_s, modified_ns, content });
        prop_oneof![
            (key.clone(), put).prop_map(|(key, value)| Operation::Put(key, value)),
            (key.clone(), any::<Option<String>>()).prop_map(|(key, reason)| Operation::Delete(key, reason)),
            (key, any::<[u8; 32]>()).prop_map(|(key, id)| Operation::Resolve(key, EventId::from_bytes(id))),
        ]
    }

    proptest! {
        #[test]
        fn operations_survive_a_round_trip(operations in vec(any_operation(), 0..6)) {
            let encoded = encode_operations(&operations).unwrap();
            prop_assert_eq!(decode_operations(&encoded).unwrap(), operations);
        }

        #[test]
        fn what_decodes_is_what_would_be_encoded(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(operations) = decode_operations(&bytes) {
                prop_assert_eq!(encode_operations(&operations).unwrap(), bytes);
            }
        }

        #[test]
        fn a_spoiled_byte_gives_other_operations_or_none(operations in vec(any_operation(), 1..4), at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
            let mut encoded = encode_operations(&operations).unwrap();
            let at = at.index(encoded.len());
            encoded[at] ^= flip;
            prop_assert_ne!(decode_operations(&encoded).ok(), Some(operations));
        }
    }
}

mod lists {
    use super::*;

    fn entries(count: usize) -> Vec<Entry> {
        let id = |number: usize| ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        (0..count).map(|number| Entry { id: id(number), length: 1 + number as u32 }).collect()
    }

    #[test]
    fn a_list_survives_a_round_trip_and_says_what_it_holds() {
        let list = ChunkList::new(entries(LIST_ENTRIES_MAX)).unwrap();
        assert_eq!(ChunkList::from_record(&list.record()).unwrap(), list);
        let bytes = list.entries().iter().map(Entry::frame_bytes).sum();
        assert_eq!(list.reference(), ListRef { id: list.id(), entries: LIST_ENTRIES_MAX as u32, bytes });
        assert_eq!(list.to_frame().id(), *list.id().as_bytes());
    }

    #[test]
    fn lists_that_are_empty_too_long_doubled_or_impossible_are_refused() {
        let twice = [entries(2), entries(1)].concat();
        let lengths = [0, u32::MAX].map(|length| vec![Entry { length, ..entries(1)[0] }]);
        for refused in [Vec::new(), entries(LIST_ENTRIES_MAX + 1), twice].into_iter().chain(lengths) {
            let record: Vec<u8> =
                refused.iter().flat_map(|entry| [entry.id.as_bytes().as_slice(), &entry.length.to_le_bytes()].concat()).collect();
            assert!(ChunkList::from_record(&record).is_err());
            assert!(ChunkList::new(refused).is_err());
        }
        let record = ChunkList::new(entries(2)).unwrap().record();
        assert!(ChunkList::from_record(&record[1..]).is_err());
    }

    proptest! {
        #[test]
        fn random_records_are_never_a_panic(record in vec(any::<u8>(), 0..200)) {
            if let Ok(list) = ChunkList::from_record(&record) {
                prop_assert_eq!(list.record(), record);
            }
        }
    }
}

mod heads {
    use super::*;

    #[test]
    fn the_root_tells_apart_what_differs_in_any_head() {
        let head = |sequence, event| Head { sequence, event: EventId::from_bytes([event; 32]) };
        let heads = |list: &[(u8, Head)]| Heads(list.iter().map(|(author, head)| (ReplicaId::from_bytes([*author; 32]), *head)).collect());
        let one = heads(&[(1, head(1, 1))]);
        let others = [heads(&[]), heads(&[(2, head(1, 1))]), heads(&[(1, head(2, 1))]), heads(&[(1, head(1, 2))])];
        assert!(others.iter().all(|other| other.root() != one.root()));
        assert_eq!(one.root(), heads(&[(1, head(1, 1))]).root());
        assert_eq!(one.frontier().sequence_of(&ReplicaId::from_bytes([1; 32])), 1);
    }

    #[test]
    fn a_frontier_holds_what_was_raised_and_joined() {
        let dot = |author: u8, sequence| Dot { author: ReplicaId::from_bytes([author; 32]), sequence };
        let mut one: Frontier = [dot(1, 2), dot(1, 1), dot(2, 0)].into_iter().collect();
        assert_eq!(one.len(), 1);
        assert!(one.contains(&dot(1, 2)) && !one.contains(&dot(1, 3)) && !one.contains(&dot(2, 1)));
        let other: Frontier = [dot(1, 1), dot(2, 4)].into_iter().collect();
        assert!(!one.covers(&other) && one.covers(&Frontier::new()));
        assert_eq!((other.events_beyond(&one), one.events_beyond(&other)), (4, 1));
        one.join(&other);
        assert!(one.covers(&other) && one.contains(&dot(1, 2)));
    }
}

/// Version 1 of the format, as it was when it was first written. These files are never written again: what they hold must be
/// readable for ever, and what is signed today must still be the same bytes.
mod version_1 {
    use super::*;
    use serde_json::Value as Json;

    const EVENT: &str = include_str!("fixtures/event-v1.json");

    fn text<'j>(json: &'j Json, field: &str) -> &'j str {
        json[field].as_str().unwrap_or_else(|| panic!("{field} is a text"))
    }

    fn number(json: &Json, field: &str) -> u64 {
        json[field].as_u64().unwrap_or_else(|| panic!("{field} is a number"))
    }

    fn bytes(json: &Json, field: &str) -> Vec<u8> {
        let digits = text(json, field).as_bytes().chunks_exact(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn array<const N: usize>(json: &Json, field: &str) -> [u8; N] {
        bytes(json, field).try_into().unwrap_or_else(|_| panic!("{field} has {N} bytes"))
    }

    fn written_header(json: &Json) -> EventHeader {
        let list = |list: &Json| ListRef {
            id: text(list, "id").parse().unwrap(),
            entries: number(list, "entries") as u32,
            bytes: number(list, "bytes"),
        };
        let dep = |dep: &Json| Dot { author: text(dep, "author").parse().unwrap(), sequence: number(dep, "sequence") };
        EventHeader {
            vault: text(json, "vault").parse().unwrap(),
            device: text(json, "device").parse().unwrap(),
            incarnation: Incarnation(array(json, "incarnation")),
            sequence: number(json, "sequence"),
            lamport: number(json, "lamport"),
            previous: json["previous"].as_str().map(|id| id.parse().unwrap()),
            deps: json["deps"].as_array().unwrap().iter().map(dep).collect(),
            epoch: number(json, "epoch") as u32,
            lists: json["lists"].as_array().unwrap().iter().map(list).collect(),
            kind: number(json, "kind") as u16,
            body_hash: array(json, "body_hash"),
            wall_ms: number(json, "wall_ms"),
        }
    }

    /// The operations whose encoding is the fixture's body.
    fn written_operations() -> Vec<Operation> {
        let reference = |chunk, plaintext, length| ChunkRef {
            chunk: ChunkId::from_bytes([chunk; 32]),
            plaintext: PlaintextId::from_bytes([plaintext; 32]),
            length,
        };
        let value = |kind, content| Value { kind, modified_s: 1_790_000_000, modified_ns: 123_456_789, content };
        let file = Content { bytes: 300, depth: 0, references: vec![reference(0xc1, 0xa1, 100), reference(0xc2, 0xa2, 200)] };
        let long = Content { bytes: 5 << 30, depth: 1, references: vec![reference(0xc3, 0xa3, 70_000)] };
        let key = |bytes: &[u8]| Key::new(bytes).unwrap();
        vec![
            Operation::Put(key(b"blob"), value(ValueKind::Blob, Content::default())),
            Operation::Put(key("dir/\u{e9}".as_bytes()), value(ValueKind::File(0o100644), file)),
            Operation::Put(key(b"dir/\xff"), value(ValueKind::File(0o600), long)),
            Operation::Put(key(b"dir"), value(ValueKind::Directory(0o755), Content::default())),
            Operation::Put(key(b"link"), value(ValueKind::Symlink(b"../target".to_vec()), Content::default())),
            Operation::Delete(key(b"gone"), None),
            Operation::Delete(key(b"gone too"), Some("why".to_owned())),
            Operation::Resolve(key(b"conflict"), EventId::from_bytes([0xe1; 32])),
        ]
    }

    #[test]
    fn the_fixture_reads_as_the_fields_written_beside_it() {
        let json: Json = serde_json::from_str(EVENT).unwrap();
        let written = written_header(&json);
        let event = Event::check(bytes(&json, "record"), &written.vault).unwrap();
        assert_eq!(event.header(), &written);
        assert_eq!(event.id().to_string(), text(&json, "id"));
        assert_eq!(event.author().to_string(), text(&json, "author"));
        assert_eq!(event.body(), bytes(&json, "body"));
        assert_eq!(decode_operations(event.body()).unwrap(), written_operations());
    }

    #[test]
    fn the_same_fields_and_key_sign_to_the_same_bytes() {
        let json: Json = serde_json::from_str(EVENT).unwrap();
        let device = DeviceKey::from_seed(&array(&json, "seed"));
        let body = encode_operations(&written_operations()).unwrap();
        let event = Event::sign(written_header(&json), &body, &device).unwrap();
        assert_eq!(event.record(), bytes(&json, "record"));
    }
}
