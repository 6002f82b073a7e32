//! How the errors of the layers below become those of a vault: what failed stays in words, what a user can do decides the variant.

use super::VaultError;
use crate::{
    home::HomeError,
    io::{descriptors, durable},
    keys::KeyError,
    seal::OpenError,
    store::StoreError,
    vault::view::ViewError,
};
use std::{io, path::Path};

impl VaultError {
    /// The system refused `what`, which was about `path`; running out of space is told apart.
    pub(crate) fn at(what: &str, path: &Path, source: io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        match durable::classify(&source, path) {
            durable::Failure::NoSpace(lacking) => Self::NoSpace(format!("{what}: {lacking}")),
            durable::Failure::ReadOnly | durable::Failure::Other => Self::Io { what, source },
        }
    }

    /// The system refused something that is about no path.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Something that only a mistake of ours can cause.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("internal: {error}"))
    }
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { what, source } => Self::Io { what, source },
            StoreError::NoSpace { what, lacking } => Self::NoSpace(format!("{what}: {lacking}")),
            StoreError::TooNew { what, found, known } => Self::TooNew { what, found, known },
            StoreError::Locked { by } => Self::Busy(by),
            StoreError::Fork { .. } | StoreError::Rollback { .. } => Self::Fork(error.to_string()),
            StoreError::NotAllowed { .. } => Self::NotAllowed(error.to_string()),
            StoreError::Stopped => Self::Cancelled,
            StoreError::ReadOnly { what } => Self::Io { what, source: io::ErrorKind::ReadOnlyFilesystem.into() },
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<ViewError> for VaultError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Busy => Self::Busy(error.to_string()),
            ViewError::File { ref path, source } => Self::at("opening", path, source),
            ViewError::Sqlite(ref cause) if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
                Self::NoSpace(format!("{error}: no space"))
            }
            ViewError::Sqlite(ref cause) if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) => {
                Self::io("the view cannot be opened", descriptors::lacking().unwrap_or_else(|| io::Error::other(cause.to_string())))
            }
            // The disk refused; what the file holds is not known to be wrong.
            ViewError::Sqlite(ref cause) if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure) => {
                Self::io("the view cannot be used", io::Error::other(cause.to_string()))
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<KeyError> for VaultError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Wrong => Self::WrongPassphrase,
            KeyError::NoSlot(kind) => Self::NoSlot(kind),
            KeyError::PassphraseLength | KeyError::Phrase(_) => Self::Usage(error.to_string()),
            KeyError::TooNew { file } => Self::TooNew { what: file.display().to_string(), found: 2, known: 1 },
            KeyError::Io { what, source } => Self::Io { what, source },
            KeyError::Damaged { .. } | KeyError::Bounds { .. } => Self::DamagedKey(error.to_string()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<HomeError> for VaultError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Key(error) => error.into(),
            HomeError::Io { what, source } => Self::Io { what, source },
            HomeError::Damaged { .. } => Self::Damaged(error.to_string()),
            other => Self::Usage(other.to_string()),
        }
    }
}

impl From<OpenError> for VaultError {
    fn from(error: OpenError) -> Self {
        Self::Damaged(error.to_string())
    }
}
