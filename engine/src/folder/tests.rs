//! Folders on replicas that exchange events when a test says so: what each side has seen is decided, not raced for.

use super::{look::Scope, *};
use crate::{
    members::Role,
    vault::replicas::{Devices, pull},
};
use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One replica with its folder.
struct Side {
    vault: Arc<Vault>,
    folder: Option<Folder>,
    dir: PathBuf,
    options: FolderOptions,
}

impl Side {
    fn new(devices: &Devices, vault: Vault, name: &str, flow: Flow) -> Self {
        let dir = devices.dir(&format!("folder-{name}"));
        fs::create_dir(&dir).unwrap();
        let dir = dir.canonicalize().unwrap();
        let mut side = Self { vault: Arc::new(vault), folder: None, dir, options: FolderOptions::new(flow) };
        side.restart();
        side
    }

    /// Another run of the program.
    fn restart(&mut self) {
        self.folder = None;
        self.folder = Some(Folder::open(self.vault.clone(), &self.dir, self.options.clone()).unwrap());
    }

    /// Another run, with nothing known of the one before.
    fn forget(&mut self) {
        let prefix = self.folder().naming.prefix().to_vec();
        self.folder = None;
        fs::remove_file(self.vault.home().folder_path(self.vault.dir(), &self.dir, &prefix).unwrap()).unwrap();
        self.restart();
    }

    fn folder(&self) -> &Folder {
        self.folder.as_ref().unwrap()
    }

    /// Takes in and writes out until there is nothing to do.
    fn settle(&self) {
        let begun = crate::clock::now();
        loop {
            let left = if self.options.flow.takes_in() {
                self.folder().take_in(&Scope::Whole, Moving::Left).unwrap()
            } else {
                inward::Left::default()
            };
            assert_eq!(left.paused, None);
            let undone = if self.options.flow.writes_out() { self.folder().write_all().unwrap() } else { Undone::default() };
            if left.paths.is_empty() && undone.changed.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{left:?} {undone:?}");
        }
    }

    /// Writes out only, as if the disk had not been looked at.
    fn write_out(&self) -> Undone {
        self.folder().write_all().unwrap()
    }

    fn write(&self, name: &str, bytes: &str) {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.join(name)).unwrap();
    }

    /// What lies in the folder: kind with mode, time of files, bytes or target.
    fn tree(&self) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
        use std::os::unix::fs::MetadataExt;
        let entry = |entry: walkdir::DirEntry| {
            let metadata = entry.metadata().unwrap();
            let bytes = match metadata.file_type() {
                kind if kind.is_dir() => Vec::new(),
                kind if kind.is_symlink() => fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(entry.path()).unwrap(),
            };
            let time = if metadata.is_dir() { 0 } else { metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() };
            let name = entry.path().strip_prefix(&self.dir).unwrap().display().to_string();
            // A directory that nobody says anything of is there because of what lies in it, with whatever mode.
            let said = !metadata.is_dir() || self.folder().naming.key(entry.path()).is_some_and(|key| self.folder().is_live(&key).unwrap());
            (name, (if said { metadata.mode() } else { 0 }, time, bytes))
        };
        walkdir::WalkDir::new(&self.dir).min_depth(1).into_iter().map(|found| entry(found.unwrap())).collect()
    }

    fn names(&self) -> Vec<String> {
        self.tree().into_keys().collect()
    }

    fn conflicts(&self) -> usize {
        let mut count = 0;
        self.vault
            .conflicts(b"", &mut |_| {
                count += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        count
    }

    fn events(&self) -> u64 {
        self.vault.store().counts().unwrap().events
    }
}

/// The founder's replica and another one, each with a folder.
fn pair(flow: Flow) -> (Devices, Side, Side) {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Member);
    pull(&second, &first).unwrap();
    let a = Side::new(&devices, first, "a", Flow::Both);
    let b = Side::new(&devices, second, "b", flow);
    (devices, a, b)
}

/// Both hold the same events afterwards. Nothing is looked at.
fn meet(a: &Side, b: &Side) {
    pull(&a.vault, &b.vault).unwrap();
    pull(&b.vault, &a.vault).unwrap();
}

/// Everything everywhere.
fn converge(a: &Side, b: &Side) {
    for _ in 0..4 {
        a.settle();
        b.settle();
        meet(a, b);
    }
    a.settle();
    b.settle();
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn edits_renames_and_deletions_go_both_ways_with_modes_times_and_links() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("d/one", "one");
    a.write("two", "two");
    fs::create_dir(a.dir.join("empty")).unwrap();
    symlink("d/one", a.dir.join("link")).unwrap();
    fs::set_permissions(a.dir.join("two"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(a.dir.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    converge(&a, &b);
    assert_eq!(b.names(), ["d", "d/one", "empty", "link", "two"]);
    b.write("d/one", "one more");
    fs::rename(b.dir.join("two"), b.dir.join("d/zwei")).unwrap();
    fs::remove_dir(b.dir.join("empty")).unwrap();
    converge(&a, &b);
    assert_eq!(a.names(), ["d", "d/one", "d/zwei", "link"]);
    assert_eq!(a.read("link").as_deref(), Some("one more"));
    fs::remove_dir_all(a.dir.join("d")).unwrap();
    a.remove("link");
    converge(&a, &b);
    assert!(b.names().is_empty());
}

#[test]
fn what_was_written_out_is_not_taken_in_again_not_after_a_restart_either() {
    let (_devices, a, mut b) = pair(Flow::Both);
    (0..20).for_each(|n| a.write(&format!("d/{n}"), &format!("{n}")));
    converge(&a, &b);
    let (events, written) = (b.events(), b.folder().status());
    assert_eq!((written.taken_in, written.written_out), (0, 21));
    b.restart();
    b.settle();
    b.forget();
    b.settle();
    assert_eq!(b.events(), events);
    let status = b.folder().status();
    assert_eq!((status.taken_in, status.written_out, status.kept_beside), (0, 0, 0));
}

#[test]
fn a_file_that_both_changed_is_on_both_sides_twice_under_the_same_names() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("d/notes.txt", "old");
    converge(&a, &b);
    a.write("d/notes.txt", "by a");
    b.write("d/notes.txt", "by b");
    converge(&a, &b);
    let names = a.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[1].starts_with("d/notes.conflict-") && names[1].ends_with(".txt"), "{names:?}");
    let mut versions: Vec<_> = names[1..].iter().filter_map(|name| a.read(name)).collect();
    versions.sort();
    assert_eq!(versions, ["by a", "by b"]);
    assert_eq!((a.conflicts(), b.conflicts()), (1, 1));
    assert_eq!(a.folder().status().kept_beside, 1);
}

#[test]
fn removing_the_other_version_says_that_the_one_that_stands_is_right() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x", "by a");
    b.write("x", "by b");
    converge(&a, &b);
    let copy = a.names()[1].clone();
    let stands = a.read("x").unwrap();
    b.remove(&copy);
    converge(&a, &b);
    assert_eq!((a.names(), a.read("x").unwrap(), a.conflicts()), (vec!["x".to_owned()], stands, 0));
}

#[test]
fn deciding_in_the_vault_removes_the_other_version_from_the_folder() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x", "by a");
    b.write("x", "by b");
    converge(&a, &b);
    let key = Key::new("x").unwrap();
    let loser = a.vault.maximal(&key).unwrap()[1].clone();
    a.vault.resolve(&key, &loser.place.event.to_string()).unwrap();
    let other = a.read(&a.names()[1]).unwrap();
    converge(&a, &b);
    assert_eq!((b.names(), b.read("x").unwrap(), b.conflicts()), (vec!["x".to_owned()], other, 0));
}

#[test]
fn a_later_edit_of_what_stands_ends_the_conflict_and_takes_no_version_out_of_the_folder() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x", "by a");
    b.write("x", "by b");
    converge(&a, &b);
    let copy = a.names()[1].clone();
    let other = a.read(&copy);
    a.write("x", "merged");
    converge(&a, &b);
    assert_eq!((b.read("x").as_deref(), b.read(&copy), b.conflicts()), (Some("merged"), other, 0));
    // Now it is a file like any other.
    b.remove(&copy);
    converge(&a, &b);
    assert_eq!((a.names(), a.read("x").as_deref()), (vec!["x".to_owned()], Some("merged")));
}

#[test]
fn an_edited_other_version_becomes_a_file_of_its_own() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x", "by a");
    b.write("x", "by b");
    converge(&a, &b);
    let copy = a.names()[1].clone();
    a.write(&copy, "worked on");
    converge(&a, &b);
    assert_eq!(b.read(&copy).as_deref(), Some("worked on"));
    b.vault.resolve(&Key::new("x").unwrap(), &b.vault.maximal(&Key::new("x").unwrap()).unwrap()[0].place.event.to_string()).unwrap();
    converge(&a, &b);
    assert_eq!(a.read(&copy).as_deref(), Some("worked on"));
}

#[test]
fn a_change_made_while_another_arrives_is_kept_beside_it_and_nothing_is_overwritten() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x.txt", "old");
    converge(&a, &b);
    a.write("x.txt", "by a");
    a.settle();
    meet(&a, &b);
    // The event is here, and so is a change that nobody has looked at.
    b.write("x.txt", "by b");
    let undone = b.write_out();
    assert_eq!((undone.changed.len(), b.read("x.txt").as_deref()), (1, Some("by b")));
    converge(&a, &b);
    let names = a.names();
    assert_eq!(names.len(), 2);
    assert_eq!((a.read("x.txt").as_deref(), a.read(&names[0]).as_deref()), (Some("by b"), Some("by a")), "{names:?}");
}

#[test]
fn a_change_is_worth_more_than_a_deletion() {
    // Which side has seen what: the deletion first, the change first, neither.
    for first in ["a", "b", "neither"] {
        let (_devices, a, b) = pair(Flow::Both);
        a.write("x", "old");
        converge(&a, &b);
        a.remove("x");
        b.write("x", "new");
        match first {
            "a" => {
                a.settle();
                pull(&b.vault, &a.vault).unwrap();
            }
            "b" => {
                b.settle();
                pull(&a.vault, &b.vault).unwrap();
            }
            _ => {
                a.settle();
                b.settle();
            }
        }
        converge(&a, &b);
        let values: Vec<_> = a.names().iter().map(|name| a.read(name).unwrap()).collect();
        assert_eq!(values, ["new"], "{first}: {:?}", a.names());
        if first != "neither" {
            assert_eq!(a.names(), ["x"]);
        }
    }
}

#[test]
fn without_a_state_nothing_is_deleted_and_what_differs_is_kept_twice() {
    let (_devices, a, mut b) = pair(Flow::Both);
    ["same", "changed", "deleted"].iter().for_each(|name| a.write(name, name));
    converge(&a, &b);
    b.write("changed", "here");
    b.remove("deleted");
    b.forget();
    converge(&a, &b);
    let names = a.names();
    assert_eq!((names.len(), a.read("changed").as_deref(), a.read("same").as_deref()), (4, Some("changed"), Some("same")), "{names:?}");
    assert_eq!(a.read("deleted").as_deref(), Some("deleted"));
    assert_eq!(a.read(&names[1]).as_deref(), Some("here"));
}

#[test]
fn a_folder_with_the_same_files_is_joined_without_a_word() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("d/x", "the same");
    b.write("d/x", "the same");
    a.settle();
    meet(&a, &b);
    let events = a.events();
    converge(&a, &b);
    assert_eq!((a.names(), a.events()), (vec!["d".to_owned(), "d/x".to_owned()], events), "only its time was taken over");
}

#[test]
fn where_nothing_is_taken_in_a_change_stays_and_is_named() {
    let (_devices, a, b) = pair(Flow::Out);
    a.write("x", "old");
    a.write("y", "old");
    converge(&a, &b);
    b.write("x", "mine");
    b.write("own", "mine");
    a.write("x", "new");
    a.write("y", "new");
    a.settle();
    meet(&a, &b);
    b.settle();
    assert_eq!((b.read("x").as_deref(), b.read("y").as_deref(), b.read("own").as_deref()), (Some("mine"), Some("new"), Some("mine")));
    let problems = b.folder().status().problems;
    assert_eq!(problems.len(), 1);
    assert!(problems.first_key_value().unwrap().0.ends_with("/x"), "{problems:?}");
    a.remove("x");
    a.settle();
    meet(&a, &b);
    b.settle();
    assert_eq!(b.read("x").as_deref(), Some("mine"));
    b.remove("x");
    b.settle();
    assert_eq!(b.names(), ["own", "y"]);
}

#[test]
fn a_watched_folder_is_the_source_and_gets_nothing() {
    let (_devices, a, b) = pair(Flow::In);
    a.write("x", "by a");
    a.settle();
    meet(&a, &b);
    b.settle();
    assert!(b.names().is_empty());
    b.write("x", "by b");
    b.settle();
    meet(&a, &b);
    a.settle();
    let names = a.names();
    assert_eq!((a.read("x").as_deref(), a.read(&names[1]).as_deref()), (Some("by b"), Some("by a")), "{names:?}");
    b.remove("x");
    b.settle();
    meet(&a, &b);
    a.settle();
    assert_eq!(a.names(), names[1..]);
}

#[test]
fn keys_that_climb_are_named_and_written_nowhere() {
    let (devices, a, b) = pair(Flow::Both);
    for key in ["../outside", "/abs", "d/../../outside", "good"] {
        a.vault.put(&Key::new(key).unwrap(), &mut &b"x"[..], &crate::vault::Unwatched).unwrap();
    }
    meet(&a, &b);
    b.settle();
    assert_eq!(b.names(), ["good"]);
    assert!(!devices.dir("outside").exists());
    assert_eq!(b.folder().status().problems.len(), 3);
    let events = b.events();
    b.settle();
    assert_eq!(b.events(), events, "a value without permissions is what its file has");
}

#[test]
fn a_directory_that_only_its_content_made_is_not_said_to_be_one() {
    let (_devices, a, b) = pair(Flow::Both);
    a.vault.put(&Key::new("d/e/x").unwrap(), &mut &b"x"[..], &crate::vault::Unwatched).unwrap();
    meet(&a, &b);
    let events = b.events();
    b.settle();
    assert_eq!((b.names(), b.events()), (["d", "d/e", "d/e/x"].map(String::from).to_vec(), events));
}

#[test]
fn nothing_is_read_or_written_through_a_link() {
    let (devices, a, b) = pair(Flow::Both);
    let outside = devices.dir("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x"), "secret").unwrap();
    a.write("d/x", "one");
    converge(&a, &b);
    fs::remove_dir_all(b.dir.join("d")).unwrap();
    symlink(&outside, b.dir.join("d")).unwrap();
    // An event that came before the link did.
    b.folder().take_in(&Scope::Paths(vec![b.dir.join("d/x")]), Moving::Left).unwrap();
    b.settle();
    a.write("d/x", "two");
    converge(&a, &b);
    assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "secret");
    assert!(a.tree().values().all(|(_, _, bytes)| bytes != b"secret"));
}

#[test]
fn a_file_a_directory_and_a_link_take_each_others_place() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x", "file");
    converge(&a, &b);
    a.remove("x");
    a.write("x/y/z", "deep");
    converge(&a, &b);
    assert_eq!(b.read("x/y/z").as_deref(), Some("deep"));
    fs::remove_dir_all(a.dir.join("x")).unwrap();
    symlink("nowhere", a.dir.join("x")).unwrap();
    converge(&a, &b);
    assert_eq!(b.names(), ["x"]);
    b.remove("x");
    b.write("x", "file again");
    converge(&a, &b);
    assert_eq!(a.read("x").as_deref(), Some("file again"));
}

#[test]
fn a_file_makes_way_for_a_directory_of_the_same_name_and_comes_back() {
    let (_devices, a, b) = pair(Flow::Both);
    a.write("x", "file");
    b.write("x/y", "inside");
    converge(&a, &b);
    let names = a.names();
    assert_eq!((names.len(), a.read("x/y").as_deref(), a.read(&names[1]).as_deref()), (3, Some("inside"), Some("file")), "{names:?}");
    fs::remove_dir_all(a.dir.join("x")).unwrap();
    converge(&a, &b);
    assert!(b.tree().values().any(|(_, _, bytes)| bytes == b"file"), "{:?}", b.names());
}

#[test]
fn what_a_crash_left_half_written_is_no_file_and_goes() {
    let (_devices, a, b) = pair(Flow::Both);
    // No process has so high a number.
    a.write(".mirror-4194305-3.part", "half");
    a.write(&format!(".mirror-{}-3.part", std::process::id()), "being written");
    converge_names(&a, &b);
    assert!(b.names().is_empty());
    assert_eq!(a.names().len(), 1, "of a process that is alive: it stays");
}

fn converge_names(a: &Side, b: &Side) {
    a.settle();
    meet(a, b);
    b.settle();
}

#[test]
fn files_that_vanish_all_at_once_are_not_deleted() {
    let (_devices, mut a, b) = pair(Flow::Both);
    (0..150).for_each(|n| a.write(&format!("{n}"), ""));
    converge(&a, &b);
    (0..120).for_each(|n| a.remove(&format!("{n}")));
    let left = a.folder().take_in(&Scope::Whole, Moving::Left).unwrap();
    assert!(left.paused.is_some_and(|reason| reason.contains("120 of 150")), "it says how many");
    meet(&a, &b);
    b.settle();
    assert_eq!(b.names().len(), 150);
    a.options.delete_limit = None;
    a.restart();
    converge(&a, &b);
    assert_eq!(b.names().len(), 30);
}

/// The guard had looked before: what a look finds gone may be gone because the directory went while it looked.
#[test]
fn a_directory_that_goes_while_it_is_looked_at_is_not_deleted_content() {
    for emptied in [true, false] {
        let (devices, a, b) = pair(Flow::Both);
        (0..20).for_each(|n| a.write(&format!("{n}"), ""));
        converge(&a, &b);
        fs::rename(&a.dir, devices.dir("away")).unwrap();
        if emptied {
            fs::create_dir(&a.dir).unwrap();
        }
        let left = a.folder().take_in(&Scope::Whole, Moving::Left).unwrap();
        assert!(left.paused.is_some(), "emptied {emptied}: {left:?}");
        assert_eq!(a.folder().status().deletions_in, 0);
    }
}

#[test]
fn two_folders_share_a_vault_each_with_its_prefix() {
    let (devices, a, b) = pair(Flow::Both);
    let dir = devices.dir("photos");
    fs::create_dir(&dir).unwrap();
    let options = FolderOptions { prefix: Some("photos/".into()), ..FolderOptions::new(Flow::Both) };
    let photos = Side {
        folder: Some(Folder::open(b.vault.clone(), &dir, options.clone()).unwrap()),
        vault: b.vault.clone(),
        dir: dir.canonicalize().unwrap(),
        options,
    };
    photos.write("2026/x.jpg", "jpg");
    photos.settle();
    converge(&a, &b);
    assert_eq!(a.read("photos/2026/x.jpg").as_deref(), Some("jpg"));
    a.write("photos/y.jpg", "another");
    a.write("elsewhere", "");
    converge(&a, &b);
    photos.settle();
    assert_eq!(photos.names(), ["2026", "2026/x.jpg", "y.jpg"]);
}

#[test]
fn folders_that_cannot_be_followed_are_refused() {
    let (devices, a, _b) = pair(Flow::Both);
    let open = |vault: &Arc<Vault>, dir: &Path| Folder::open(vault.clone(), dir, FolderOptions::new(Flow::Both)).map(drop);
    for dir in [devices.dir("first"), devices.dir("first").join("packs"), devices.dir("first").join(".."), devices.dir("home-first")] {
        assert!(matches!(open(&a.vault, &dir), Err(VaultError::Nested { .. })), "{}", dir.display());
    }
    assert!(matches!(open(&a.vault, &a.dir), Err(VaultError::Busy(_))), "it is followed already");
    assert!(matches!(open(&a.vault, &devices.dir("absent")), Err(VaultError::Io { .. })));
    let keyless = Arc::new(devices.join(&a.vault, "keyless", Role::Keyless));
    let dir = devices.dir("folder-of-keyless");
    fs::create_dir(&dir).unwrap();
    assert!(matches!(open(&keyless, &dir), Err(VaultError::Keyless)));
}

/// A number from a seed (splitmix64).
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % below
}

/// Whatever two people do to a few names, one of which is a file here and a directory there, and whenever their replicas meet: both folders
/// end up the same, and nobody answers anybody for ever.
#[test]
fn random_histories_converge() {
    for first in 0..12_u64 {
        let (_devices, a, b) = pair(Flow::Both);
        let mut seed = first;
        for step in 0..14 {
            let side = [&a, &b][random(&mut seed, 2) as usize];
            let name = ["x", "d/y", "d/z", "d"][random(&mut seed, 4) as usize];
            let taken = side.dir.join(name).is_dir() || name.contains('/') && side.dir.join("d").is_file();
            match random(&mut seed, 8) {
                0..=3 if !taken => side.write(name, &format!("{first} {step}")),
                4 => drop(fs::remove_file(side.dir.join(name))),
                5 => side.settle(),
                6 => drop(pull(&a.vault, &b.vault)),
                _ => drop(pull(&b.vault, &a.vault)),
            }
        }
        converge(&a, &b);
        let events = (a.events(), b.events());
        converge(&a, &b);
        assert_eq!((a.events(), b.events()), events, "seed {first}: nobody answers anybody for ever");
    }
}

#[test]
fn where_nobody_tells_everything_is_looked_at_when_it_is_time() {
    let (_devices, a, _) = pair(Flow::Both);
    let mut follower = Follower::new(a.folder());
    follower.work();
    follower.listening = None;
    follower.lose_sight("there are too many".into(), clock::now());
    let (dir, events) = (a.folder().dir().display().to_string(), a.events());
    assert_eq!(a.folder().status().problems[&dir], "there are too many; looked at every 60 s");
    a.write("untold", "1");
    follower.work();
    assert_eq!(a.events(), events, "nobody has told of it");
    follower.look = Some(clock::now());
    follower.work();
    assert!(a.events() > events);
    assert!(a.folder().status().problems.is_empty(), "the system tells again");
}
