//! Reading packs: maps that are kept, and frames checked before they are handed out.

use super::{Inner, Location, Store, StoreError, index::lock, segment::SegmentKind};
use crate::{
    frame::{Kind, Verified},
    id::ChunkId,
    io::{buffers::Buffers, descriptors, map::Map, piece::Piece},
};
use bytes::Bytes;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Packs whose maps are kept. A map costs address space and an entry here; pages belong to the system's cache.
const MAPS_KEPT: usize = 64;

/// A pack's bytes as they were when it was mapped; it lives as long as anything sliced from it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) map: Arc<Map>,
    file: Arc<File>,
    bytes: Bytes,
}

struct MapOwner(Arc<Map>);

impl AsRef<[u8]> for MapOwner {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl View {
    fn new(map: Map, file: File) -> Self {
        let map = Arc::new(map);
        Self { bytes: Bytes::from_owner(MapOwner(Arc::clone(&map))), map, file: Arc::new(file) }
    }

    /// A copy of the bytes from `from` to `to` in a buffer of `buffers`, with the place where the system finds them. Not checked.
    ///
    /// Reading is cheaper than bringing the pages of the map in for one look: no page tables to fill and to empty.
    pub(super) fn read(&self, buffers: &Buffers, from: u64, to: u64) -> io::Result<Piece> {
        let mut buffer = buffers.take((to - from) as usize);
        self.file.read_exact_at(buffer.as_mut_slice(), from)?;
        Ok(Piece::of_file(buffer.freeze(), Arc::clone(&self.file), from))
    }

    /// The bytes from `from` to `to`, without a copy. Not checked.
    pub(super) fn slice(&self, from: u64, to: u64) -> Bytes {
        self.bytes.slice(from as usize..to as usize)
    }
}

/// The maps used last, the newest at the end.
#[derive(Debug, Default)]
pub(super) struct MapCache(Vec<(u32, View)>);

impl MapCache {
    fn get(&mut self, pack: u32, end: u64) -> Option<View> {
        let at = self.0.iter().position(|(number, _)| *number == pack)?;
        let (_, view) = self.0.remove(at);
        if (view.bytes.len() as u64) < end || view.map.is_damaged() {
            return None;
        }
        self.0.push((pack, view.clone()));
        Some(view)
    }

    fn keep(&mut self, pack: u32, view: View) {
        self.0.retain(|(number, _)| *number != pack);
        if self.0.len() >= MAPS_KEPT {
            self.0.remove(0);
        }
        self.0.push((pack, view));
    }
}

impl Store {
    /// The frame of chunk `id`, checked, without a copy; none if it is not here. A damaged one is put into quarantine.
    ///
    /// # Errors
    /// [`StoreError::DamagedChunk`] when its bytes are not what they should be, or gone with their pack.
    pub fn read_frame(&self, id: &ChunkId) -> Result<Option<Bytes>, StoreError> {
        let Some(place) = self.inner.locate(std::slice::from_ref(id))?[0] else { return Ok(None) };
        self.inner.read_frame(id, &place).map(Some).inspect_err(|error| {
            // What fails here is found again by the next who reads.
            if matches!(error, StoreError::DamagedChunk { .. })
                && let Err(error) = self.quarantine(&[(*id, place)])
            {
                tracing::warn!(%error, "a damaged chunk was not put aside");
            }
        })
    }

    /// The bytes at `place`, without a copy and NOT checked: for who opens the seal, which checks the record against the chunk's id.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the pack is gone or shorter.
    pub fn frame_at(&self, place: &Location) -> Result<Bytes, StoreError> {
        let gone = || StoreError::Damaged(format!("{} is gone or shorter than it was", SegmentKind::Pack.file(place.pack).display()));
        let view = self.inner.view(place.pack, place.end())?.ok_or_else(gone)?;
        view.map.touched(u64::from(place.length));
        Ok(view.slice(place.offset, place.end()))
    }
}

impl Inner {
    /// Pack `number` up to `end` at least; none if the file is gone or shorter.
    pub(super) fn view(&self, number: u32, end: u64) -> Result<Option<View>, StoreError> {
        if let Some(view) = lock(&self.maps).get(number, end) {
            return Ok(Some(view));
        }
        let path = self.path(SegmentKind::Pack, number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        let mapped = file.metadata().and_then(|metadata| match metadata.len() {
            length if length < end => Ok(None),
            length => Map::open(&file, length as usize).map(Some),
        });
        let Some(map) = mapped.map_err(|error| StoreError::io("map", &path, error))? else { return Ok(None) };
        let view = View::new(map, file);
        lock(&self.maps).keep(number, view.clone());
        Ok(Some(view))
    }

    /// The frame at `place`, which must be chunk `id`.
    pub(super) fn read_frame(&self, id: &ChunkId, place: &Location) -> Result<Bytes, StoreError> {
        let damaged = || StoreError::DamagedChunk { id: *id, pack: place.pack, offset: place.offset };
        let view = self.view(place.pack, place.end())?.ok_or_else(damaged)?;
        let frame = view.slice(place.offset, place.end());
        view.map.touched(u64::from(place.length));
        if is_chunk(&frame, id) {
            return Ok(frame);
        }
        // Zeros in a damaged map may hide good bytes: a fault elsewhere in the pack laid them. Reading past the map tells.
        let reread = if view.map.is_damaged() { self.read_without_map(place)? } else { None };
        reread.filter(|frame| is_chunk(frame, id)).map(Bytes::from).ok_or_else(damaged)
    }

    /// The bytes at `place`, not checked; none if the disk does not give them.
    ///
    /// # Errors
    /// When no more files may be opened: that says nothing about the bytes.
    pub(super) fn read_without_map(&self, place: &Location) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(SegmentKind::Pack, place.pack);
        let read = File::open(&path).and_then(|file| {
            let mut frame = vec![0; place.length as usize];
            file.read_exact_at(&mut frame, place.offset).map(|()| frame)
        });
        match read {
            Err(error) if descriptors::is_lack(&error) => Err(StoreError::io("open", &path, error)),
            read => Ok(read.ok()),
        }
    }
}

/// Whether `frame` is exactly the frame of chunk `id`.
pub(super) fn is_chunk(frame: &[u8], id: &ChunkId) -> bool {
    Verified::check(frame).is_ok_and(|verified| {
        let header = verified.header();
        header.kind == Kind::Chunk && header.id == *id.as_bytes() && header.frame_bytes() == frame.len()
    })
}
