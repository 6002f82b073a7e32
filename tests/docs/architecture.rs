//! `docs/architecture.md` against the engine's sources.

use crate::{hold, read, section, top};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

const PAGE: &str = "docs/architecture.md";
const LINES_MAX: usize = 700;

/// One source file of the engine.
struct Source {
    /// Relative to `engine/src`.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module to which it belongs; none for the crate's root.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|name| *name != "lib")
    }

    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Lines of code: without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// First sentence of the module's documentation.
    fn purpose(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        let words = lines.take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ");
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        words.split_once(". ").map_or(words.clone(), |(first, _)| format!("{first}.")).replace('|', "\\|")
    }

    /// Top-level modules of the engine that it names, each with the line.
    fn uses(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        let code: Vec<(usize, &str)> = self.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            for (_, after) in line.match_indices("crate::").map(|(at, name)| (at, &line[at + name.len()..])) {
                let names = if after.starts_with('{') { group(&code[at..]) } else { vec![name(after)] };
                names.into_iter().for_each(|name| _ = found.entry(name).or_insert(*number));
            }
        }
        found
    }
}

/// First names of the paths in `use crate::{ ... };`, which begins in the first of `lines`.
fn group(lines: &[(usize, &str)]) -> Vec<String> {
    let text = lines.iter().map(|(_, line)| *line).collect::<Vec<_>>().join(" ");
    let (_, inside) = text.split_once("crate::{").unwrap_or_default();
    let (mut depth, mut names, mut current) = (0, Vec::new(), String::new());
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut current)),
            _ if depth == 0 => current.push(letter),
            _ => {}
        }
    }
    names.push(current);
    names.iter().map(|path| name(path.trim())).filter(|name| !name.is_empty()).collect()
}

fn name(path: &str) -> String {
    path.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, below: &str, found: &mut Vec<Source>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            } else if path.ends_with(".rs") {
                found.push(Source { text: fs::read_to_string(entry.path()).unwrap(), path });
            }
        }
    }
    let mut found = Vec::new();
    walk(&top().join("engine/src"), "", &mut found);
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

/// Line of the layers in which a module stands, counted from the top.
fn layers() -> BTreeMap<String, usize> {
    let text = read(PAGE);
    let lines = section(&text, "layers").lines().filter(|line| !line.starts_with("```")).enumerate();
    lines.flat_map(|(layer, line)| line.split_whitespace().map(move |module| (module.to_owned(), layer)).collect::<Vec<_>>()).collect()
}

#[test]
fn a_module_uses_only_what_lies_below_it() {
    let layers = layers();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some(module) = source.module() else { continue };
        let own = layers[module];
        for (used, line) in source.uses().into_iter().filter(|(used, _)| used != module) {
            let below = layers.get(&used).is_some_and(|layer| *layer > own);
            assert!(below, "{}:{line}: {module} uses {used}, which is not below it", source.path);
        }
    }
}

#[test]
fn layers_and_map_name_every_module() {
    let modules: BTreeSet<String> = sources().iter().filter_map(|source| source.module().map(str::to_owned)).collect();
    assert_eq!(layers().into_keys().collect::<BTreeSet<_>>(), modules);
    let page = read(PAGE);
    for module in modules {
        assert!(page.contains(&format!("\n| `{module}` | ")), "the map has no line for {module}");
    }
}

#[test]
fn the_map_of_files_is_what_the_files_say() {
    let mut table = String::from("| file | what it is |\n| --- | --- |\n");
    for source in sources().iter().filter(|source| !source.is_test()) {
        assert!(!source.purpose().is_empty(), "{} has no module documentation", source.path);
        writeln!(table, "| `{}` | {} |", source.path, source.purpose()).unwrap();
    }
    hold(PAGE, "files", &table);
}

/// What stands in no line of the engine's code, and in which files it may.
const ABSENT: [(&str, &[&str]); 8] = [
    // What is simulated is told when it is asked for, by tests.
    ("println!", &["simulation/day.rs", "simulation/histories.rs", "simulation/mod.rs"]),
    ("eprintln!", &["simulation/day.rs", "simulation/histories.rs", "simulation/mod.rs"]),
    ("dbg!", &[]),
    ("std::env", &["simulation/mod.rs"]),
    ("env::var", &["simulation/mod.rs"]),
    ("SystemTime::now", &["clock.rs"]),
    // The runtime's clock, which tests of timers turn by hand.
    (
        "Instant::now",
        &[
            "clock.rs",
            "clock/simulated.rs",
            "transport/race.rs",
            "simulation/day.rs",
            "simulation/histories.rs",
            "simulation/net.rs",
            "simulation/world.rs",
        ],
    ),
    (
        "unsafe",
        &["io/mod.rs", "io/map.rs", "io/sigbus.rs", "io/uring.rs", "io/counting.rs", "io/priority.rs", "io/surplus.rs", "io/usage.rs"],
    ),
];

#[test]
fn what_never_happens_in_the_engine_does_not() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (what, allowed) in ABSENT {
            let found = source.code().find(|(_, line)| line.contains(what));
            let found = found.filter(|_| !allowed.contains(&source.path.as_str()));
            assert!(found.is_none(), "{}:{}: {what}", source.path, found.unwrap().0);
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", source.path);
    }
}
