//! Wall clocks that are wrong by years, on one replica or on all, or that jump: shown to people, and nothing else.

use super::super::replicas::{Devices, keys, pull};
use crate::{
    clock::{self, wrong_by},
    event::Key,
    members::Role,
    vault::{Unwatched, Vault},
};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

fn put(vault: &Vault, value: &str) {
    vault.put(&Key::new("k").unwrap(), &mut value.as_bytes(), &Unwatched).unwrap();
}

fn value(vault: &Vault) -> String {
    let mut value = Vec::new();
    vault.get(&Key::new("k").unwrap(), &mut value).unwrap();
    String::from_utf8(value).unwrap()
}

fn two() -> (Devices, Vault, Vault) {
    let (devices, a) = Devices::new();
    let b = devices.join(&a, "b", Role::Member);
    pull(&b, &a).unwrap();
    (devices, a, b)
}

#[test]
fn who_has_seen_the_other_s_change_wins_whatever_the_clocks_say() {
    for (earlier_by, later_by) in [(100 * YEAR_MS, -10 * YEAR_MS), (0, -HOUR_MS), (0, -100 * YEAR_MS)] {
        let (_devices, a, b) = two();
        wrong_by(earlier_by, || put(&a, "earlier"));
        pull(&b, &a).unwrap();
        wrong_by(later_by, || put(&b, "later"));
        pull(&a, &b).unwrap();
        assert_eq!([value(&a), value(&b)], ["later", "later"], "{earlier_by} {later_by}");
        assert_eq!(a.store().root(), b.store().root());
    }
}

#[test]
fn who_wins_of_two_that_did_not_know_of_each_other_does_not_depend_on_the_clocks() {
    for (by_a, by_b) in [(0, 0), (100 * YEAR_MS, -10 * YEAR_MS), (-10 * YEAR_MS, 100 * YEAR_MS)] {
        let (_devices, a, b) = two();
        wrong_by(by_a, || put(&a, "a"));
        wrong_by(by_b, || put(&b, "b"));
        // At the same logical time the higher author wins.
        let expected = if a.info().replica > b.info().replica { "a" } else { "b" };
        pull(&b, &a).unwrap();
        pull(&a, &b).unwrap();
        assert_eq!([value(&a), value(&b)], [expected, expected], "{by_a} {by_b}");
    }
}

#[test]
fn a_clock_that_jumps_between_changes_reorders_nothing_and_loses_nothing() {
    let (_devices, a, b) = two();
    for (at, by) in [0, HOUR_MS, 0, 100 * YEAR_MS, -100 * YEAR_MS, 0].into_iter().enumerate() {
        wrong_by(by, || put(&a, &at.to_string()));
        wrong_by(-by, || pull(&b, &a)).unwrap();
        assert_eq!([value(&a), value(&b)], [at.to_string(), at.to_string()]);
    }
    assert_eq!((keys(&a), keys(&b)), (vec!["k".to_owned()], vec!["k".to_owned()]));
}

#[test]
fn a_clock_before_1970_stands_at_its_beginning() {
    assert_eq!(wrong_by(-1_000 * YEAR_MS, clock::wall_ms), 0);
}
