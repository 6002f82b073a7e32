//! Medians, and how sure one can be of a ratio of pairs.
//!
//! Two programs that run in turn share the machine's drift, so each pair gives a ratio of its own. The bootstrap (Efron 1979) asks what median
//! other draws of these pairs would have given: pairs are drawn with replacement, thousands of times, and the outer hundredths of the medians
//! are cut off. The draws come from a fixed seed: the same pairs give the same bounds.

/// Medians drawn for one interval.
const RESAMPLES: usize = 4_000;

/// The middle value, or the mean of the two in the middle; zero of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

pub(super) fn least(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::min).unwrap_or_default()
}

pub(super) fn most(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::max).unwrap_or_default()
}

/// A ratio with the bounds between which it lies with 98 % confidence: with 99 % it is above `low`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Of `new` to `old`, pair by pair.
pub(super) fn ratio_of_pairs(pairs: &[(f64, f64)]) -> Ratio {
    let ratios: Vec<f64> = pairs.iter().map(|(old, new)| new / old.max(1e-9)).collect();
    let mut random = Random::new(1);
    let mut medians: Vec<f64> = (0..RESAMPLES).map(|_| median(&draw(&ratios, &mut random))).collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share) as usize];
    Ratio { median: median(&ratios), low: at(0.01), high: at(0.99) }
}

fn draw(values: &[f64], random: &mut Random) -> Vec<f64> {
    (0..values.len()).map(|_| values[(random.next() % values.len() as u64) as usize]).collect()
}

/// xorshift64* (Vigna 2014): not secret, the same on every machine, and faster than any disk.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Bytes that no codec makes smaller.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs with 10 % of noise of their own and a drift that both share.
    fn pairs(slowdown: f64) -> Vec<(f64, f64)> {
        let mut random = Random::new(7);
        let mut noise = move || 0.95 + (random.next() % 1_000) as f64 / 10_000.0;
        (0..30).map(|pair| (1.0 + f64::from(pair) / 30.0, pair)).map(|(drift, _)| (drift * noise(), drift * slowdown * noise())).collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (0.0, 2.0, 2.5));
    }

    #[test]
    fn drift_that_both_share_does_not_hide_a_slowdown_nor_make_one() {
        let (same, slower) = (ratio_of_pairs(&pairs(1.0)), ratio_of_pairs(&pairs(1.1)));
        assert!(same.low < 1.0 && same.high > 1.0, "{same:?}");
        assert!(slower.low > 1.05, "{slower:?}");
    }

    #[test]
    fn random_bytes_come_out_the_same_and_fill_any_length() {
        let (mut left, mut right) = ([0; 13], [0; 13]);
        Random::new(3).fill(&mut left);
        Random::new(3).fill(&mut right);
        assert_eq!(left, right);
        assert!(left[8..].iter().any(|byte| *byte != 0));
    }
}
