//! Strict CBOR: what is hashed, signed or sent has exactly one encoding.
//!
//! minicbor accepts non-minimal lengths and trailing bytes; [`decode`] encodes again and compares, so that two
//! different byte strings never mean the same thing. Types carry numbered fields (`#[n(..)]`), so they can grow.

use minicbor::{Decode, Encode};

/// Bytes that are not the one encoding of the value asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {reason}")]
pub struct CodecError {
    /// Name of what was decoded.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl CodecError {
    /// An error about `what`.
    pub fn new(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, reason: reason.into() }
    }
}

/// The one encoding of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    match minicbor::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("writing to a Vec cannot fail: {error}"),
    }
}

/// Decodes `bytes`, which must be exactly what [`encode`] makes of the result.
///
/// # Errors
/// [`CodecError`] on anything else: truncated, trailing, non-minimal or unknown.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, CodecError> {
    let value: T = minicbor::decode(bytes).map_err(|error| CodecError::new(what, error.to_string()))?;
    if encode(&value) != bytes {
        return Err(CodecError::new(what, "not in canonical form"));
    }
    Ok(value)
}
