//! `docs/failures.md`: every case names a test that there is, and an exit code that the program has.

use crate::{read, section, top};
use std::{collections::BTreeSet, fs};

const PAGE: &str = "docs/failures.md";
const CODES: [&str; 18] = ["–", "0", "1", "2", "3", "4", "5", "6", "8", "9", "10", "11", "12", "13", "14", "15", "16", "130"];

/// Number, exit codes, and tests of each row.
fn cases() -> Vec<(String, Vec<String>, Vec<String>)> {
    let page = read(PAGE);
    let rows = section(&page, "cases").lines().filter(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0] != "#" && !cells[0].starts_with("--"));
    let case = |cells: Vec<String>| {
        assert_eq!(cells.len(), 5, "{cells:?}");
        let tests = cells[4].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].clone(), cells[2].split(", ").map(str::to_owned).collect(), tests)
    };
    rows.map(case).collect()
}

#[test]
fn every_case_has_a_number_of_its_own_and_codes_that_the_program_has() {
    let cases = cases();
    assert!(cases.len() > 80, "{}", cases.len());
    let numbers: BTreeSet<&String> = cases.iter().map(|(number, ..)| number).collect();
    assert_eq!(numbers.len(), cases.len());
    for (number, codes, _) in &cases {
        assert!(codes.iter().all(|code| CODES.contains(&code.as_str())), "{number}: {codes:?}");
    }
}

#[test]
fn every_case_is_shown_by_tests_that_there_are() {
    for (number, _, tests) in cases() {
        assert!(!tests.is_empty(), "{number} names no test");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("{number}: {test} is not path::name"));
            let source = fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{number}: {path}: {error}"));
            let at = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{number}: {path} has no test {name}"));
            // What stands before a test's name is its attribute, or another parameter of proptest's macro.
            assert!(source[..at].contains("#[test]") || source[..at].contains("::test"), "{number}: {test} is no test");
        }
    }
}
