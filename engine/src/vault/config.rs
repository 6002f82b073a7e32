//! `vault.toml`: what a directory must hold to be a vault. Public: a keyless replica has it too.

use super::VaultError;
use crate::{
    id::{DeviceId, VaultId},
    io::durable,
    limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MEAN, CHUNK_BYTES_MIN, NAME_BYTES_MAX},
};
use serde::{Deserialize, Serialize};
use std::{fs, io::ErrorKind, path::Path};

/// Name of the file that makes a directory a vault.
pub const FILE: &str = "vault.toml";
/// The newest format that this program reads and writes.
pub const FORMAT: u32 = 1;
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The contents of `vault.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Version of the whole layout.
    pub format: u32,
    /// The vault, 64 hexadecimal digits.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// The device that made the vault, 64 hexadecimal digits: where its membership begins. Vaults made before there was one have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<String>,
    /// How values are cut.
    pub chunker: Chunker,
    /// How chunks are sealed.
    pub seal: Seal,
}

/// Parameters of content-defined cutting. Equal on all replicas, else equal values would not share chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunker {
    /// `fastcdc-2020`.
    pub algorithm: String,
    /// Smallest chunk.
    pub min_bytes: usize,
    /// Mean chunk.
    pub mean_bytes: usize,
    /// Largest chunk.
    pub max_bytes: usize,
}

/// Names of the algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// `aes-256-gcm-siv-blake3`: DESIGN's construction.
    pub algorithm: String,
    /// `zstd`.
    pub codec: String,
}

impl Config {
    /// The configuration of a new vault.
    pub fn new(id: &VaultId, name: &str) -> Self {
        Self {
            format: FORMAT,
            id: id.to_string(),
            name: name.to_owned(),
            founder: None,
            chunker: Chunker {
                algorithm: "fastcdc-2020".into(),
                min_bytes: CHUNK_BYTES_MIN,
                mean_bytes: CHUNK_BYTES_MEAN,
                max_bytes: CHUNK_BYTES_MAX,
            },
            seal: Seal { algorithm: "blake3-siv-aes-256-gcm".into(), codec: "zstd".into() },
        }
    }

    /// The same, of a vault that `founder` makes.
    #[must_use]
    pub fn founded_by(self, founder: &DeviceId) -> Self {
        Self { founder: Some(founder.to_string()), ..self }
    }

    /// Reads `dir/vault.toml`.
    ///
    /// # Errors
    /// [`VaultError::NoVault`] without the file, [`VaultError::TooNew`] for a newer format, [`VaultError::Damaged`] for anything else.
    pub fn read(dir: &Path) -> Result<Self, VaultError> {
        let path = dir.join(FILE);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(VaultError::NoVault(dir.to_owned()));
            }
            Err(error) => return Err(VaultError::io(format!("reading {}", path.display()), error)),
        };
        if size > FILE_BYTES_MAX {
            return Err(VaultError::Damaged(format!("{} is {size} bytes long", path.display())));
        }
        let bytes = fs::read(&path).map_err(|error| VaultError::io(format!("reading {}", path.display()), error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| ConfigError::Malformed(error.to_string()).of(&path))?;
        Self::parse(text).map_err(|error| error.of(&path))
    }

    /// Writes `dir/vault.toml`, whole or not at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, dir: &Path) -> Result<(), VaultError> {
        let path = dir.join(FILE);
        durable::write_atomic(&path, self.to_text()?.as_bytes(), 0o644)
            .map_err(|error| VaultError::io(format!("writing {}", path.display()), error))
    }

    /// The file's text.
    ///
    /// # Errors
    /// When the name cannot be written as TOML.
    pub fn to_text(&self) -> Result<String, VaultError> {
        toml::to_string(self).map_err(|error| VaultError::Usage(format!("the vault's name cannot be stored: {error}")))
    }

    /// Parses and checks the file's text, which may come from a peer.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error| ConfigError::Malformed(format!("{error}")))?;
        let format = table.get("format").and_then(toml::Value::as_integer).unwrap_or(0);
        if format > i64::from(FORMAT) {
            return Err(ConfigError::TooNew(format as u32));
        }
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Malformed(format!("{error}")))?;
        let (id, name, founder) = (config.id.clone(), config.name.clone(), config.founder.clone());
        let expected = Self { id, name, founder, ..Self::new(&VaultId::from_bytes([0; 32]), "") };
        if config != expected || config.name.len() > NAME_BYTES_MAX {
            return Err(ConfigError::Malformed("its parameters are not those of format 1".into()));
        }
        config.vault_id()?;
        config.founding_device()?;
        Ok(config)
    }

    /// The vault's identifier.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`].
    pub fn vault_id(&self) -> Result<VaultId, ConfigError> {
        self.id.parse().map_err(|error| ConfigError::Malformed(format!("id: {error}")))
    }

    /// The device that made the vault, if that is on record.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`].
    pub fn founding_device(&self) -> Result<Option<DeviceId>, ConfigError> {
        let founder = self.founder.as_ref().map(|founder| founder.parse()).transpose();
        founder.map_err(|error| ConfigError::Malformed(format!("founder: {error}")))
    }
}

/// Why a text is no vault configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// From a newer program.
    #[error("format {0} is newer than {FORMAT}")]
    TooNew(u32),
    /// Anything else.
    #[error("{0}")]
    Malformed(String),
}

impl ConfigError {
    fn of(self, path: &Path) -> VaultError {
        match self {
            Self::TooNew(found) => VaultError::TooNew { what: path.display().to_string(), found, known: FORMAT },
            Self::Malformed(reason) => VaultError::Damaged(format!("{}: {}", path.display(), reason.trim_end())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(&VaultId::from_bytes([9; 32]), "photos \"of\" mine")
    }

    #[test]
    fn text_survives_a_round_trip() {
        let text = config().to_text().unwrap();
        assert_eq!(Config::parse(&text).unwrap(), config());
        let founded = config().founded_by(&DeviceId::from_bytes([3; 32]));
        assert_eq!(Config::parse(&founded.to_text().unwrap()).unwrap(), founded);
    }

    #[test]
    fn a_founder_that_is_no_device_is_refused() {
        let founded = Config { founder: Some("nobody".into()), ..config() };
        assert!(matches!(Config::parse(&founded.to_text().unwrap()), Err(ConfigError::Malformed(_))));
    }

    #[test]
    fn a_file_that_is_no_text_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [0xFF]).unwrap();
        assert!(matches!(Config::read(dir.path()), Err(VaultError::Damaged(_))));
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let text = config().to_text().unwrap();
        let newer = text.replace("format = 1", "format = 2\nunknown = true");
        assert!(matches!(Config::parse(&newer), Err(ConfigError::TooNew(2))));
        let other = text.replace("fastcdc-2020", "fixed");
        assert!(matches!(Config::parse(&other), Err(ConfigError::Malformed(_))));
        assert!(matches!(Config::parse("format = "), Err(ConfigError::Malformed(_))));
    }
}
