//! Links between documents lead somewhere, and the README's commands are those that exist.

use crate::{read, top};
use std::{fs, path::PathBuf};

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![top().join("README.md")];
    for dir in ["docs", "docs/specs", "docs/decisions"] {
        let entries = fs::read_dir(top().join(dir)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

#[test]
fn every_link_to_a_file_leads_to_one() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || file.is_empty();
            assert!(outside || page.parent().unwrap().join(file).exists(), "{}: {target}", page.display());
        }
    }
}

#[test]
fn the_readme_has_the_command_that_ci_runs() {
    let commands: Vec<String> = read("README.md").lines().filter_map(|line| line.strip_prefix("$ cargo ").map(str::to_owned)).collect();
    assert_eq!(commands, ["run --release --bin mirror -- demo", "test --workspace"]);
}
