//! Amounts for people. Rates are always shown in bits and in bytes.

/// As in `12.3 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// As in `100 Mbit/s (12.5 MB/s)`.
pub(crate) fn rate_text(bits_per_s: f64) -> String {
    let bits = scaled(bits_per_s, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
    let bytes = scaled(bits_per_s / 8.0, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]);
    format!("{bits} ({bytes})")
}

/// As in `1 key` and `2 keys`. Only for nouns whose plural is an s.
pub(crate) fn count_text(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn scaled(mut amount: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.95 would be printed as 1000.0.
    while amount >= step - 0.05 && unit + 1 < units.len() {
        amount /= step;
        unit += 1;
    }
    if unit == 0 { format!("{amount:.0} {}", units[0]) } else { format!("{amount:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_unit_that_fits() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes_text(12 << 20), "12.0 MiB");
        assert_eq!(bytes_text(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn rates_are_in_bits_and_bytes() {
        assert_eq!(rate_text(100e6), "100.0 Mbit/s (12.5 MB/s)");
        assert_eq!(rate_text(8.0), "8 bit/s (1 B/s)");
    }
}
