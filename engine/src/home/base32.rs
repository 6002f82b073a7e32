//! Base 32 (RFC 4648) in lower case without padding: one word for terminals, mail and QR codes, read in either case.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BITS: u32 = 5;

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        (held, bits) = (held << 8 | u32::from(*byte), bits + 8);
        while bits >= BITS {
            bits -= BITS;
            text.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(held << (BITS - bits)));
    }
    text
}

fn digit(value: u32) -> char {
    char::from(ALPHABET[value as usize & 31])
}

/// The bytes of `text`; `None` for other letters, an impossible length, or bits left over that are not zero.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|digit| *digit == letter.to_ascii_lowercase())?;
        (held, bits) = (held << BITS | value as u32, bits + BITS);
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
        held &= (1 << bits) - 1;
    }
    (held == 0 && bits < BITS).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_rfc_4648_hold() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("fooba", "mzxw6ytb")] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(&text.to_ascii_uppercase()), Some(bytes.as_bytes().to_vec()));
        }
    }

    #[test]
    fn what_no_bytes_encode_to_is_refused() {
        for text in ["a", "mz1q", "mzxr", "m y", "mzxw6yt", "mé"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
