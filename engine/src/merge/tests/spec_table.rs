//! The table of `docs/specs/merge.md`, printed from the code.

use super::history::World;
use crate::{
    event::{Dot, Operation},
    id::EventId,
    merge::{Action, Version, merge, versions_in},
};
use std::{env, fs, path::PathBuf};

const BEGIN: &str = "<!-- printed by merge::tests::spec_table: begin -->\n";
const END: &str = "<!-- printed by merge::tests::spec_table: end -->\n";
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// A history of one key `k` in words: what each replica does, in which order, and who hears of what.
struct Story {
    world: World,
    told: Vec<String>,
}

impl Story {
    fn new() -> Self {
        Self { world: World::new(3), told: Vec::new() }
    }

    fn put(mut self, replica: usize) -> Self {
        let id = self.world.put(replica, "k");
        self.tell(id, "put")
    }

    fn delete(mut self, replica: usize) -> Self {
        let id = self.world.delete(replica, "k");
        self.tell(id, "delete")
    }

    fn put_then_delete(mut self, replica: usize) -> Self {
        let id = self
            .world
            .write(replica, |number| vec![super::history::put_of("k", number), Operation::Delete(super::history::key("k"), None)]);
        self.tell(id, "put, then delete")
    }

    fn resolve(mut self, replica: usize, chosen: (usize, u64)) -> Self {
        let chosen = Dot { author: self.world.author(chosen.0), sequence: chosen.1 };
        let id = self.world.events().iter().find(|event| event.dot == chosen).map(|event| event.id);
        let id = self.world.resolve(replica, "k", id.unwrap_or(EventId::from_bytes([0xee; 32])));
        let said = format!("resolve to {}", self.name_of(chosen));
        self.tell(id, &said)
    }

    fn sync(mut self, from: usize, to: usize) -> Self {
        self.world.sync(from, to);
        self.told.push(format!("{} → {}", letter(from), letter(to)));
        self
    }

    fn tell(mut self, id: EventId, said: &str) -> Self {
        let told = format!("{} {said}", self.name(&id));
        self.told.push(told);
        self
    }

    fn name(&self, id: &EventId) -> String {
        self.name_of(self.world.event(id).dot)
    }

    fn name_of(&self, dot: Dot) -> String {
        let replica = (0..self.world.replicas()).find(|replica| self.world.author(*replica) == dot.author);
        format!("{}{}", replica.map_or('?', letter), dot.sequence)
    }

    fn row(&self) -> String {
        let merged = merge(self.world.events());
        let Some(resolved) = merged.into_values().next() else { return format!("| {} | | | |\n", self.told.join("; ")) };
        let rule = resolved.rule(self.versions() - 1 - resolved.losers.len());
        let maximal: Vec<Version> = std::iter::once(resolved.winner).chain(resolved.losers).collect();
        let names: Vec<String> = maximal.iter().map(|version| self.standing(version)).collect();
        format!("| {} | {} | {} | {rule} |\n", self.told.join("; "), says(&maximal[0]), names.join(", "))
    }

    fn versions(&self) -> usize {
        let events = self.world.events().iter().map(|event| (event.id, event)).collect();
        self.world.events().iter().map(|event| versions_in(event, &super::history::key("k"), &events).len()).sum()
    }

    fn standing(&self, version: &Version) -> String {
        format!("{} at {}", self.name(&version.place.event), version.place.lamport)
    }
}

fn letter(replica: usize) -> char {
    ['A', 'B', 'C'][replica]
}

fn says(version: &Version) -> &'static str {
    match (&version.action, version.chosen) {
        (Action::Put(_), None) => "put",
        (Action::Delete(_), None) => "delete",
        (Action::Put(_), Some(_)) => "put, chosen",
        (Action::Delete(_), Some(_)) => "delete, chosen",
    }
}

fn stories() -> Vec<Story> {
    let conflict = || Story::new().put(A).delete(B).sync(B, A);
    vec![
        Story::new().put(A),
        Story::new().put(B).sync(B, A).put(A),
        Story::new().put(A).put(B),
        Story::new().put(A).put(A).put(B),
        Story::new().put(A).delete(B),
        Story::new().put(A).sync(A, B).delete(A).delete(B),
        Story::new().put(A).sync(A, B).delete(A).put(B),
        Story::new().put_then_delete(A),
        Story::new().put(A).put(B).put(C),
        Story::new().put(B).put(C).sync(B, A).put(A),
        conflict().resolve(A, (B, 1)),
        conflict().resolve(A, (A, 1)).sync(A, B).put(B),
        conflict().put(C).resolve(A, (A, 1)),
        conflict().sync(A, B).resolve(A, (A, 1)).resolve(B, (B, 1)),
        conflict().resolve(A, (A, 1)).sync(A, B).resolve(B, (A, 2)),
        Story::new().put(A).put(C).resolve(A, (C, 1)),
        Story::new().put(A).resolve(A, (C, 9)),
    ]
}

fn table() -> String {
    let head = "| history | what stands | maximal versions, winner first | why |\n| --- | --- | --- | --- |\n";
    stories().iter().fold(head.to_owned(), |table, story| table + &story.row())
}

#[test]
fn the_table_of_the_specification_is_what_the_code_does() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/specs/merge.md");
    let text = fs::read_to_string(&path).expect("docs/specs/merge.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (written, after) = rest.split_once(END).expect("where the table ends");
    let printed = table();
    if written != printed && env::var_os("MIRROR_BLESS").is_some() {
        fs::write(&path, [before, BEGIN, &printed, END, after].concat()).expect("the specification is written");
        return;
    }
    assert_eq!(written, printed, "set MIRROR_BLESS=1 to print the table anew, and read the difference");
}
