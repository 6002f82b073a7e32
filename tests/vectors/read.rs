//! Known answers, as `make.py` beside this file has computed them without any code of this project.

use serde_json::Value;

pub(crate) const SEAL: &str = include_str!("seal.json");
pub(crate) const KEYS: &str = include_str!("keys.json");
pub(crate) const EPOCHS: &str = include_str!("epochs.json");
pub(crate) const HELLO: &str = include_str!("hello.json");
pub(crate) const CUTS: &str = include_str!("cuts.json");

pub(crate) fn parse(answers: &str) -> Value {
    serde_json::from_str(answers).unwrap()
}

/// The bytes that a field shows in hexadecimal.
pub(crate) fn bytes(answers: &Value, field: &str) -> Vec<u8> {
    let text = answers[field].as_str().unwrap_or_else(|| panic!("{field} is text"));
    let pairs = text.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

pub(crate) fn array<const N: usize>(answers: &Value, field: &str) -> [u8; N] {
    bytes(answers, field).try_into().unwrap_or_else(|_| panic!("{field} has {N} bytes"))
}
