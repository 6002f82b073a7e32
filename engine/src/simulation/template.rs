//! Replicas of one vault, made once: every history begins with a copy of them.

use crate::{
    clock::simulated,
    home::Home,
    keys::Secrets,
    members::Role,
    vault::{self, InitOptions, Origin, Vault},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tempfile::TempDir;

/// The founder, two members, and one without the vault's key.
pub(super) const ROLES: [Role; 4] = [Role::Owner, Role::Member, Role::Member, Role::Keyless];

static TEMPLATE: OnceLock<TempDir> = OnceLock::new();

/// A directory in memory, where there is such a file system.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Makes directory and home of replica `number` below `parent`, as it is when all have heard who is in.
pub(super) fn copy(number: usize, parent: &Path) -> (PathBuf, Home) {
    let template = TEMPLATE.get_or_init(make).path();
    let name = number.to_string();
    copy_tree(&template.join(&name), &parent.join(&name));
    let home = format!("home-{number}");
    copy_tree(&template.join(&home), &parent.join(&home));
    (parent.join(name), Home::open(&parent.join(home)).unwrap())
}

fn make() -> TempDir {
    let _played = simulated::begin(super::EPOCH_MS, 1);
    let directory = directory();
    let home = |number: usize| Home::open(&directory.path().join(format!("home-{number}"))).unwrap();
    let options = InitOptions::for_this_device("v", "0");
    let founder = Vault::init(&directory.path().join("0"), &home(0), options).unwrap().vault;
    let others: Vec<Vault> =
        (1..ROLES.len()).map(|number| join(&founder, &directory.path().join(number.to_string()), &home(number), number)).collect();
    others.iter().for_each(|other| vault::replicas::pull(other, &founder).unwrap());
    directory
}

fn join(founder: &Vault, dir: &Path, home: &Home, number: usize) -> Vault {
    let role = ROLES[number];
    let secrets = match role {
        Role::Keyless => Secrets::Keyless(founder.replication_key().clone()),
        Role::Owner | Role::Member => founder.secrets().unwrap().clone(),
    };
    let vault = vault::create_replica(dir, home, Origin { config: founder.config().clone(), secrets, slots: Vec::new() }).unwrap();
    founder.admit(vault.device().newcomer(), role, &number.to_string()).unwrap();
    vault
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}
