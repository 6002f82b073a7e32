//! Making and opening vaults.
//!
//! A new vault is built in a hidden directory beside its place and renamed, so that an interrupted `init` leaves no half vault.

use super::{
    Config, InitOptions, Initialised, Repair, Sealing, Unlock, Vault, VaultError,
    config::FILE as CONFIG_FILE,
    derived::Derived,
    epochs::Keychain,
    membership::{PASSPHRASE, RECOVERY_PHRASE},
};
use crate::{
    chunk::Cutter,
    event::Heads,
    home::{Continuity, Home, OwnLog, VaultHome},
    id::{DeviceId, ReplicaId, VaultId},
    io::durable::{self, Disk},
    keys::{DeviceKey, MasterKey, Secrets, slots},
    limits::MEMORY_BYTES_DEFAULT,
    members::{Charter, FIRST_EPOCH},
    seal::SealKeys,
    store::{Lost, Store},
};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

const KEYS: &str = "keys";

pub(super) fn init(dir: &Path, home: &Home, options: InitOptions) -> Result<Initialised, VaultError> {
    if options.passphrase.is_none() && !options.recovery && !options.device_slot {
        return Err(VaultError::Usage("a vault without passphrase, recovery phrase and device slot could never be opened".into()));
    }
    let id = new_vault_id()?;
    let device = home.device()?;
    let master = MasterKey::generate()?;
    let config = Config::new(&id, &options.name).founded_by(&device.id());
    let mut recovery_phrase = None;
    let mut spares = Vec::new();
    build(dir, &config, &id, |keys| {
        if options.device_slot {
            slots::write_device(keys, &id, &Secrets::Member(master.clone()), &device)?;
        }
        if let Some(passphrase) = &options.passphrase {
            spares.push((PASSPHRASE, slots::write_passphrase(keys, &id, &master, passphrase)?));
        }
        if options.recovery {
            let (phrase, spare) = slots::write_recovery(keys, &id, &master)?;
            spares.push((RECOVERY_PHRASE, spare));
            recovery_phrase = Some(phrase);
        }
        Ok(())
    })?;
    let vault_home = home.vault(&id)?;
    let slot = if options.device_slot { DeviceSlot::Present } else { DeviceSlot::Absent };
    let unlocked = Unlocked { secrets: Secrets::Member(master), spare: None, slot };
    let (vault, _) = assemble(dir, config, id, vault_home, device, unlocked, Disk::default())?;
    vault.found(&options.device_name, &spares)?;
    Ok(Initialised { vault, recovery_phrase })
}

/// What a new replica of an existing vault starts from.
pub struct Origin {
    /// The vault's configuration.
    pub config: Config,
    /// The vault's key, or only its replication key.
    pub secrets: Secrets,
    /// Passphrase and recovery slots, as files; empty for a keyless replica.
    pub slots: Vec<(String, Vec<u8>)>,
}

/// Makes an empty replica of an existing vault in `dir`, which this device can open.
///
/// # Errors
/// As [`Vault::init`]; [`VaultError::Damaged`] when the origin makes no sense.
pub fn create_replica(dir: &Path, home: &Home, origin: Origin) -> Result<Vault, VaultError> {
    let id = origin.config.vault_id().map_err(|error| VaultError::Damaged(error.to_string()))?;
    let device = home.device()?;
    build(dir, &origin.config, &id, |keys| {
        slots::import_portable(keys, &id, &origin.slots)?;
        slots::write_device(keys, &id, &origin.secrets, &device)?;
        Ok(())
    })?;
    let vault_home = home.vault(&id)?;
    vault_home.forget_directory(dir)?;
    let unlocked = Unlocked { secrets: origin.secrets, spare: None, slot: DeviceSlot::Present };
    assemble(dir, origin.config, id, vault_home, device, unlocked, Disk::default()).map(|(vault, _)| vault)
}

fn new_vault_id() -> Result<VaultId, VaultError> {
    // The same source and self-check as for keys.
    Ok(VaultId::from_bytes(crate::keys::random_bytes()?))
}

fn build(dir: &Path, config: &Config, id: &VaultId, write_slots: impl FnOnce(&Path) -> Result<(), VaultError>) -> Result<(), VaultError> {
    refuse_non_empty(dir)?;
    refuse_inside_a_vault(dir)?;
    let staging = staging_beside(dir)?;
    let built = (|| {
        let keys = staging.join(KEYS);
        fs::DirBuilder::new().mode(0o700).create(&keys).map_err(|error| VaultError::io("making keys/", error))?;
        Store::create(&staging, id)?;
        write_slots(&keys)?;
        config.write(&staging)?;
        fs::rename(&staging, dir).map_err(|error| VaultError::io(format!("making {}", dir.display()), error))?;
        durable::sync_dir(durable::directory_of(dir)).map_err(|error| VaultError::io("syncing the parent directory", error))
    })();
    if built.is_err() {
        // The error that matters is the one above.
        let _ = fs::remove_dir_all(&staging);
    }
    built
}

fn refuse_non_empty(dir: &Path) -> Result<(), VaultError> {
    match fs::read_dir(dir).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(VaultError::NotEmpty(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(VaultError::NotEmpty(dir.to_owned())),
        Err(error) => Err(VaultError::io(format!("looking at {}", dir.display()), error)),
    }
}

fn refuse_inside_a_vault(dir: &Path) -> Result<(), VaultError> {
    let absolute = std::path::absolute(dir).map_err(|error| VaultError::io(format!("resolving {}", dir.display()), error))?;
    match absolute.ancestors().skip(1).find(|outer| outer.join(CONFIG_FILE).exists()) {
        Some(outer) => Err(VaultError::Nested { inner: dir.to_owned(), outer: outer.to_owned() }),
        None => Ok(()),
    }
}

fn staging_beside(dir: &Path) -> Result<PathBuf, VaultError> {
    let usage = || VaultError::Usage(format!("{} cannot be the name of a vault directory", dir.display()));
    let absolute = std::path::absolute(dir).map_err(|error| VaultError::io(format!("resolving {}", dir.display()), error))?;
    let name = absolute.file_name().ok_or_else(usage)?.to_string_lossy().into_owned();
    let parent = absolute.parent().ok_or_else(usage)?;
    fs::create_dir_all(parent).map_err(|error| VaultError::io(format!("making {}", parent.display()), error))?;
    let staging = parent.join(format!(".{name}.{}.new", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&staging).map_err(|error| VaultError::io(format!("making {}", staging.display()), error))?;
    Ok(staging)
}

pub(super) fn open(dir: &Path, home: &Home, unlock: Unlock, disk: Disk) -> Result<(Vault, Vec<Repair>), VaultError> {
    let config = Config::read(dir)?;
    let id = config.vault_id().map_err(|error| VaultError::Damaged(error.to_string()))?;
    let device = home.device()?;
    let keys = dir.join(KEYS);
    if !keys.is_dir() {
        return Err(VaultError::DamagedKey(format!("{} is missing", keys.display())));
    }
    let with_device = match slots::unlock_device(&keys, &id, &device) {
        Err(error) if !matches!(unlock, Unlock::Device) => {
            tracing::warn!(%error, "this device's own key slot cannot be used");
            None
        }
        found => found?,
    };
    let slot = if with_device.is_some() { DeviceSlot::Present } else { DeviceSlot::Absent };
    let opened = match unlock {
        Unlock::Device => None,
        Unlock::Passphrase(passphrase) => Some(slots::unlock_passphrase(&keys, &id, &passphrase)?),
        Unlock::Recovery(phrase) => Some(slots::unlock_recovery(&keys, &id, &phrase)?),
    };
    let (secrets, spare) = match opened {
        Some(slots::Opened { master, spare }) => (Secrets::Member(master), Some(spare)),
        None => (with_device.ok_or(VaultError::Locked)?, None),
    };
    let vault_home = home.vault(&id)?;
    assemble(dir, config, id, vault_home, device, Unlocked { secrets, spare, slot }, disk)
}

/// Whether this device can open the vault without asking. If not, plaintext names are kept in memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceSlot {
    Present,
    Absent,
}

/// What opened the vault.
struct Unlocked {
    secrets: Secrets,
    /// What a passphrase or phrase can sign as.
    spare: Option<DeviceKey>,
    slot: DeviceSlot,
}

fn assemble(
    dir: &Path,
    config: Config,
    id: VaultId,
    home: VaultHome,
    device: DeviceKey,
    unlocked: Unlocked,
    disk: Disk,
) -> Result<(Vault, Vec<Repair>), VaultError> {
    let (store, mut repairs) = Store::open_on(dir, &id, disk)?;
    let store = Arc::new(store);
    let known_lost = store.lost();
    store.expect(&home.seen(dir)?);
    let own = home.incarnation(dir, &device.id(), |author| own_log(&store, author))?;
    store.expect(&Heads(own.predecessor().into_iter().collect()));
    repairs.extend(store.lost().into_iter().filter(|lost| !known_lost.contains(lost)).map(|lost| rolled_back(&lost)));
    if let Err(error) = home.record_seen(dir, &store.accepted()) {
        tracing::warn!(%error, "what the vault holds was not noted outside of it");
    }
    if let Continuity::Renewed(why) = own.continuity() {
        let what = format!("{why}; this replica writes on as a new author");
        repairs.push(Repair { file: PathBuf::from("."), what, loss: false });
    }
    let Unlocked { secrets, spare, slot } = unlocked;
    let replication = secrets.replication_key(&id);
    if let Some(founder) = pinned_founder(&config, &home)? {
        store.govern(Charter::new(founder, &replication))?;
    }
    let sealing = match secrets {
        Secrets::Keyless(_) => None,
        Secrets::Member(ref master) => Some(Arc::new(sealing(master, &id, &own.id(), &home, dir, slot)?)),
    };
    let devices = std::iter::once(&device).chain(&spare).map(DeviceKey::duplicate).collect();
    let keychain = Arc::new(Keychain::new(&id, &store, secrets, devices));
    let (dir, memory_bytes) = (dir.to_owned(), MEMORY_BYTES_DEFAULT);
    Ok((Vault { dir, config, id, store, home, device, own, replication, keychain, sealing, spare, memory_bytes }, repairs))
}

/// The founder that `vault.toml` names, if it is the one that this device knows of: who can write to the directory can't choose another.
fn pinned_founder(config: &Config, home: &VaultHome) -> Result<Option<DeviceId>, VaultError> {
    let named = config.founding_device().map_err(|error| VaultError::Damaged(error.to_string()))?;
    match (named, home.founder()?) {
        (None, None) => Ok(None),
        (Some(named), None) => {
            home.pin_founder(&named)?;
            Ok(Some(named))
        }
        (named, Some(pinned)) if named == Some(pinned) => Ok(named),
        (named, Some(pinned)) => {
            let named = named.map_or_else(|| "no founder".to_owned(), |named| format!("{named} as the founder"));
            Err(VaultError::Damaged(format!("vault.toml names {named}, and this device was told {pinned}")))
        }
    }
}

/// What the vault directory does not know itself.
fn rolled_back(lost: &Lost) -> Repair {
    let (author, accepted, held) = (lost.author.short(), lost.accepted, lost.held);
    let what =
        format!("the vault directory is older than what this device has seen: replica {author} had event {accepted}, here is {held}");
    Repair { file: PathBuf::from("."), what, loss: true }
}

/// Where the log of `author` ends at this moment: another process may have appended since the store was opened.
fn own_log(store: &Store, author: &ReplicaId) -> OwnLog {
    if let Err(error) = store.refresh() {
        tracing::warn!("the log cannot be looked at again: {error}");
    }
    OwnLog { held: store.heads().0.get(author).copied(), accepted: store.accepted().0.get(author).copied() }
}

fn sealing(
    master: &MasterKey,
    id: &VaultId,
    replica: &ReplicaId,
    home: &VaultHome,
    dir: &Path,
    slot: DeviceSlot,
) -> Result<Sealing, VaultError> {
    let cutter = Cutter::new(&SealKeys::derive(master, id, FIRST_EPOCH).gear_key());
    let path = match slot {
        DeviceSlot::Present => Some(home.view_path(dir)?),
        DeviceSlot::Absent => None,
    };
    let derived = Derived::open(path, id, replica)?;
    Ok(Sealing { cutter, derived })
}
