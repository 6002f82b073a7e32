//! `--bwlimit`: one limit, or a timetable of limits as rclone has it: `08:00,1MiB:256KiB 19:00,off`.
//!
//! Each entry holds from its time on until the next one does, by the clock on the wall here. `Sat-08:00,off` begins on Saturdays only, and
//! takes the place of an entry of every day at the same time. A week's last entry also holds before its first.

use super::{
    nearest,
    quantity::{BandwidthLimit, QuantityError},
};
use std::{fmt, str::FromStr};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES_OF_DAY: u16 = 24 * 60;
const EXAMPLE: &str = "08:00,1MiB:256KiB 19:00,off Sat-08:00,off";

/// A minute of the week on the wall: from Monday, 00:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Minute(u16);

impl Minute {
    /// Monday, 00:00.
    pub(crate) const FIRST: Self = Self(0);

    /// `day` counts from Monday. None outside the week.
    pub(crate) fn new(day: u8, hour: u8, minute: u8) -> Option<Self> {
        let minutes = u16::from(hour) * 60 + u16::from(minute);
        (day < 7 && hour < 24 && minute < 60).then_some(Self(u16::from(day) * MINUTES_OF_DAY + minutes))
    }
}

/// `Sat 08:00`
impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, minute) = (self.0 / MINUTES_OF_DAY, self.0 % MINUTES_OF_DAY);
        write!(f, "{} {:02}:{:02}", DAYS[usize::from(day) % DAYS.len()], minute / 60, minute % 60)
    }
}

/// Limits by the minute of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timetable {
    /// From when on which, in order; never empty.
    entries: Vec<(Minute, BandwidthLimit)>,
    typed: String,
}

/// As it was typed.
impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

impl Timetable {
    /// What holds at a time.
    pub(crate) fn at(&self, now: Minute) -> BandwidthLimit {
        let begun = self.entries.partition_point(|(from, _)| *from <= now);
        let newest = self.entries[..begun].last().or(self.entries.last());
        newest.map_or_else(BandwidthLimit::default, |(_, limit)| *limit)
    }

    /// When something else holds next after `now`, if ever.
    pub(crate) fn changes(&self, now: Minute) -> Option<Minute> {
        let begun = self.entries.partition_point(|(from, _)| *from <= now);
        let (before, after) = self.entries.split_at(begun);
        after.iter().chain(before).find(|(_, limit)| *limit != self.at(now)).map(|(from, _)| *from)
    }
}

impl FromStr for Timetable {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let typed = text.split_whitespace().map(Entry::parse).collect::<Result<Vec<_>, _>>()?;
        for (at, entry) in typed.iter().enumerate() {
            if typed[..at].iter().any(|earlier| (earlier.day, earlier.minute) == (entry.day, entry.minute)) {
                return Err(QuantityError::new(format!("{} is there twice", entry.typed), "leave one of them out"));
            }
        }
        let mut entries: Vec<(Minute, BandwidthLimit)> = Vec::new();
        // Those of every day first: what is said of one day takes their place.
        for entry in typed.iter().filter(|entry| entry.day.is_none()).chain(typed.iter().filter(|entry| entry.day.is_some())) {
            entries.retain(|(from, _)| !entry.minutes().any(|minute| minute == *from));
            entries.extend(entry.minutes().map(|minute| (minute, entry.limit)));
        }
        entries.sort_by_key(|(from, _)| *from);
        if entries.is_empty() {
            Err(QuantityError::new("there is no entry", format!("write it like {EXAMPLE}")))
        } else {
            Ok(Self { entries, typed: text.split_whitespace().collect::<Vec<_>>().join(" ") })
        }
    }
}

/// One entry as typed.
struct Entry {
    typed: String,
    /// From Monday; none is every day.
    day: Option<u16>,
    /// Of the day.
    minute: u16,
    limit: BandwidthLimit,
}

impl Entry {
    fn parse(text: &str) -> Result<Self, QuantityError> {
        let Some((when, limit)) = text.split_once(',') else {
            return Err(QuantityError::new(format!("{text:?} says no time or no limit"), format!("write entries like {EXAMPLE}")));
        };
        let (day, time) = match when.split_once('-') {
            Some((day, time)) => (Some(parse_day(day)?), time),
            None => (None, when),
        };
        let limit = limit.parse().map_err(|error: QuantityError| error.within(text))?;
        Ok(Self { typed: when.to_owned(), day, minute: parse_time(time)?, limit })
    }

    fn minutes(&self) -> impl Iterator<Item = Minute> {
        let days = self.day.map_or(0..7, |day| day..day + 1);
        let minute = self.minute;
        days.map(move |day| Minute(day * MINUTES_OF_DAY + minute))
    }
}

fn parse_day(text: &str) -> Result<u16, QuantityError> {
    if let Some(day) = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text)) {
        return Ok(day as u16);
    }
    let hint = match nearest(text, &DAYS) {
        Some(meant) => format!("did you mean {meant}? Days are {}", DAYS.join(", ")),
        None => format!("days are {}", DAYS.join(", ")),
    };
    Err(QuantityError::new(format!("{text:?} is no day"), hint))
}

fn parse_time(text: &str) -> Result<u16, QuantityError> {
    let number = |digits: &str, end: u16| {
        let is_number = (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|number| is_number && *number < end)
    };
    let parsed =
        text.split_once(':').and_then(|(hour, minute)| Some((number(hour, 24)?, number(minute, 60).filter(|_| minute.len() == 2)?)));
    let wrong = || QuantityError::new(format!("{text:?} is no time of day"), "write it from 00:00 to 23:59");
    parsed.map(|(hour, minute)| hour * 60 + minute).ok_or_else(wrong)
}

/// What `--bwlimit` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bandwidth {
    /// The same at all times.
    Always(BandwidthLimit),
    /// As the clock says.
    ByTime(Timetable),
}

impl Default for Bandwidth {
    fn default() -> Self {
        Self::Always(BandwidthLimit::default())
    }
}

impl FromStr for Bandwidth {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.contains([',', ' ']) { text.parse().map(Self::ByTime) } else { text.parse().map(Self::Always) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(text: &str) -> Timetable {
        text.parse().unwrap()
    }

    fn limit(text: &str) -> BandwidthLimit {
        text.parse().unwrap()
    }

    fn minute(day: u8, hour: u8, minute: u8) -> Minute {
        Minute::new(day, hour, minute).unwrap()
    }

    fn error(text: &str) -> String {
        text.parse::<Bandwidth>().unwrap_err().to_string()
    }

    #[test]
    fn each_entry_holds_until_the_next_one_also_over_midnight() {
        let table = table("08:00,1MiB:256KiB 19:00,off");
        for day in 0..7 {
            assert_eq!(table.at(minute(day, 8, 0)), limit("1MiB:256KiB"));
            assert_eq!(table.at(minute(day, 18, 59)), limit("1MiB:256KiB"));
            assert_eq!(table.at(minute(day, 19, 0)), limit("off"));
            assert_eq!(table.at(minute(day, 7, 59)), limit("off"), "since the evening before");
        }
    }

    #[test]
    fn a_day_of_its_own_takes_the_place_of_every_day() {
        let table = table("Sat-08:00,off 08:00,1MiB 19:00,2MiB");
        assert_eq!(table.at(minute(4, 8, 0)), limit("1MiB"));
        assert_eq!(table.at(minute(5, 8, 0)), limit("off"));
        assert_eq!(table.at(minute(5, 19, 0)), limit("2MiB"));
    }

    #[test]
    fn a_week_s_last_entry_holds_until_its_first() {
        let table = table("Tue-12:30,1MiB Fri-9:05,2MiB");
        assert_eq!(table.at(minute(0, 0, 0)), limit("2MiB"));
        assert_eq!(table.at(minute(1, 12, 29)), limit("2MiB"));
        assert_eq!(table.at(minute(1, 12, 30)), limit("1MiB"));
        assert_eq!(table.at(minute(6, 23, 59)), limit("2MiB"));
        assert_eq!(table.changes(minute(6, 23, 59)), Some(minute(1, 12, 30)));
        assert_eq!(table.changes(minute(1, 12, 30)).map(|at| at.to_string()), Some("Fri 09:05".into()));
    }

    #[test]
    fn what_holds_all_week_never_changes() {
        assert_eq!(table("Mon-00:00,1MiB").changes(minute(3, 3, 3)), None);
        assert_eq!(table("08:00,1MiB 09:00,1MiB").changes(minute(3, 3, 3)), None);
    }

    #[test]
    fn a_single_limit_needs_no_time() {
        assert_eq!("1MiB:off".parse(), Ok(Bandwidth::Always(limit("1MiB:off"))));
        assert_eq!("00:00,1MiB".parse(), Ok(Bandwidth::ByTime(table("00:00,1MiB"))));
        assert_eq!(table(" 08:00,1MiB   19:00,off").to_string(), "08:00,1MiB 19:00,off");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        assert_eq!(error("24:00,1MiB"), "\"24:00\" is no time of day; write it from 00:00 to 23:59");
        assert_eq!(error("08:0,1MiB"), "\"08:0\" is no time of day; write it from 00:00 to 23:59");
        assert_eq!(error("Mno-08:00,1MiB"), "\"Mno\" is no day; did you mean Mon? Days are Mon, Tue, Wed, Thu, Fri, Sat, Sun");
        assert_eq!(
            error("08:00,1Mb 19:00,off"),
            "\"1Mb\" has no unit that is clear, in \"08:00,1Mb\"; write 1MB for bytes or 1Mbit for bits"
        );
        assert_eq!(error("08:00,1MiB 8:00,off"), "8:00 is there twice; leave one of them out");
        assert_eq!(error("08:00,1MiB 19:00"), format!("\"19:00\" says no time or no limit; write entries like {EXAMPLE}"));
        assert_eq!(error("  "), format!("there is no entry; write it like {EXAMPLE}"));
        assert!(EXAMPLE.parse::<Timetable>().is_ok());
    }

    proptest! {
        #[test]
        fn what_holds_is_what_the_newest_entry_behind_says(
            entries in proptest::collection::btree_map((proptest::option::of(0u16..7), 0u16..MINUTES_OF_DAY), 1u64..1000, 1..8),
            now in 0..7 * MINUTES_OF_DAY,
        ) {
            let name = |day: Option<u16>| day.map_or(String::new(), |day| format!("{}-", DAYS[usize::from(day)]));
            let text: Vec<String> = entries.iter().map(|((day, at), kb)| format!("{}{:02}:{:02},{kb}kB", name(*day), at / 60, at % 60)).collect();
            // Backwards, minute by minute, for at most a week; the day's own entry before that of every day.
            let behind = (0..7 * MINUTES_OF_DAY).map(|back| (now + 7 * MINUTES_OF_DAY - back) % (7 * MINUTES_OF_DAY));
            let said = |minute: u16| entries.get(&(Some(minute / MINUTES_OF_DAY), minute % MINUTES_OF_DAY)).or(entries.get(&(None, minute % MINUTES_OF_DAY)));
            let expected = behind.filter_map(said).next().unwrap();
            prop_assert_eq!(table(&text.join(" ")).at(Minute(now)), limit(&format!("{expected}kB")));
        }

        #[test]
        fn any_text_is_a_limit_or_an_error_with_a_hint(text in "[A-Za-z0-9:, -]{0,24}") {
            if let Err(error) = text.parse::<Bandwidth>() { prop_assert!(error.to_string().contains("; ")) }
        }
    }
}
