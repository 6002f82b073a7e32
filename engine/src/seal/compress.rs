//! Compression where it pays: a look at a few samples first, zstd at a quick level, and only kept when it saves enough.
//!
//! Contexts and scratch memory belong to the thread: sealing small chunks allocates nothing for them.

use super::Compression;
use std::cell::RefCell;
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

/// Quick enough that a core compresses faster than most disks read; higher levels find little more in chunks of this size.
const LEVEL: i32 = 1;
/// Below this a frame's own header eats what it saves.
const PLAINTEXT_BYTES_MIN: usize = 64;
/// A body must be at least 1/20 shorter than its plaintext: less is not worth decompressing for ever after.
const SAVED_FRACTION: usize = 20;
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 256;

#[derive(Default)]
struct Workspace {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    scratch: Vec<u8>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Replaces `buffer[at..]` by its compressed form, if that is wanted and worth it. Says whether it did.
pub(super) fn compress(buffer: &mut Vec<u8>, at: usize, compression: Compression) -> bool {
    let plaintext = &buffer[at..];
    if compression == Compression::Never || plaintext.len() < PLAINTEXT_BYTES_MIN || looks_random(plaintext) {
        return false;
    }
    let bytes_max = plaintext.len() - plaintext.len() / SAVED_FRACTION;
    let worst_bytes = zstd_safe::compress_bound(plaintext.len());
    WORKSPACE.with_borrow_mut(|Workspace { compressor, scratch, .. }| {
        let Some(compressor) = take_or_make(compressor, || Compressor::new(LEVEL)) else { return false };
        scratch.clear();
        // Room for the worst case, always: with less, whether zstd succeeds would depend on what this thread compressed before, and
        // equal plaintexts would not seal to equal records.
        scratch.reserve(worst_bytes);
        let Ok(length) = compressor.compress_to_buffer(&buffer[at..], scratch) else { return false };
        if length > bytes_max {
            return false;
        }
        buffer.truncate(at);
        buffer.extend_from_slice(&scratch[..length]);
        true
    })
}

/// Appends the decompressed `body`, which must have exactly `length` bytes, to `out`. `None` if it has not; then `out` is as long as before.
pub(super) fn decompress(body: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    out.resize(start + length, 0);
    let done = WORKSPACE.with_borrow_mut(|Workspace { decompressor, .. }| {
        let decompressor = take_or_make(decompressor, Decompressor::new)?;
        decompressor.decompress_to_buffer(body, &mut out[start..]).ok()
    });
    if done != Some(length) {
        out.truncate(start);
        return None;
    }
    Some(())
}

/// Length that a compressed `body` claims for its plaintext.
pub(super) fn claimed_length(body: &[u8]) -> Option<u64> {
    zstd_safe::get_frame_content_size(body).ok().flatten()
}

/// Runs `work` with memory that this thread keeps for it.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut scratch = WORKSPACE.with_borrow_mut(|workspace| std::mem::take(&mut workspace.scratch));
    scratch.clear();
    let result = work(&mut scratch);
    WORKSPACE.with_borrow_mut(|workspace| workspace.scratch = scratch);
    result
}

fn take_or_make<T>(slot: &mut Option<T>, make: impl FnOnce() -> std::io::Result<T>) -> Option<&mut T> {
    if slot.is_none() {
        *slot = make().ok();
    }
    slot.as_mut()
}

/// Whether samples of `plaintext` look like ciphertext, or like what is compressed already.
///
/// The measure is how often two sampled bytes are equal, against the 1/256 of random bytes: without bias at any sample size, exact in
/// integers, so the same on every machine. Order-0 entropy of 7.6 bits (what 5 % are worth) has at least 1.25 times as many.
fn looks_random(plaintext: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    let mut sampled = 0;
    for sample in samples(plaintext) {
        sample.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        sampled += sample.len() as u64;
    }
    let equal_pairs: u64 = counts.iter().map(|count| count * count.saturating_sub(1)).sum();
    let pairs = sampled * sampled.saturating_sub(1);
    sampled as usize >= SAMPLE_BYTES && equal_pairs * 256 * 4 < pairs * 5
}

fn samples(plaintext: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = (plaintext.len() / SAMPLES).max(SAMPLE_BYTES);
    plaintext.chunks(step).take(SAMPLES).map(|part| &part[..part.len().min(SAMPLE_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"random").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn compressed(plaintext: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [b"head", plaintext].concat();
        let done = compress(&mut buffer, 4, Compression::Auto);
        assert_eq!(&buffer[..4], b"head");
        done.then(|| buffer.split_off(4))
    }

    #[test]
    fn random_bytes_of_every_size_are_left_alone() {
        for length in [0, 1, 63, 64, 100, 255, 256, 257, 1_000, 4_096, 65_536, 1 << 20] {
            assert_eq!(compressed(&random(length)), None, "{length}");
        }
    }

    #[test]
    fn text_shrinks_and_comes_back() {
        for length in [128, 256, 1_000, 50_000, 1 << 20] {
            let text: Vec<u8> = b"the quick brown fox jumps over the lazy dog. ".iter().copied().cycle().take(length).collect();
            let body = compressed(&text).unwrap_or_else(|| panic!("{length} bytes did not shrink"));
            assert!(body.len() <= length - length / SAVED_FRACTION);
            assert_eq!(claimed_length(&body), Some(length as u64));
            let mut out = b"before".to_vec();
            assert_eq!(decompress(&body, length, &mut out), Some(()));
            assert_eq!(out, [b"before", text.as_slice()].concat());
        }
    }

    #[test]
    fn hexadecimal_digits_of_random_bytes_are_worth_it() {
        let digits: String = random(4_096).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(compressed(digits.as_bytes()).unwrap().len() < 5_000);
    }

    #[test]
    fn decompression_stops_at_the_length_asked_for() {
        let body = compressed(&vec![0; 1 << 20]).unwrap();
        for length in [0, 1, (1 << 20) - 1, (1 << 20) + 1] {
            let mut out = vec![1];
            assert_eq!(decompress(&body, length, &mut out), None, "{length}");
            assert_eq!(out, [1]);
        }
    }
}
