//! Where there is no io_uring: it is never usable, and nothing can be made of it.

use super::{
    append::{AppendError, Backing, Target},
    backend::Unavailable,
};
use std::{io, path::Path};

/// Cannot exist.
#[derive(Debug)]
pub(super) enum Uring {}

impl Uring {
    pub(super) fn start(_: &Target, _: u64) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Backing for Uring {
    fn append(&mut self, _: &Target, _: &[&[u8]]) -> io::Result<()> {
        match *self {}
    }

    fn settle(&mut self, _: &Target) -> io::Result<()> {
        match *self {}
    }

    fn sync(&mut self, _: &Target) -> Result<(), AppendError> {
        match *self {}
    }

    fn written_to(&self) -> u64 {
        match *self {}
    }

    fn end(&self) -> u64 {
        match *self {}
    }
}

pub(super) fn usable() -> Result<(), Unavailable> {
    Err(Unavailable("only Linux has it".into()))
}

pub(super) fn takes_direct_writes(_: &Path) -> Result<(), Unavailable> {
    usable()
}
