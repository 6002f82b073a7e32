//! Resealed pieces: where plaintexts of the vault lie as well, sealed under a later key epoch.
//!
//! The body of an event of kind [`KIND_RESEALED`](super::KIND_RESEALED), sealed like one of operations, is an array of references. Each says that the plaintext
//! of this identity and length also lies in this chunk, which the event's lists name. It speaks of no key and of no version, so it decides
//! nothing between versions: an edit that did not know of it stands as if it had never been. Nor can it change what a value is:
//! whoever opens the chunk holds it to the plaintext's identity, and goes to the chunk that the value names if it does not match.

use super::ChunkRef;
use crate::{
    codec::{self, CodecError},
    limits::{CHUNK_BYTES_MAX, RESEALED_PIECES_MAX},
};

/// The plaintext of the event's body.
///
/// # Errors
/// [`CodecError`] when there are more than [`RESEALED_PIECES_MAX`].
pub fn encode_resealed(pieces: &[ChunkRef]) -> Result<Vec<u8>, CodecError> {
    validate(pieces)?;
    Ok(codec::encode(&pieces.to_vec()))
}

/// Reads the plaintext of the event's body.
///
/// # Errors
/// [`CodecError`] on anything that [`encode_resealed`] does not make.
pub fn decode_resealed(body: &[u8]) -> Result<Vec<ChunkRef>, CodecError> {
    let pieces: Vec<ChunkRef> = codec::decode("resealed pieces", body)?;
    validate(&pieces)?;
    Ok(pieces)
}

fn validate(pieces: &[ChunkRef]) -> Result<(), CodecError> {
    if pieces.len() > RESEALED_PIECES_MAX {
        return Err(CodecError::new("resealed pieces", "too many"));
    }
    if pieces.iter().any(|piece| piece.length as usize > CHUNK_BYTES_MAX) {
        return Err(CodecError::new("resealed pieces", "a piece is longer than a chunk"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, PlaintextId};

    fn piece(length: u32) -> ChunkRef {
        ChunkRef { chunk: ChunkId::from_bytes([1; 32]), plaintext: PlaintextId::from_bytes([2; 32]), length }
    }

    #[test]
    fn what_is_encoded_is_read_and_nothing_beyond_the_limits() {
        let pieces = vec![piece(1), piece(CHUNK_BYTES_MAX as u32)];
        assert_eq!(decode_resealed(&encode_resealed(&pieces).unwrap()).unwrap(), pieces);
        assert!(encode_resealed(&[piece(CHUNK_BYTES_MAX as u32 + 1)]).is_err());
        let many = vec![piece(1); RESEALED_PIECES_MAX + 1];
        assert!(encode_resealed(&many).is_err());
        assert!(decode_resealed(&codec::encode(&many)).is_err());
        assert!(decode_resealed(&[codec::encode(&pieces), vec![0]].concat()).is_err(), "something behind it");
        assert!(encode_resealed(&many[1..]).unwrap().len() < crate::limits::EVENT_BODY_BYTES_MAX);
    }
}
