//! The key slots of a vault: small files in `VAULT/keys/`, each of which opens the vault in its own way.
//!
//! A slot is written whole and durable or not at all, and is never needed to read another: losing one loses one way in. A slot that can't
//! be read does not keep another from opening the vault.

use super::{
    DeviceKey, KdfCost, KeyError, MasterKey, Newcomer, Secrets, private_file, random_bytes,
    slot::{Lock, Slot, WrappingKey, device_file_name},
};
use crate::{
    id::{DeviceId, VaultId},
    limits::{KEY_SLOT_BYTES_MAX, KEY_SLOTS_MAX, PASSPHRASE_BYTES_MAX},
};
use bip39::{Language, Mnemonic};
use std::{fs, io, path::Path};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of entropy in a recovery phrase of 24 words.
const ENTROPY_BYTES: usize = 32;
const EXTENSION: &str = ".slot";

/// What a slot is, as far as it shows without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its file, in the vault's `keys` directory.
    pub name: String,
    /// What opens it.
    pub kind: SlotKind,
}

/// What opens a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotKind {
    /// A passphrase, at this cost a guess.
    Passphrase(KdfCost),
    /// A recovery phrase.
    Recovery,
    /// A device.
    Device(DeviceId),
    /// Nothing: the file can't be read as a slot, for this reason.
    Unreadable(String),
}

/// A slot to be kept by another replica: file name and bytes. Wrapped, so it may travel; still only over an authenticated connection,
/// because whoever has it may guess passphrases.
pub type PortableSlot = (String, Vec<u8>);

/// What a passphrase or a recovery phrase opens.
#[derive(Debug)]
pub struct Opened {
    /// The vault's key.
    pub master: MasterKey,
    /// The device that only the passphrase or phrase can sign as.
    pub spare: DeviceKey,
}

/// Adds a slot that `passphrase` opens, at [`KdfCost::DEFAULT`]. Returns its spare device.
///
/// # Errors
/// [`KeyError::PassphraseLength`], [`KeyError::TooMany`], [`KeyError::Io`].
pub fn write_passphrase(dir: &Path, vault: &VaultId, master: &MasterKey, passphrase: &[u8]) -> Result<Newcomer, KeyError> {
    write_passphrase_at(dir, vault, master, passphrase, KdfCost::DEFAULT)
}

/// As [`write_passphrase`], at another cost. Takes that much time and memory once.
///
/// # Errors
/// As [`write_passphrase`], and [`KeyError::Bounds`].
pub fn write_passphrase_at(
    dir: &Path,
    vault: &VaultId,
    master: &MasterKey,
    passphrase: &[u8],
    cost: KdfCost,
) -> Result<Newcomer, KeyError> {
    if passphrase.is_empty() || passphrase.len() > PASSPHRASE_BYTES_MAX {
        return Err(KeyError::PassphraseLength);
    }
    if !cost.is_allowed() {
        return Err(KeyError::Bounds { file: dir.to_owned(), cost });
    }
    let secrets = Secrets::Member(master.clone());
    let mut spare = None;
    let slot = Slot::wrap(vault, Lock::Passphrase(cost), &secrets, |salt| Ok(spare.insert(cost.derive(passphrase, salt)?).clone()))?;
    write(dir, &slot)?;
    spare.map(|key| slot.spare(&key).newcomer()).ok_or(KeyError::Wrong)
}

/// Adds a slot with a new recovery phrase and returns its 24 words, which are kept nowhere, and its spare device.
///
/// # Errors
/// [`KeyError::Randomness`], [`KeyError::TooMany`], [`KeyError::Io`].
pub fn write_recovery(dir: &Path, vault: &VaultId, master: &MasterKey) -> Result<(Zeroizing<String>, Newcomer), KeyError> {
    let entropy = Zeroizing::new(random_bytes::<ENTROPY_BYTES>()?);
    let phrase = match Mnemonic::from_entropy_in(Language::English, entropy.as_slice()) {
        Ok(mnemonic) => Zeroizing::new(mnemonic.to_string()),
        Err(error) => unreachable!("32 bytes make 24 words: {error}"),
    };
    let slot = Slot::wrap(vault, Lock::Recovery, &Secrets::Member(master.clone()), |_| Ok(recovery_key(&entropy)))?;
    write(dir, &slot)?;
    Ok((phrase, slot.spare(&recovery_key(&entropy)).newcomer()))
}

/// Writes (anew) the slot of `device`, which opens without asking where the device's key is.
///
/// # Errors
/// [`KeyError::Randomness`], [`KeyError::TooMany`], [`KeyError::Io`].
pub fn write_device(dir: &Path, vault: &VaultId, secrets: &Secrets, device: &DeviceKey) -> Result<(), KeyError> {
    let slot = Slot::wrap(vault, Lock::Device(device.id()), secrets, |_| Ok(device.slot_key()))?;
    write(dir, &slot)
}

/// What the slot of `device` holds; `None` if it has none.
///
/// # Errors
/// [`KeyError::Damaged`] and the like about the file, [`KeyError::Wrong`] when it was not made by this device for this vault.
pub fn unlock_device(dir: &Path, vault: &VaultId, device: &DeviceKey) -> Result<Option<Secrets>, KeyError> {
    let path = dir.join(device_file_name(&device.id()));
    match read(&path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(slot) if *slot.lock() != Lock::Device(device.id()) || slot.vault() != vault => Err(KeyError::Wrong),
        Ok(slot) => slot.unwrap_with(&device.slot_key()).map(Some),
    }
}

/// The master key and the spare device, from the passphrase. One derivation for each passphrase slot until one opens.
///
/// # Errors
/// [`KeyError::Wrong`] when it opens none, [`KeyError::NoSlot`] when there is none, and what is wrong with the first slot when none can be read.
pub fn unlock_passphrase(dir: &Path, vault: &VaultId, passphrase: &[u8]) -> Result<Opened, KeyError> {
    unlock(dir, "passphrase", |slot| match slot.lock() {
        Lock::Passphrase(cost) if slot.vault() == vault => Some(cost.derive(passphrase, slot.salt())),
        _ => None,
    })
}

/// The master key and the spare device, from the 24 words, in any case and with any white space between them.
///
/// # Errors
/// [`KeyError::Phrase`] when the words are not a phrase, otherwise as [`unlock_passphrase`].
pub fn unlock_recovery(dir: &Path, vault: &VaultId, phrase: &str) -> Result<Opened, KeyError> {
    let entropy = parse_phrase(phrase)?;
    unlock(dir, "recovery", |slot| (*slot.lock() == Lock::Recovery && slot.vault() == vault).then(|| Ok(recovery_key(&entropy))))
}

/// Every slot file, by name, also those that can't be read.
///
/// # Errors
/// [`KeyError::Io`] when the directory can't be read; [`KeyError::TooMany`].
pub fn list(dir: &Path) -> Result<Vec<SlotInfo>, KeyError> {
    let describe = |name: String| {
        let kind = match read(&dir.join(&name)) {
            Err(error) => SlotKind::Unreadable(error.to_string()),
            Ok(slot) => match slot.lock() {
                Lock::Passphrase(cost) => SlotKind::Passphrase(*cost),
                Lock::Recovery => SlotKind::Recovery,
                Lock::Device(device) => SlotKind::Device(*device),
            },
        };
        SlotInfo { name, kind }
    };
    Ok(names(dir)?.into_iter().map(describe).collect())
}

/// The passphrase and recovery slots, for a new member replica. Unreadable ones stay behind.
///
/// # Errors
/// As [`list`].
pub fn export_portable(dir: &Path) -> Result<Vec<PortableSlot>, KeyError> {
    let readable = names(dir)?.into_iter().filter_map(|name| read(&dir.join(name)).ok());
    Ok(readable.filter(|slot| slot.lock().is_portable()).map(|slot| (slot.file_name(), slot.to_file())).collect())
}

/// Keeps slots that a member sent. Everything about them is checked first; if one is refused, none is written.
///
/// # Errors
/// [`KeyError::Damaged`] when one is not a portable slot of this vault under its own name, [`KeyError::Bounds`], [`KeyError::TooMany`],
/// [`KeyError::Io`].
pub fn import_portable(dir: &Path, vault: &VaultId, slots: &[PortableSlot]) -> Result<(), KeyError> {
    if slots.len() > KEY_SLOTS_MAX {
        return Err(KeyError::TooMany);
    }
    let checked: Vec<Slot> = slots.iter().map(|(name, bytes)| check_portable(vault, name, bytes)).collect::<Result<_, _>>()?;
    checked.iter().try_for_each(|slot| write(dir, slot))
}

fn check_portable(vault: &VaultId, name: &str, bytes: &[u8]) -> Result<Slot, KeyError> {
    let refuse = |reason: &str| KeyError::Damaged { file: name.into(), reason: reason.into() };
    if bytes.len() > KEY_SLOT_BYTES_MAX {
        return Err(refuse("it is too long"));
    }
    let slot = Slot::from_file(Path::new(name), bytes)?;
    match () {
        () if slot.vault() != vault => Err(refuse("it belongs to another vault")),
        () if !slot.lock().is_portable() => Err(refuse("it belongs to a device")),
        () if slot.file_name() != name => Err(refuse("its name is not its own")),
        () => Ok(slot),
    }
}

/// Tries each slot to which `key` gives a wrapping key.
fn unlock(dir: &Path, kind: &'static str, key: impl Fn(&Slot) -> Option<Result<WrappingKey, KeyError>>) -> Result<Opened, KeyError> {
    let mut failure = KeyError::NoSlot(kind);
    for name in names(dir)?.into_iter().filter(|name| name.starts_with(kind)) {
        let opened = read(&dir.join(name)).and_then(|slot| match key(&slot) {
            Some(key) => {
                let key = key?;
                Ok((slot.unwrap_with(&key)?, slot.spare(&key)))
            }
            None => Err(KeyError::Wrong),
        });
        match opened {
            Ok((Secrets::Member(master), spare)) => return Ok(Opened { master, spare }),
            // A wrong passphrase is the likelier reason than a damaged slot beside a good one.
            Ok((Secrets::Keyless(_), _)) | Err(KeyError::Wrong) => failure = KeyError::Wrong,
            Err(error) if matches!(failure, KeyError::NoSlot(_)) => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

fn recovery_key(entropy: &[u8; ENTROPY_BYTES]) -> WrappingKey {
    let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 recovery slot");
    let key = Zeroizing::new(*hasher.update(entropy).finalize().as_bytes());
    hasher.zeroize();
    key
}

fn parse_phrase(phrase: &str) -> Result<Zeroizing<[u8; ENTROPY_BYTES]>, KeyError> {
    let mut words = Zeroizing::new(String::with_capacity(phrase.len()));
    for word in phrase.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.extend(word.chars().map(|letter| letter.to_ascii_lowercase()));
    }
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|error| KeyError::Phrase(wrong_words(&error)))?;
    let bytes = Zeroizing::new(mnemonic.to_entropy());
    let entropy = bytes.as_slice().try_into().map_err(|_| KeyError::Phrase(wrong_count(words.split(' ').count())))?;
    Ok(Zeroizing::new(entropy))
}

/// What is wrong, without a word of it.
fn wrong_words(error: &bip39::Error) -> String {
    match error {
        bip39::Error::BadWordCount(count) => wrong_count(*count),
        bip39::Error::UnknownWord(index) => format!("word {} of it is none that such phrases are made of", index + 1),
        _ => "a word of it is wrong, or two stand in each other's place".to_owned(),
    }
}

fn wrong_count(words: usize) -> String {
    format!("it has {words} words, and the one that was shown when the vault was made has 24")
}

fn write(dir: &Path, slot: &Slot) -> Result<(), KeyError> {
    let wrote = |source| KeyError::Io { what: format!("writing a key slot to {}", dir.display()), source };
    private_file::make_dir(dir).map_err(wrote)?;
    let name = slot.file_name();
    let others = names(dir)?.into_iter().filter(|other| *other != name).count();
    if others >= KEY_SLOTS_MAX {
        return Err(KeyError::TooMany);
    }
    private_file::write(&dir.join(name), &slot.to_file()).map_err(wrote)
}

fn read(path: &Path) -> Result<Slot, KeyError> {
    let bytes = private_file::read(path, KEY_SLOT_BYTES_MAX)
        .map_err(|source| KeyError::Io { what: format!("reading {}", path.display()), source })?;
    Slot::from_file(path, &bytes)
}

/// Names of slot files, sorted; none when the directory is not there.
fn names(dir: &Path) -> Result<Vec<String>, KeyError> {
    let failed = |source| KeyError::Io { what: format!("reading {}", dir.display()), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().filter(|name| name.ends_with(EXTENSION) && !name.starts_with('.')).map(str::to_owned));
        if names.len() > KEY_SLOTS_MAX {
            return Err(KeyError::TooMany);
        }
    }
    names.sort_unstable();
    Ok(names)
}
