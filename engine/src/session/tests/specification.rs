//! The specification shows the phase table and sample messages as the code has them. `MIRROR_BLESS=1` writes them anew.

use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier, ListRef},
    id::{ChunkId, ListId, ReplicaId, Root},
    meter::Load,
    session::{
        Message,
        message::{ByeCode, Cause, Promise, Timing},
        phase::{Input, Phase, Step},
    },
};
use bytes::Bytes;
use std::fmt::Write;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/specs/mirror-protocol.md");

fn phase_table() -> String {
    let mut table = String::from("| input |");
    Phase::ALL.iter().for_each(|phase| write!(table, " {phase:?} |").unwrap());
    table.push_str("\n| --- |");
    Phase::ALL.iter().for_each(|_| table.push_str(" --- |"));
    for input in Input::ALL {
        write!(table, "\n| {input:?} |").unwrap();
        for phase in Phase::ALL {
            let step = match phase.step(input) {
                Step::Stay => "stay".to_owned(),
                Step::To(next) => format!("**{next:?}**"),
                Step::Refuse(what) => format!("refuse: {what}"),
                Step::Ignore => "-".to_owned(),
            };
            write!(table, " {step} |").unwrap();
        }
    }
    table
}

fn samples() -> [(&'static str, Message); 14] {
    let frontier: Frontier = [Dot { author: ReplicaId::from_bytes([1; 32]), sequence: 5 }].into_iter().collect();
    let list = ListRef { id: ListId::from_bytes([2; 32]), entries: 8, bytes: 800 };
    let mut bits = Bitmap::empty(8);
    [1, 2, 7].into_iter().for_each(|bit| assert!(bits.insert(bit)));
    let frames = Bytes::from_static(b"frames");
    [
        ("Hello", Message::Hello(Bytes::from_static(b"sealed"))),
        ("Events", Message::Events { timing: Timing::Known, promise: Promise::None, frames: frames.clone() }),
        ("Events, early, chunks promised", Message::Events { timing: Timing::Early, promise: Promise::Chunks, frames: frames.clone() }),
        ("Want 1, 2 and 7 of 8", Message::Want { list, want: bits.clone() }),
        ("Served, 1, 2 and 7 of 8 unavailable", Message::Served { list: list.id, unavailable: bits }),
        ("Chunks, asked for", Message::Chunks { cause: Cause::Asked, list: list.id, frames: frames.clone() }),
        ("Chunks, promised", Message::Chunks { cause: Cause::Promised, list: list.id, frames }),
        ("Applied", Message::Applied { frontier, root: Root::from_bytes([3; 32]), parked: Frontier::new() }),
        ("Finished", Message::Finished),
        ("Damaged", Message::Damaged(vec![ChunkId::from_bytes([4; 32])])),
        ("Healed, but for 3 chunks", Message::Healed { lost: 3 }),
        ("HelloOfEpoch", Message::HelloOfEpoch { newest: Bytes::from_static(b"newest"), first: Bytes::from_static(b"first") }),
        ("Load, 1 s, of which 0.5 s to check", Message::Load(Load { elapsed_us: 1_000_000, check_us: 500_000, ..Load::default() })),
        ("Bye", Message::Bye { code: ByeCode::Stopped, reason: "why".into() }),
    ]
}

fn sample_table() -> String {
    let mut table = String::from("| message | bytes |\n| --- | --- |");
    for (name, message) in samples() {
        let hex: String = message.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        write!(table, "\n| {name} | `{hex}` |").unwrap();
    }
    table
}

fn replace(text: &str, section: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- begin {section} -->\n"), format!("\n<!-- end {section} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("the specification has no section {section}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("section {section} has no end"));
    format!("{before}{begin}{content}{end}{after}")
}

#[test]
fn the_specification_says_what_the_code_does() {
    let found = std::fs::read_to_string(PATH).unwrap();
    let expected = replace(&replace(&found, "phases", &phase_table()), "samples", &sample_table());
    if std::env::var_os("MIRROR_BLESS").is_some() {
        std::fs::write(PATH, &expected).unwrap();
    } else {
        assert_eq!(found, expected, "run this test with MIRROR_BLESS=1 and look at the difference");
    }
}
