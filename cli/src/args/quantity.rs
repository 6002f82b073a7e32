//! Sizes, rates and durations as people write them: `12MiB`, `100Mbit`, `10m`.
//!
//! Nothing is guessed. A number without a unit is refused, and so is `100Mb`, which half of the world reads as bits and
//! the other half as bytes; the error shows what it might have meant. `M` is 10^6 and `Mi` is 2^20, for bits and bytes
//! alike (IEC 80000-13).

use super::{Bandwidth, nearest};
use mirror_engine::vault::DeleteLimit;
use std::{fmt, str::FromStr, time::Duration};

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
const BIT_UNITS: [(&str, u64); 7] =
    [("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000), ("Kibit", 1 << 10), ("Mibit", 1 << 20), ("Gibit", 1 << 30)];
const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a text is not the quantity it should be; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {hint}")]
pub(crate) struct QuantityError {
    what: String,
    hint: String,
}

impl QuantityError {
    pub(super) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }

    /// The same, where `text` is more than what is wrong.
    pub(super) fn within(self, text: &str) -> Self {
        Self { what: format!("{}, in {text:?}", self.what), ..self }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, "12MiB")?;
        let bytes = find(unit, &SIZE_UNITS).ok_or_else(|| unknown_unit(text, number, unit, &SIZE_UNITS, "MiB"))?;
        Ok(Self { bytes: scale(text, number, bytes)? })
    }
}

/// In files of settings they are written as on the command line.
macro_rules! written_as_typed {
    ($($quantity:ty),*) => {$(
        impl<'de> serde::Deserialize<'de> for $quantity {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

written_as_typed!(Size, Bandwidth, MaxDelete);

/// An amount a second. Kept in bytes; typed in bits or bytes, with or without `/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate {
    pub(crate) bytes_per_s: u64,
}

impl FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, "100Mbit")?;
        let unit = unit.strip_suffix("/s").unwrap_or(unit);
        let bytes_per_s = if let Some(bits) = find(unit, &BIT_UNITS) {
            scale(text, number, bits)? / 8
        } else if let Some(bytes) = find(unit, &SIZE_UNITS) {
            scale(text, number, bytes)?
        } else {
            return Err(unknown_unit(text, number, unit, &BIT_UNITS, "Mbit"));
        };
        if bytes_per_s == 0 {
            return Err(QuantityError::new(format!("{text:?} is no rate at all"), "write off for no limit"));
        }
        Ok(Self { bytes_per_s })
    }
}

/// `RATE`, or `off` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit(Option<Rate>);

impl RateLimit {
    /// Bytes a second, if there is a limit.
    pub(crate) fn bytes_per_s(self) -> Option<u64> {
        self.0.map(|rate| rate.bytes_per_s)
    }
}

impl FromStr for RateLimit {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "off" { Ok(Self(None)) } else { text.parse().map(|rate| Self(Some(rate))) }
    }
}

/// `RATE` or `RATE:RATE`, sending and receiving; `off` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BandwidthLimit {
    pub(crate) send: Option<Rate>,
    pub(crate) receive: Option<Rate>,
}

impl FromStr for BandwidthLimit {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let side = |text: &str| if text == "off" { Ok(None) } else { text.parse().map(Some) };
        match text.split_once(':') {
            Some((send, receive)) => Ok(Self { send: side(send)?, receive: side(receive)? }),
            None => side(text).map(|rate| Self { send: rate, receive: rate }),
        }
    }
}

/// How many keys a peer may delete here at once: a number, a share as `10%`, or `none` for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxDelete(pub(crate) Option<DeleteLimit>);

impl FromStr for MaxDelete {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError::new(format!("{text:?} is no number of keys"), "write it like 500, 10% or none");
        if text == "none" {
            return Ok(Self(None));
        }
        let limit = match text.strip_suffix('%') {
            Some(share) => {
                let percent = share.parse().ok().filter(|percent| *percent <= 100).ok_or_else(wrong)?;
                DeleteLimit::Share { percent, keys: u64::MAX }
            }
            None => DeleteLimit::Keys(text.parse().map_err(|_| wrong())?),
        };
        Ok(Self(Some(limit)))
    }
}

/// A duration, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, "10m")?;
        let ms = find(unit, &SPAN_UNITS).ok_or_else(|| unknown_unit(text, number, unit, &SPAN_UNITS, "s"))?;
        Ok(Self(Duration::from_millis(scale(text, number, ms)?)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let (unit, scale) = SPAN_UNITS.iter().rev().find(|(_, scale)| ms.is_multiple_of(*scale) && ms > 0).unwrap_or(&SPAN_UNITS[0]);
        write!(f, "{}{unit}", ms / scale)
    }
}

/// Number and unit; the example is for texts that have no number.
fn split<'a>(text: &'a str, example: &str) -> Result<(&'a str, &'a str), QuantityError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() || number.parse::<f64>().is_err() {
        return Err(QuantityError::new(format!("{text:?} does not begin with a number"), format!("write it like {example}")));
    }
    Ok((number, unit.trim_start()))
}

/// Units are found as they are written, and the longer ones without regard to case too: in `mib` and `mbit` the letters
/// after the `m` say what it is, in `mb` they do not.
fn find(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let matches = |name: &str| name == unit || name.len() >= 3 && name.eq_ignore_ascii_case(unit);
    units.iter().find(|(name, _)| matches(name)).map(|(_, scale)| *scale)
}

fn unknown_unit(text: &str, number: &str, unit: &str, units: &[(&str, u64)], fallback: &str) -> QuantityError {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let what = if unit.is_empty() { format!("{text:?} has no unit") } else { format!("{text:?} has no unit that is clear") };
    let bits_or_bytes = unit.chars().count() <= 2 && unit.to_lowercase().ends_with('b') && units[0].0 != "ms";
    if bits_or_bytes && let Some(prefix) = unit.chars().next().filter(|c| "kmgKMG".contains(*c)) {
        let prefix = if prefix.eq_ignore_ascii_case(&'k') { 'k' } else { prefix.to_ascii_uppercase() };
        let bytes = format!("write {number}{prefix}B for bytes");
        let bits = if units.len() == BIT_UNITS.len() { format!(" or {number}{prefix}bit for bits") } else { String::new() };
        return QuantityError::new(what, bytes + &bits);
    }
    let meant = if unit.is_empty() { fallback } else { nearest(unit, &names).unwrap_or(fallback) };
    QuantityError::new(what, format!("did you mean {number}{meant}? Units are {}", names.join(", ")))
}

/// Exact for whole numbers; fractions are cut to a whole unit of the smallest kind.
fn scale(text: &str, number: &str, unit: u64) -> Result<u64, QuantityError> {
    let too_large = || QuantityError::new(format!("{text:?} is too large"), "the most is 16EiB less one");
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_large())? };
    let part = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse::<f64>().unwrap_or(0.0) };
    whole.checked_mul(unit).and_then(|amount| amount.checked_add((part * unit as f64).round() as u64)).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hint<T: FromStr<Err = QuantityError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().hint
    }

    #[test]
    fn sizes_know_decimal_and_binary_units() {
        for (text, bytes) in
            [("12MiB", 12 << 20), ("1GB", 1_000_000_000), ("0B", 0), ("1.5KiB", 1536), ("512 mib", 512 << 20), ("0.1GB", 100_000_000)]
        {
            assert_eq!(text.parse(), Ok(Size { bytes }), "{text}");
        }
    }

    #[test]
    fn rates_are_in_bits_or_bytes() {
        for (text, bytes_per_s) in
            [("100Mbit", 12_500_000), ("12MiB", 12 << 20), ("100mbit/s", 12_500_000), ("1Gibit", 1 << 27), ("8bit", 1)]
        {
            assert_eq!(text.parse(), Ok(Rate { bytes_per_s }), "{text}");
        }
    }

    #[test]
    fn what_could_be_bits_or_bytes_is_not_guessed() {
        assert_eq!(hint::<Rate>("100Mb"), "write 100MB for bytes or 100Mbit for bits");
        assert_eq!(hint::<Rate>("5kb"), "write 5kB for bytes or 5kbit for bits");
        assert_eq!(hint::<Size>("1gb"), "write 1GB for bytes");
    }

    #[test]
    fn errors_show_the_nearest_right_form() {
        assert!(hint::<Size>("12").starts_with("did you mean 12MiB?"));
        assert!(hint::<Size>("12MiBs").starts_with("did you mean 12MiB?"));
        assert!(hint::<Rate>("10Mbits").starts_with("did you mean 10Mbit?"));
        assert!(hint::<Span>("10min").starts_with("did you mean 10m"));
        assert_eq!(hint::<Span>("soon"), "write it like 10m");
        assert_eq!(hint::<Rate>("0Mbit"), "write off for no limit");
        assert!("18446744073709551616B".parse::<Size>().unwrap_err().to_string().contains("too large"));
        assert!("99999999TiB".parse::<Size>().unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn a_limit_is_for_both_ways_or_for_each() {
        let rate = |text: &str| Some(text.parse::<Rate>().unwrap());
        assert_eq!("1MB".parse(), Ok(BandwidthLimit { send: rate("1MB"), receive: rate("1MB") }));
        assert_eq!("1MB:8Mbit".parse(), Ok(BandwidthLimit { send: rate("1MB"), receive: rate("1MB") }));
        assert_eq!("off:1MB".parse(), Ok(BandwidthLimit { send: None, receive: rate("1MB") }));
        assert!("1MB:2MB:3MB".parse::<BandwidthLimit>().is_err());
    }

    #[test]
    fn deletions_are_limited_by_number_or_share() {
        assert_eq!("500".parse(), Ok(MaxDelete(Some(DeleteLimit::Keys(500)))));
        assert_eq!("10%".parse(), Ok(MaxDelete(Some(DeleteLimit::Share { percent: 10, keys: u64::MAX }))));
        assert_eq!("none".parse(), Ok(MaxDelete(None)));
        for text in ["101%", "-1", "many", "", "%"] {
            assert_eq!(hint::<MaxDelete>(text), "write it like 500, 10% or none", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_quantity_or_an_error_with_a_hint(text in "\\PC{0,12}") {
            if let Err(error) = text.parse::<Size>() { prop_assert!(!error.hint.is_empty()) }
            if let Err(error) = text.parse::<Rate>() { prop_assert!(!error.hint.is_empty()) }
            if let Err(error) = text.parse::<Span>() { prop_assert!(!error.hint.is_empty()) }
        }

        #[test]
        fn whole_numbers_are_exact(number in 0u64..1_000_000, (unit, scale) in proptest::sample::select(SIZE_UNITS.to_vec())) {
            prop_assert_eq!(format!("{number}{unit}").parse(), Ok(Size { bytes: number * scale }));
        }

        #[test]
        fn durations_survive_a_round_trip(ms in 0u64..10_000_000_000) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn the_suggested_form_of_a_size_is_accepted(number in 1u32..1000, unit in "[a-zA-Z]{0,5}") {
            if let Err(error) = format!("{number}{unit}").parse::<Size>()
                && let Some(meant) = error.hint.strip_prefix("did you mean ").and_then(|rest| rest.split('?').next())
            {
                prop_assert!(meant.parse::<Size>().is_ok(), "{}", meant);
            }
        }
    }
}
