//! The tables of `docs/specs/vault-format.md`, printed from bytes that the engine makes.

use crate::hold;
use mirror_engine::{
    event::{
        ChunkList, Content, Entry, Event, EventHeader, Frontier, Incarnation, KIND_OPERATIONS, Key, Operation, Value, ValueKind, author,
        body_context, encode_operations,
    },
    frame::{FrameBuf, Kind},
    id::{AgreementKey, ChunkId, DeviceId, EpochId, EventId, VaultId},
    keys::{DeviceKey, Giver, MasterKey, Occasion, Secrets, epoch_id, link},
    limits,
    members::{Change, EpochGrants, Grant, LastOwner, Link, Role, encode_changes},
    seal::{ChunkType, Compression, SealKeys},
    store::Store,
    vault::Config,
};
use std::{fmt::Write, fs};

const PAGE: &str = "docs/specs/vault-format.md";
const VAULT: VaultId = VaultId::from_bytes([7; 32]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A table of `fields`, which must add up to `bytes`: where each begins, how long it is, what it holds in this sample.
fn table(bytes: &[u8], fields: &[(&str, usize, &str)]) -> String {
    let mut table = String::from("| at | bytes | field | in the sample |\n| ---: | ---: | --- | --- |\n");
    let mut at = 0;
    for (name, length, meaning) in fields {
        let value = &bytes[at..at + length];
        let shown = if value.len() > 36 { format!("`{}…`", hex(&value[..16])) } else { format!("`{}`", hex(value)) };
        let separator = if meaning.is_empty() { "" } else { ": " };
        writeln!(table, "| {at} | {length} | **{name}**{separator}{meaning} | {shown} |").unwrap();
        at += length;
    }
    assert_eq!(at, bytes.len(), "the fields are not all there is");
    table
}

fn keys() -> SealKeys {
    SealKeys::derive(&MasterKey::from_bytes([1; 32]), &VAULT, 1)
}

#[test]
fn frame() {
    let bytes = FrameBuf::new(Kind::Chunk, b"record").into_bytes();
    let fields = [
        ("magic", 4, "`mRf1`"),
        ("kind", 1, "1 chunk, 2 event, 3 chunk list"),
        ("zero", 3, ""),
        ("length", 4, "of the record, little endian"),
        ("check", 4, "first bytes of BLAKE3(the 12 bytes before, id)"),
        ("id", 32, "BLAKE3(record)"),
        ("record", 6, "here the 6 bytes `record`"),
    ];
    hold(PAGE, "frame", &table(&bytes, &fields));
}

#[test]
fn files_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path(), &VAULT).unwrap();
    let heads = fs::read(dir.path().join("heads")).unwrap();
    let fields = [
        ("magic", 8, "`mirrorHD`"),
        ("format", 2, "little endian"),
        ("zero", 2, ""),
        ("count", 4, "of entries, little endian; none in the sample"),
        ("vault", 32, ""),
        ("check", 32, "BLAKE3 of everything before"),
    ];
    hold(PAGE, "heads", &table(&heads, &fields));

    let (store, _) = Store::open(dir.path(), &VAULT).unwrap();
    let mut writer = store.writer();
    writer.append(FrameBuf::new(Kind::Chunk, b"record").verified()).unwrap();
    writer.checkpoint().unwrap();
    let pack = fs::read(dir.path().join("packs/00000001.pack")).unwrap();
    let fields = [
        ("magic", 8, "`mirrorPK` pack, `mirrorLG` log segment"),
        ("format", 2, "little endian"),
        ("zero", 2, ""),
        ("number", 4, "that of the file's name, little endian"),
        ("follows", 8, "log: bytes of the segment before that count; pack: 0; little endian"),
        ("vault", 32, ""),
        ("check", 8, "first bytes of BLAKE3(the 56 bytes before)"),
        ("frames", 54, "to the end of the file"),
    ];
    hold(PAGE, "segment", &table(&pack, &fields));
}

#[test]
fn sealed_record() {
    let sealed = keys().seal_body(b"plaintext", &[]);
    let fields = [
        ("type", 1, "1 data, 2 node, 3 event body"),
        ("algorithm", 1, "1 AES-256-GCM"),
        ("codec", 1, "0 none, 1 zstd"),
        ("zero", 1, ""),
        ("epoch", 4, "which keys, little endian"),
        ("length", 4, "of the body, little endian"),
        ("zero", 4, ""),
        ("siv", 32, ""),
        ("body", 9, "encrypted"),
        ("tag", 16, "of AES-GCM"),
    ];
    hold(PAGE, "record", &table(&sealed, &fields));
}

fn event() -> Event {
    let (device, incarnation) = (DeviceKey::from_seed(&[2; 32]), Incarnation([3; 16]));
    let operations = [Operation::Delete(Key::new(*b"k").unwrap(), None)];
    let context = body_context(&author(&device.id(), &incarnation), 1);
    let body = keys().seal_body(&encode_operations(&operations).unwrap(), &context);
    let header = EventHeader {
        vault: VAULT,
        device: DeviceId::from_bytes([0; 32]),
        incarnation,
        sequence: 1,
        lamport: 1,
        previous: None,
        deps: Frontier::new(),
        epoch: 1,
        lists: vec![list().reference()],
        kind: KIND_OPERATIONS,
        body_hash: [0; 32],
        wall_ms: 0,
    };
    Event::sign(header, &body, &device).unwrap()
}

fn list() -> ChunkList {
    ChunkList::new(vec![Entry { id: ChunkId::from_bytes([5; 32]), length: 1_000 }]).unwrap()
}

#[test]
fn event_record() {
    let event = event();
    let record = event.record();
    let header = u32::from_le_bytes(record[..4].try_into().unwrap()) as usize;
    let fields = [
        ("length", 4, "of the header, little endian"),
        ("header", header, "strict CBOR, see below"),
        ("signature", 64, "Ed25519 over `mirror 2026-11 v1 event` and the header"),
        ("body", event.body().len(), "a sealed record of type 3"),
    ];
    hold(PAGE, "event", &table(record, &fields));
}

#[test]
fn chunk_list_record() {
    let fields = [("chunk id", 32, ""), ("length", 4, "of its record, little endian; then the next entry")];
    hold(PAGE, "list", &table(&list().record(), &fields));
}

#[test]
fn configuration() {
    let text = Config::new(&VAULT, "photos").to_text().unwrap();
    hold(PAGE, "vault.toml", &format!("```toml\n{text}```\n"));
}

/// Whoever implements the format can compare. Uncompressed: what zstd makes differs from version to version.
#[test]
fn samples() {
    let keys = keys();
    let mut table = String::from("| plaintext | chunk id |\n| --- | --- |\n");
    for (name, plaintext) in [("empty", Vec::new()), ("`abc`", b"abc".to_vec()), ("1,000 times `a`", vec![b'a'; 1_000])] {
        let sealed = keys.seal(keys.draft(&plaintext, Vec::new()), ChunkType::Data, Compression::Never);
        writeln!(table, "| {name} | `{}` |", sealed.reference.chunk).unwrap();
    }
    hold(PAGE, "samples", &table);
}

#[test]
fn operations() {
    let key = || Key::new(*b"k").unwrap();
    let content = Content { bytes: 0, depth: 0, references: Vec::new() };
    let put = |kind| Operation::Put(key(), Value { kind, modified_s: 1, modified_ns: 2, content: content.clone() });
    let rows = [
        ("put, a blob", put(ValueKind::Blob)),
        ("put, a file with mode 0644", put(ValueKind::File(0o644))),
        ("put, a directory with mode 0755", put(ValueKind::Directory(0o755))),
        ("put, a link to `t`", put(ValueKind::Symlink(b"t".to_vec()))),
        ("delete", Operation::Delete(key(), None)),
        ("delete, because `old`", Operation::Delete(key(), Some("old".into()))),
        ("resolve", Operation::Resolve(key(), EventId::from_bytes([9; 32]))),
    ];
    let mut table = String::from("| operation on the key `k` | plaintext of a body with it alone |\n| --- | --- |\n");
    for (name, operation) in rows {
        writeln!(table, "| {name} | `{}` |", hex(&encode_operations(&[operation]).unwrap())).unwrap();
    }
    hold(PAGE, "operations", &table);
}

#[test]
fn membership() {
    let device = || DeviceId::from_bytes([3; 32]);
    let admit = |role, agreement| Change::Admit { device: device(), role, name: "nas".into(), agreement };
    let key = AgreementKey::from_bytes([4; 32]);
    let epoch = EpochGrants {
        number: 2,
        epoch: EpochId::from_bytes([5; 32]),
        giver: key,
        grants: vec![Grant { device: device(), sealed: vec![6; 49] }],
        links: vec![Link { epoch: EpochId::from_bytes([7; 32]), sealed: vec![8; 48] }],
    };
    let rows = [
        ("found", Change::Found { name: "laptop".into(), agreement: None }),
        ("admit a keyless replica", admit(Role::Keyless, None)),
        ("admit a member that can be given keys", admit(Role::Member, Some(key))),
        ("a key epoch with one grant and one link", Change::Epoch(epoch)),
        ("remove", Change::Remove { device: device(), reason: None, upto: Frontier::new(), last_owner: LastOwner::Stays }),
    ];
    let mut table = String::from("| change | plaintext of a body with it alone |\n| --- | --- |\n");
    for (name, change) in rows {
        writeln!(table, "| {name} | `{}` |", hex(&encode_changes(&[change]).unwrap())).unwrap();
    }
    hold(PAGE, "membership", &table);
}

#[test]
fn epochs() {
    let (giver, device) = (Giver::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
    let (first, master) = (MasterKey::from_bytes([3; 32]), MasterKey::from_bytes([4; 32]));
    let epoch = epoch_id(&master.replication_key(&VAULT));
    let occasion = Occasion { vault: VAULT, epoch, device: device.id() };
    let grant = |secrets| hex(&giver.grant(&occasion, &device.agreement_key(), &secrets).unwrap());
    let rows = [
        ("vault", VAULT.to_string()),
        ("seed of the giver's key", hex(&[1; 32])),
        ("giver, public", giver.public().to_string()),
        ("seed of the device", hex(&[2; 32])),
        ("device, public", device.id().to_string()),
        ("its agreement key, public", device.agreement_key().to_string()),
        ("master key of the epoch", hex(master.as_bytes())),
        ("replication key of the epoch", hex(master.replication_key(&VAULT).as_bytes())),
        ("epoch id", epoch.to_string()),
        ("grant for a member", grant(Secrets::Member(master.clone()))),
        ("grant for a keyless replica", grant(Secrets::Keyless(master.replication_key(&VAULT)))),
        ("master key of an epoch before", hex(first.as_bytes())),
        ("id of that epoch", epoch_id(&first.replication_key(&VAULT)).to_string()),
        ("link to it", hex(&link(&master, &VAULT, &first))),
    ];
    let mut table = String::from("| what | hexadecimal |\n| --- | --- |\n");
    rows.iter().for_each(|(what, bytes)| writeln!(table, "| {what} | `{bytes}` |").unwrap());
    hold(PAGE, "epochs", &table);
}

#[test]
fn limits() {
    let rows: [(&str, u64); 18] = [
        ("smallest chunk but a value's last, bytes", limits::CHUNK_BYTES_MIN as u64),
        ("mean chunk, bytes", limits::CHUNK_BYTES_MEAN as u64),
        ("largest chunk, bytes of plaintext", limits::CHUNK_BYTES_MAX as u64),
        ("values up to this are one chunk, bytes", limits::WHOLE_VALUE_BYTES_MAX as u64),
        ("entries of a chunk list", limits::LIST_ENTRIES_MAX as u64),
        ("chunk lists of an event", limits::EVENT_LISTS_MAX as u64),
        ("operations of an event", limits::EVENT_OPERATIONS_MAX as u64),
        ("sealed body of an event, bytes", limits::EVENT_BODY_BYTES_MAX as u64),
        ("plaintext of an event's body, bytes", limits::EVENT_BODY_PLAINTEXT_BYTES_MAX as u64),
        ("authors of a frontier", limits::FRONTIER_AUTHORS_MAX as u64),
        ("record, bytes", limits::RECORD_BYTES_MAX as u64),
        ("segment file, bytes", limits::SEGMENT_BYTES_MAX),
        ("key, bytes", limits::KEY_BYTES_MAX as u64),
        ("changes of a membership event", limits::MEMBERSHIP_CHANGES_MAX as u64),
        ("plaintext of a membership event's body, bytes", limits::MEMBERSHIP_BYTES_MAX as u64),
        ("grants of a key epoch in one change", limits::EPOCH_GRANTS_MAX as u64),
        ("links of a key epoch in one change", limits::EPOCH_LINKS_MAX as u64),
        ("references of an operation; more go to nodes", limits::DIRECT_REFERENCES_MAX as u64),
    ];
    let mut table = String::from("| what | at most |\n| --- | ---: |\n");
    rows.iter().for_each(|(what, most)| writeln!(table, "| {what} | {most} |").unwrap());
    writeln!(table, "| references of a node | {} |\n| levels of nodes | {} |", limits::NODE_REFERENCES_MAX, limits::NODE_DEPTH_MAX)
        .unwrap();
    hold(PAGE, "limits", &table);
}
