//! What a device keeps for itself: made once, private, never replaced by a guess; and tickets that work once.

use super::*;
use crate::{
    event::{Head, Incarnation},
    id::{EventId, ReplicaId},
    limits::{PEERS_MAX, TICKETS_MAX},
};
use std::sync::Barrier;
use tempfile::TempDir;

const VAULT: VaultId = VaultId::from_bytes([7; 32]);
const HOUR_MS: u64 = 3_600_000;

fn new() -> (TempDir, Home, VaultHome) {
    let dir = TempDir::new().unwrap();
    let home = Home::open(&dir.path().join("home")).unwrap();
    let vault = home.vault(&VAULT).unwrap();
    (dir, home, vault)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn peer(name: &str, device: u8) -> Peer {
    let device = DeviceId::from_bytes([device; 32]);
    Peer { name: name.into(), device, addresses: vec!["nas.example:7740".into()], role: Role::Member, added_ms: 5 }
}

fn ticket(vault: &VaultHome, expires_ms: u64) -> Ticket {
    vault.issue_ticket(&DeviceId::from_bytes([1; 32]), vec!["a:1".into()], Role::Member, "photos", expires_ms).unwrap()
}

#[test]
fn a_device_key_is_made_once_whoever_asks_at_once_and_only_its_user_can_read_it() {
    let (_dir, home, _) = new();
    let start = Barrier::new(4);
    let ids: Vec<DeviceId> = std::thread::scope(|scope| {
        let ask = || {
            start.wait();
            home.device().unwrap().id()
        };
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!((mode(home.dir()), mode(&home.dir().join("device.key"))), (0o700, 0o600));
}

#[test]
fn a_damaged_device_key_is_named_and_never_replaced() {
    let (_dir, home, _) = new();
    home.device().unwrap();
    let path = home.dir().join("device.key");
    let good = fs::read(&path).unwrap();
    for bad in [&b""[..], b"garbage", &good[..good.len() - 1], &[&good[..], b"x"].concat()] {
        fs::write(&path, bad).unwrap();
        let error = home.device().unwrap_err();
        assert!(matches!(&error, HomeError::Damaged { file, .. } if *file == path), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
}

#[test]
fn a_directory_that_is_shared_by_design_holds_no_keys_and_an_open_one_is_closed() {
    let dir = TempDir::new().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    Home::open(&open).unwrap();
    assert_eq!(mode(&open), 0o700);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(Home::open(&open), Err(HomeError::NotOurs(_))));
}

#[test]
fn a_name_belongs_to_one_device_and_a_device_keeps_the_day_it_was_added() {
    let (_dir, _, vault) = new();
    vault.add_peer(peer("nas", 1)).unwrap();
    assert!(matches!(vault.add_peer(peer("nas", 2)), Err(HomeError::NameTaken { .. })));
    vault.add_peer(Peer { added_ms: 9, ..peer("attic", 1) }).unwrap();
    let known = vault.peers().unwrap();
    assert_eq!((known.len(), known[0].name.as_str(), known[0].added_ms), (1, "attic", 5));
    assert!(matches!(vault.peer("nas"), Err(HomeError::NoSuchPeer(_))));
    assert!(matches!(vault.remove_peer("nas"), Err(HomeError::NoSuchPeer(_))));
    vault.remove_peer("attic").unwrap();
    assert_eq!(vault.peer_of(&DeviceId::from_bytes([1; 32])).unwrap(), None);
}

#[test]
fn names_and_addresses_outside_the_limits_are_refused() {
    let (_dir, _, vault) = new();
    for name in ["", "a\nb", "\u{1b}[2J", &"x".repeat(NAME_BYTES_MAX + 1)] {
        assert!(matches!(vault.add_peer(peer(name, 1)), Err(HomeError::Invalid(_))), "{name:?}");
    }
    let addressed = |addresses| vault.add_peer(Peer { addresses, ..peer("nas", 1) });
    for address in [String::new(), "a b:1".into(), "\u{e9}:1".into(), "x".repeat(ADDRESS_BYTES_MAX + 1)] {
        assert!(matches!(addressed(vec![address.clone()]), Err(HomeError::Invalid(_))), "{address:?}");
    }
    assert!(addressed(vec!["a:1".into(); ADDRESSES_MAX + 1]).is_err());
    assert_eq!(vault.peers().unwrap(), []);
}

#[test]
fn a_list_of_peers_that_cannot_be_read_is_named_and_lets_nobody_in() {
    let (_dir, _, vault) = new();
    vault.add_peer(peer("nas", 1)).unwrap();
    let path = vault.dir.join("peers.toml");
    let good = fs::read_to_string(&path).unwrap();
    let too_many = format!("format = 1\n{}", good.split_once('\n').unwrap().1.repeat(PEERS_MAX + 1));
    for bad in ["garbage", "format = 2\n", &good.replace("01", "xx"), &too_many] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(vault.peers(), Err(HomeError::Damaged { .. } | HomeError::TooMany(_))), "{bad}");
        assert!(vault.peer_of(&DeviceId::from_bytes([1; 32])).is_err());
        assert!(vault.add_peer(peer("other", 2)).is_err(), "what cannot be read is not overwritten");
    }
}

#[test]
fn a_ticket_works_once_however_many_redeem_it_at_once() {
    let (_dir, _, vault) = new();
    let id = ticket(&vault, HOUR_MS).secret.id();
    let start = Barrier::new(4);
    let redeemed = std::thread::scope(|scope| {
        let redeem = || {
            start.wait();
            vault.redeem(&id, 0).is_ok()
        };
        let redeeming: Vec<_> = (0..4).map(|_| scope.spawn(redeem)).collect();
        redeeming.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(redeemed, 1);
    assert!(matches!(vault.redeem(&id, 0), Err(HomeError::TicketNotOpen)));
    assert!(!vault.pairing_open(0).unwrap(), "the window is closed");
}

#[test]
fn a_ticket_that_is_over_opens_nothing_and_says_since_when() {
    let (_dir, _, vault) = new();
    let id = ticket(&vault, HOUR_MS).secret.id();
    assert!(vault.pairing_open(HOUR_MS - 1).unwrap());
    assert!(matches!(vault.redeem(&id, HOUR_MS + 61_000), Err(HomeError::TicketExpired(61))));
    assert!(matches!(vault.redeem(&id, 0), Err(HomeError::TicketNotOpen)), "a clock that is put back does not bring it back");
}

#[test]
fn a_withdrawn_ticket_and_one_of_another_vault_open_nothing() {
    let (_dir, home, vault) = new();
    let id = ticket(&vault, HOUR_MS).secret.id();
    let other = home.vault(&VaultId::from_bytes([8; 32])).unwrap();
    assert!(matches!(other.redeem(&id, 0), Err(HomeError::TicketNotOpen)));
    vault.withdraw_tickets().unwrap();
    assert!(matches!(vault.redeem(&id, 0), Err(HomeError::TicketNotOpen)));
}

#[test]
fn only_so_many_tickets_are_open_and_those_that_are_over_make_room() {
    let (_dir, _, vault) = new();
    for _ in 0..TICKETS_MAX - 1 {
        ticket(&vault, u64::MAX);
    }
    ticket(&vault, 1);
    ticket(&vault, u64::MAX);
    let more = vault.issue_ticket(&DeviceId::from_bytes([1; 32]), Vec::new(), Role::Member, "photos", u64::MAX);
    assert!(matches!(more, Err(HomeError::TooMany("open tickets"))));
}

#[test]
fn a_damaged_ticket_of_ours_is_named() {
    let (_dir, _, vault) = new();
    let id = ticket(&vault, HOUR_MS).secret.id();
    fs::write(vault.dir.join("tickets").join(format!("{id}.ticket")), "garbage").unwrap();
    assert!(matches!(vault.redeem(&id, 0), Err(HomeError::Damaged { .. })));
}

#[test]
fn a_ticket_survives_being_typed_in_any_case_and_every_wrong_letter_is_noticed() {
    let (_dir, _, vault) = new();
    let ticket = ticket(&vault, HOUR_MS);
    let text = ticket.to_string();
    for typed in [text.clone(), format!(" {}\n", text.to_uppercase())] {
        assert_eq!(typed.parse::<Ticket>().unwrap(), ticket);
    }
    for at in 0..text.len() {
        let mut wrong = text.clone().into_bytes();
        wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
        assert!(String::from_utf8(wrong).unwrap().parse::<Ticket>().is_err(), "letter {at}");
    }
    for cut in 0..text.len() {
        assert!(text[..cut].parse::<Ticket>().is_err());
    }
    assert_eq!("http://example".parse::<Ticket>(), Err(TicketError::Prefix));
    assert_eq!(format!("mirror1{}", "!".repeat(9)).parse::<Ticket>(), Err(TicketError::Alphabet));
}

#[test]
fn neither_a_ticket_nor_what_its_issuer_keeps_shows_its_secret() {
    let (_dir, _, vault) = new();
    let ticket = ticket(&vault, HOUR_MS);
    let kept = vault.ticket(&ticket.secret.id(), 0).unwrap();
    let shown = format!("{ticket:?} {kept:?}");
    for secret in [ticket.secret.0, *ticket.secret.key().as_bytes()] {
        assert!(!shown.contains(&format!("{secret:?}")), "{shown}");
    }
    let file = fs::read(vault.dir.join("tickets").join(format!("{}.ticket", ticket.secret.id()))).unwrap();
    assert!(!file.windows(32).any(|window| window == ticket.secret.0), "the issuer keeps no more than it needs");
}

fn head(sequence: u64, event: u8) -> Head {
    Head { sequence, event: EventId::from_bytes([event; 32]) }
}

/// The author of `dir` when its log ends with `held`.
fn author_of(vault: &VaultHome, dir: &Path, held: Option<Head>) -> OwnReplica {
    vault.incarnation(dir, &DeviceId::from_bytes([1; 32]), |_: &ReplicaId| OwnLog { held, accepted: None }).unwrap()
}

#[test]
fn a_directory_keeps_its_author_until_its_log_is_not_the_one_that_was_written() {
    let (dir, _, vault) = new();
    let first = author_of(&vault, dir.path(), None);
    assert_eq!(first.continuity(), Continuity::Fresh);
    first.record_head(&head(3, 3)).unwrap();
    let same = author_of(&vault, dir.path(), Some(head(3, 3)));
    assert_eq!((same.continuity(), same.id()), (Continuity::Same, first.id()));
    let other = author_of(&vault, dir.path(), Some(head(3, 4)));
    let acknowledged = head(3, 3);
    assert_eq!(other.continuity(), Continuity::Renewed(RenewalReason::OtherHistory { acknowledged }));
    assert_ne!(other.id(), first.id());
    other.record_head(&head(2, 2)).unwrap();
    let back = author_of(&vault, dir.path(), Some(head(1, 1)));
    let rolled_back = RenewalReason::RolledBack { acknowledged: head(2, 2), found: Some(head(1, 1)) };
    assert_eq!(back.continuity(), Continuity::Renewed(rolled_back));
    assert_eq!(back.predecessor(), Some((other.id(), head(2, 2))));
}

#[test]
fn another_directory_in_its_place_a_damaged_record_and_a_peer_that_knows_more_make_a_new_author() {
    let (dir, _, vault) = new();
    let place = dir.path().join("vault");
    fs::create_dir(&place).unwrap();
    let first = author_of(&vault, &place, None);
    // Kept, so that its inode is not given to the next directory.
    fs::rename(&place, dir.path().join("old")).unwrap();
    fs::create_dir(&place).unwrap();
    let second = author_of(&vault, &place, None);
    assert_eq!(second.continuity(), Continuity::Renewed(RenewalReason::OtherDirectory));
    assert_ne!(second.id(), first.id());
    second.retire(9).unwrap();
    let third = author_of(&vault, &place, None);
    assert_eq!(third.continuity(), Continuity::Renewed(RenewalReason::PeerAhead { sequence: 9 }));
    let record = vault.dir.join("replicas").join(format!("{}.id", directory_name(&place).unwrap()));
    fs::write(record, "garbage").unwrap();
    assert_eq!(author_of(&vault, &place, None).continuity(), Continuity::Renewed(RenewalReason::RecordDamaged));
}

#[test]
fn a_head_that_was_torn_is_the_head_before() {
    let (dir, _, vault) = new();
    let first = author_of(&vault, dir.path(), None);
    first.record_head(&head(4, 4)).unwrap();
    first.record_head(&head(5, 5)).unwrap();
    let record = vault.dir.join("replicas").join(format!("{}.head", directory_name(dir.path()).unwrap()));
    let mut bytes = fs::read(&record).unwrap();
    bytes[512 + 20] ^= 1;
    fs::write(&record, bytes).unwrap();
    // Behind the log is what a power cut leaves: the same author goes on.
    assert_eq!(author_of(&vault, dir.path(), Some(head(5, 5))).continuity(), Continuity::Same);
    assert_ne!(Incarnation([0; 16]), first.incarnation());
}
