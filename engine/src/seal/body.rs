//! Sealed bodies of events: the same records as chunks, bound to the place of their event and not addressed by an id of their own.

use super::{Codec, Compression, OpenError, PREFIX_BYTES, Parts, RecordType, SealKeys, TAG_BYTES, compress};
use crate::limits::EVENT_BODY_PLAINTEXT_BYTES_MAX;

impl SealKeys {
    /// Seals the body of the event whose place `context` names (see [`body_context`](crate::event::body_context)).
    ///
    /// More than [`EVENT_BODY_PLAINTEXT_BYTES_MAX`] bytes are left uncompressed: such an event is refused when it is signed, instead of
    /// becoming one that nobody may open.
    pub fn seal_body(&self, plaintext: &[u8], context: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(PREFIX_BYTES + plaintext.len() + TAG_BYTES);
        record.resize(PREFIX_BYTES, 0);
        record.extend_from_slice(plaintext);
        let compression = if plaintext.len() > EVENT_BODY_PLAINTEXT_BYTES_MAX { Compression::Never } else { Compression::Auto };
        let (codec, body_hash) = match compress::compress(&mut record, PREFIX_BYTES, compression) {
            false => (Codec::None, self.plaintext_hash(plaintext)),
            true => (Codec::Zstd, self.compressed_hash(&record[PREFIX_BYTES..])),
        };
        self.encrypt(&mut record, 0, RecordType::EventBody, codec, &body_hash, context);
        record
    }

    /// The plaintext of an event's body, sealed for the same context.
    ///
    /// # Errors
    /// [`OpenError::Refused`] on anything else, and when it would unfold to more than [`EVENT_BODY_PLAINTEXT_BYTES_MAX`] bytes.
    pub fn open_body(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.open_body_record(sealed, context).ok_or(OpenError::Refused)
    }

    fn open_body_record(&self, sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let parts = Parts::of(sealed, RecordType::EventBody, self.epoch)?;
        let mut body = Vec::new();
        self.decrypt(&parts, context, &mut body)?;
        if parts.codec == Codec::None {
            return Some(body);
        }
        let length = usize::try_from(compress::claimed_length(&body)?).ok().filter(|length| *length <= EVENT_BODY_PLAINTEXT_BYTES_MAX)?;
        let mut plaintext = Vec::new();
        compress::decompress(&body, length, &mut plaintext)?;
        Some(plaintext)
    }
}
