//! One flipped bit, anywhere in the files of a vault or of this device: nothing wrong is shown, what cannot be read is named, and a good
//! replica brings it back.

use super::super::replicas::{Devices, pull};
use super::*;
use crate::{
    event::Key,
    frame::Verified,
    home::{Claims, Contact, Peer},
    keys::Witness,
};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

type Files = BTreeMap<PathBuf, Vec<u8>>;
type Values = BTreeMap<String, Vec<u8>>;

/// A replica with everything that lies around it, and another one that holds the same.
struct World {
    devices: Devices,
    good: Vault,
    files: Files,
    values: Values,
}

fn files_below(directory: &Path, files: &mut Files) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), files);
        } else {
            files.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
}

/// What can be read of `vault`, key by key.
fn shown(vault: &Vault) -> Result<Values, VaultError> {
    let mut names = Vec::new();
    vault.list(b"", false, &mut |entry| {
        names.push(entry.key);
        ControlFlow::Continue(())
    })?;
    let mut values = Values::new();
    for name in names {
        let mut value = Vec::new();
        if vault.get(&name, &mut value).is_ok() {
            values.insert(name.to_text().into_owned(), value);
        }
    }
    Ok(values)
}

impl World {
    fn new() -> Self {
        let (devices, first) = Devices::new();
        let good = devices.join(&first, "good", Role::Member);
        for (key, bytes) in [("one", 700), ("two", 90), ("three", 400)] {
            let value: Vec<u8> = (0..bytes).map(|at: usize| (at * at / 7) as u8).collect();
            first.put(&Key::new(key).unwrap(), &mut &value[..], &Unwatched).unwrap();
        }
        pull(&good, &first).unwrap();
        good.put(&Key::new("four").unwrap(), &mut &b"of the other"[..], &Unwatched).unwrap();
        pull(&first, &good).unwrap();
        first.remove(&[Key::new("two").unwrap()], None).unwrap();
        pull(&good, &first).unwrap();
        Self::remember(&first, &good);
        let values = shown(&first).unwrap();
        assert_eq!(values.len(), 3);
        drop(first);
        let mut world = Self { devices, good, files: Files::new(), values };
        // With the view and what else the next process makes.
        assert_eq!(world.look().unwrap().0, world.values);
        world.files = world.found();
        world
    }

    /// What sessions and scrubs leave in the home.
    fn remember(first: &Vault, good: &Vault) {
        let (home, device) = (first.home(), good.device().id());
        let peer = Peer { name: "good".into(), device, addresses: vec!["192.0.2.1:7".into()], role: Role::Member, added_ms: 7 };
        home.add_peer(peer).unwrap();
        let (frontier, root) = (good.store().frontier(), good.store().root());
        let contact = Contact { at_ms: 7, transport: "quic".into(), frontier: frontier.clone(), root };
        home.record_contact(&device, &contact).unwrap();
        let mut claims = Claims::default();
        claims.note(good.info().replica, frontier, &[]);
        home.record_claims(&device, &claims).unwrap();
        let id = first.config().vault_id().unwrap();
        let [ours, theirs] = [(first, good), (good, first)].map(|(one, other)| Witness::new(id, one.device(), other.device().id()));
        let certificate = ours.certify(&ours.attest(root, 1), &theirs.attest(root, 2)).unwrap();
        home.record_certificate(&first.device().id(), &device, &certificate).unwrap();
        home.record_seen(first.dir(), &first.store().accepted()).unwrap();
        let mut scrub = first.scrub(None, &Unwatched).unwrap();
        first.end_scrub(&mut scrub).unwrap();
    }

    fn found(&self) -> Files {
        let mut files = Files::new();
        ["first", "home-first"].iter().for_each(|part| files_below(&self.devices.dir(part), &mut files));
        files
    }

    /// Everything as it was, in the same directories.
    fn put_back(&self) {
        for path in self.found().keys().filter(|path| !self.files.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        self.files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }

    fn open(&self) -> Result<(Vault, Vec<Repair>), VaultError> {
        Vault::open(&self.devices.dir("first"), &self.devices.home("first"), Unlock::Device)
    }

    /// What can be read, and whether anybody was told that something is wrong.
    fn look(&self) -> Result<(Values, bool), VaultError> {
        let (vault, repairs) = self.open()?;
        let values = shown(&vault)?;
        vault.status()?;
        vault.peers()?;
        let report = vault.verify(true, &Unwatched)?;
        Ok((values, !repairs.is_empty() || !report.is_clean()))
    }

    /// What a user does who was told: `recover`, then `scrub` and `pull` from a good replica.
    fn heal(&self) -> Result<Values, VaultError> {
        Vault::recover(&self.devices.dir("first"), false, &Unwatched)?;
        let (vault, _) = self.open()?;
        vault.scrub(None, &Unwatched)?;
        let mut writer = vault.store().writer();
        for id in vault.store().lost_chunks()? {
            let frame = self.good.store().read_frame(&id)?.unwrap();
            writer.append(Verified::check(&frame).unwrap())?;
        }
        writer.checkpoint()?;
        drop(writer);
        pull(&vault, &self.good)?;
        let report = vault.verify(true, &Unwatched)?;
        assert!(report.missing.is_empty() && report.lost.is_empty(), "{report:?}");
        shown(&vault)
    }

    /// What one flipped bit comes to, or what is wrong about that.
    fn flip(&self, path: &Path, at: usize) -> Result<String, String> {
        self.put_back();
        let mut bytes = self.files[path].clone();
        bytes[at] ^= 1 << (at / 64 % 8);
        fs::write(path, bytes).unwrap();
        let what = format!("{}, byte {at}", path.strip_prefix(self.devices.dir("")).unwrap().display());
        let outcome = match self.look() {
            Err(error) if is_named(&error) => format!("refused, {}: {error}", if self.heal().is_err() { "for good" } else { "healed" }),
            Err(error) => return Err(format!("{what}: {error:?}")),
            Ok((values, told)) => {
                let wrong = values.iter().any(|(key, value)| self.values.get(key) != Some(value));
                if wrong || (!told && values != self.values) {
                    return Err(format!("{what}: told {told}, wrong {wrong}: {values:?}"));
                }
                let healed = self.heal().map_err(|error| format!("{what}: {error:?}"))?;
                if healed != self.values {
                    return Err(format!("{what}: not healed: {:?}", healed.keys()));
                }
                if values != self.values {
                    "healed"
                } else if told {
                    "told"
                } else {
                    "no effect"
                }
                .to_owned()
            }
        };
        Ok(format!("{what}: {outcome}"))
    }

    /// Every `step`th byte of each file, and fewer of the larger ones of SQLite.
    fn flip_all(&self, step: usize) -> Vec<Result<String, String>> {
        let mut outcomes = Vec::new();
        for (path, bytes) in &self.files {
            let step = if bytes.starts_with(b"SQLite") { step * 16 } else { step };
            outcomes.extend((step / 2..bytes.len()).step_by(step).map(|at| self.flip(path, at)));
        }
        outcomes
    }
}

/// What keeps a vault shut, and says which file it is or what opens it instead.
fn is_named(error: &VaultError) -> bool {
    use VaultError as E;
    matches!(error, E::Damaged(_) | E::DamagedKey(_) | E::TooNew { .. } | E::Locked | E::WrongPassphrase | E::NoSlot(_) | E::NoVault(_))
}

fn all_end_well(outcomes: &[Result<String, String>]) {
    let wrong: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(outcomes.iter().flatten().any(|outcome| outcome.ends_with("healed")));
}

#[test]
fn a_flipped_bit_in_any_file_shows_nothing_wrong_and_is_healed_or_named() {
    all_end_well(&World::new().flip_all(256));
}

#[test]
#[ignore = "a minute: every 64th byte"]
fn a_flipped_bit_in_any_64_bytes_shows_nothing_wrong_and_is_healed_or_named() {
    let outcomes = World::new().flip_all(64);
    outcomes.iter().for_each(|outcome| eprintln!("{outcome:?}"));
    all_end_well(&outcomes);
}
