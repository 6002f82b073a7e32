//! `mirord.toml`: what the daemon keeps, and how. Strict: a setting that is not known is an error that names the nearest one.
//!
//! Precedence as everywhere: flag, environment, this file, `config.toml`, default.

use super::args::LogFormat;
use crate::{
    args::{Bandwidth, CongestionChoice, IoChoice, MaxDelete, Size, TransportChoice},
    config::{self, FileRule, SettingsText, is_setting_of},
    failure::Failure,
};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// In this device's directory.
pub(super) const FILE: &str = "mirord.toml";

/// The whole file.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsFile {
    /// Where the status page is served; nowhere by default.
    pub(super) ui: Option<SocketAddr>,
    /// Where metrics are served; nowhere by default.
    pub(super) metrics: Option<SocketAddr>,
    /// Whether `metrics` may be an address that other machines reach.
    #[serde(default)]
    pub(super) metrics_remote: bool,
    /// Whether other programs go first.
    #[serde(default)]
    pub(super) low_priority: bool,
    /// Whether to be found on local networks, and to find; yes by default.
    pub(super) discovery: Option<bool>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_file: Option<PathBuf>,
    /// Over all vaults and peers.
    pub(super) bwlimit: Option<Bandwidth>,
    /// For each vault.
    pub(super) memory: Option<Size>,
    pub(super) io: Option<IoChoice>,
    #[serde(default, rename = "vault")]
    pub(super) vaults: Vec<VaultSettings>,
}

/// One `[[vault]]`.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultSettings {
    pub(super) dir: PathBuf,
    /// Port 7740 on all interfaces by default; nowhere if it is empty.
    pub(super) listen: Option<Vec<SocketAddr>>,
    /// Names of peers to dial; by default all that have an address.
    pub(super) follow: Option<Vec<String>>,
    pub(super) transport: Option<TransportChoice>,
    pub(super) congestion: Option<CongestionChoice>,
    pub(super) lanes: Option<u8>,
    #[serde(default)]
    pub(super) lanes_plain: bool,
    pub(super) max_delete: Option<MaxDelete>,
    /// What changes in this folder is taken into the vault.
    pub(super) watch: Option<PathBuf>,
    /// What changes in the vault is written out to this folder.
    pub(super) materialize: Option<PathBuf>,
    /// Only keys below it are in these folders, without it.
    pub(super) prefix: Option<String>,
    /// For a vault that this device has no slot for.
    pub(super) passphrase_file: Option<PathBuf>,
    pub(super) passphrase_command: Option<String>,
}

impl SettingsFile {
    /// Reads `named`, which must be there, else the usual one in `home`, which need not.
    ///
    /// # Errors
    /// [`crate::failure::Code::Usage`] for a file that says what nobody understands.
    pub(super) fn read(named: Option<&Path>, home: &Path) -> Result<Self, Failure> {
        let file: Self = match named {
            Some(path) => config::read_settings(path, FileRule::MustExist),
            None => config::read_settings(&home.join(FILE), FileRule::MayBeMissing),
        }?;
        file.paths().try_for_each(|path| refuse_tilde(path))?;
        Ok(file)
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let vaults = self.vaults.iter().flat_map(|vault| {
            let named = [&vault.watch, &vault.materialize, &vault.passphrase_file].into_iter().flatten();
            named.chain([&vault.dir])
        });
        self.log_file.iter().chain(vaults)
    }
}

/// In TOML what stands below a `[[vault]]` is that vault's, so what is for all has to stand above the first.
impl SettingsText for SettingsFile {
    fn belongs(word: &str) -> Option<String> {
        if is_setting_of::<VaultSettings>(word) {
            return Some(format!("{word} is said of one vault: write it below its [[vault]]"));
        }
        let is_for_all = is_setting_of::<Self>(word);
        is_for_all.then(|| format!("{word} holds for all vaults together: write it above the first [[vault]]"))
    }
}

/// A shell knows what `~` is; here it would be a directory of that name.
fn refuse_tilde(path: &Path) -> Result<(), Failure> {
    let Ok(below) = path.strip_prefix("~") else { return Ok(()) };
    let meant = std::env::home_dir().map_or_else(|| Path::new("/home/NAME").join(below), |home| home.join(below));
    Err(Failure::usage(format!("{} is no path in mirord.toml: no shell reads it", path.display()))
        .hint(format!("write {}", meant.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::parse_settings, failure::Code};

    fn parse(text: &str) -> Result<SettingsFile, Failure> {
        parse_settings(text)
    }

    #[test]
    fn every_setting_has_its_form() {
        let file = parse(
            r#"
            ui = "127.0.0.1:7741"
            bwlimit = "20Mbit:off"
            low_priority = true
            log_format = "json"
            memory = "1GiB"
            [[vault]]
            dir = "/srv/photos"
            [[vault]]
            dir = "/srv/backup"
            listen = []
            follow = ["nas"]
            transport = "tcp"
            max_delete = "none"
            watch = "/home/me/docs"
            materialize = "/home/me/docs"
            prefix = "docs"
            "#,
        )
        .unwrap();
        assert_eq!(file.vaults.len(), 2);
        assert_eq!((file.vaults[0].listen.clone(), file.vaults[1].listen.clone()), (None, Some(Vec::new())));
        assert_eq!((file.vaults[1].max_delete, file.log_format), (Some(MaxDelete(None)), Some(LogFormat::Json)));
        assert_eq!((file.vaults[1].watch.clone(), file.vaults[1].prefix.as_deref()), (Some("/home/me/docs".into()), Some("docs")));
        assert_eq!(file.bwlimit, Some("20Mbit:off".parse().unwrap()));
    }

    #[test]
    fn what_is_mistyped_anywhere_is_refused_with_its_line_and_the_nearest_right_word() {
        for (text, line, meant) in [
            ("uui = \"127.0.0.1:1\"", 1, "ui"),
            ("# daemon\n[[vault]]\ndir = \"d\"\nfolow = [\"nas\"]", 4, "follow"),
            ("[[vaults]]\ndir = \"d\"", 1, "vault"),
            ("log_format = \"jsn\"", 1, "json"),
            ("[[vault]]\ndir = \"d\"\nmaterialise = \"x\"", 3, "materialize"),
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!((failure.code, failure.hint.as_deref()), (Code::Usage, Some(format!("did you mean {meant}?").as_str())), "{text}");
            assert!(failure.message.contains(&format!("line {line}")), "{}", failure.message);
        }
    }

    #[test]
    fn a_setting_in_the_wrong_part_is_refused_with_its_place() {
        for (text, line, place) in [
            ("[[vault]]\ndir = \"d\"\nbwlimit = \"1MB\"", 3, "bwlimit holds for all vaults together: write it above the first [[vault]]"),
            ("[[vault]]\ndir = \"d\"\nui = \"127.0.0.1:1\"", 3, "ui holds for all vaults together: write it above the first [[vault]]"),
            ("listen = []", 1, "listen is said of one vault: write it below its [[vault]]"),
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!((failure.code, failure.hint.as_deref()), (Code::Usage, Some(place)), "{text}");
            assert!(failure.message.contains(&format!("line {line}")), "{}", failure.message);
        }
    }

    #[test]
    fn a_quantity_without_a_unit_and_an_address_without_a_port_are_refused() {
        assert!(parse("bwlimit = \"08:00,1MiB 19:00\"").unwrap_err().message.contains("says no time or no limit"));
        assert!(parse("bwlimit = \"20\"").unwrap_err().message.contains("no unit"));
        assert!(parse("ui = \"localhost\"").unwrap_err().message.contains("socket address"));
        assert!(parse("[[vault]]\nlisten = []").unwrap_err().message.contains("missing field `dir`"));
    }
}
