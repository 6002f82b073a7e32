//! What flags, environment and settings mean together, checked before anything is opened.

use super::{
    args::{LogFormat, MirordCli},
    settings::{SettingsFile, VaultSettings},
};
use crate::{
    args::{Bandwidth, CongestionChoice, GlobalArgs, MaxDelete},
    commands::{folder, pairing, replicate},
    config::Settings,
    failure::Failure,
    secrets::SecretSources,
};
use mirror_engine::{
    folder::{Flow, FolderOptions},
    limits::{FUSE_KEYS_MAX, FUSE_PERCENT, LANES_MAX},
    node::Follow,
    replicate::Options,
    transport::Congestion,
    vault::{DeleteLimit, Vault, VaultError},
};
use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// A daemon as it is to be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) vaults: Vec<VaultPlan>,
    pub(super) ui: Option<SocketAddr>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) bwlimit: Bandwidth,
    pub(super) priority: Priority,
    pub(super) log_format: LogFormat,
    /// What is the same for all programs.
    pub(super) settings: Settings,
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    Usual,
    Low,
}

/// One vault as it is to be kept.
#[derive(Debug, Clone)]
pub(super) struct VaultPlan {
    /// Absolute, and canonical if it is there.
    pub(super) dir: PathBuf,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) follow: Follow,
    pub(super) max_delete: Option<DeleteLimit>,
    pub(super) secrets: SecretSources,
    pub(super) memory_bytes: u64,
    pub(super) folders: Vec<FolderPlan>,
    settings: VaultSettings,
}

/// One folder as it is to be followed.
#[derive(Debug, Clone)]
pub(super) struct FolderPlan {
    /// Absolute; it need not be there yet.
    pub(super) dir: PathBuf,
    pub(super) options: FolderOptions,
}

impl Plan {
    /// Puts the sources together.
    ///
    /// # Errors
    /// [`crate::failure::Code::Usage`] for what contradicts itself or is not allowed; [`crate::failure::Code::NoVault`] when no vault is
    /// named and none is around.
    pub(super) fn resolve(cli: &MirordCli) -> Result<Self, Failure> {
        let home = crate::config::home_dir()?;
        let file = SettingsFile::read(cli.config.as_deref(), &home)?;
        let global = cli.global();
        let settings = Settings::resolve(GlobalArgs {
            log_file: global.log_file.or_else(|| file.log_file.clone()),
            memory: global.memory.or(file.memory),
            io: global.io.or(file.io),
            no_discovery: global.no_discovery || file.discovery == Some(false),
            ..global
        })?;
        let chosen = vaults(cli, &file, &settings)?;
        check_folder_flags(cli, chosen.len())?;
        let vaults = chosen.into_iter().map(|vault| VaultPlan::of(cli, vault, &settings)).collect::<Result<Vec<_>, _>>()?;
        check_ports(&vaults)?;
        let (ui, metrics) = (cli.ui.or(file.ui), cli.metrics.or(file.metrics));
        check_pages(ui, metrics, cli.metrics_remote || file.metrics_remote)?;
        Ok(Self {
            vaults,
            ui,
            metrics,
            bwlimit: cli.bwlimit.clone().or(file.bwlimit).unwrap_or_default(),
            priority: if cli.low_priority || file.low_priority { Priority::Low } else { Priority::Usual },
            log_format: cli.log_format.or(file.log_format).unwrap_or_default(),
            settings,
        })
    }
}

impl VaultPlan {
    fn of(cli: &MirordCli, settings: VaultSettings, global: &Settings) -> Result<Self, Failure> {
        let dir = std::path::absolute(&settings.dir).map_err(|error| Failure::reading(&settings.dir, &error))?;
        let lanes_wrong = settings.lanes.is_some_and(|lanes| lanes == 0 || usize::from(lanes) > LANES_MAX);
        if lanes_wrong {
            return Err(Failure::usage(format!("lanes of {} are 1 to {LANES_MAX}", dir.display())).hint("mend that setting"));
        }
        let limit = cli.max_delete.or(settings.max_delete);
        let fuse = MaxDelete(Some(DeleteLimit::Share { percent: FUSE_PERCENT, keys: FUSE_KEYS_MAX }));
        let settings = VaultSettings {
            transport: cli.transport.or(settings.transport),
            watch: cli.watch.clone().or(settings.watch),
            materialize: cli.materialize.clone().or(settings.materialize),
            prefix: cli.prefix.clone().or(settings.prefix),
            ..settings
        };
        let (dir, max_delete) = (dir.canonicalize().unwrap_or(dir), limit.unwrap_or(fuse).0);
        let follow = if cli.follow.is_empty() { settings.follow.clone() } else { Some(cli.follow.clone()) };
        Ok(Self {
            folders: folders(&settings, &dir, max_delete)?,
            dir,
            listen: listen(cli, &settings),
            follow: follow.map_or(Follow::AllKnown, Follow::Only),
            max_delete,
            secrets: global.secrets.or_standing(settings.passphrase_file.clone(), settings.passphrase_command.clone()),
            memory_bytes: global.memory_bytes,
            settings,
        })
    }

    /// How each session runs.
    pub(super) fn options(&self) -> Options {
        Options {
            choice: replicate::choice(self.settings.transport),
            lanes: self.settings.lanes.map(usize::from),
            congestion: self.settings.congestion.map(|choice| match choice {
                CongestionChoice::Auto => Congestion::Auto,
                CongestionChoice::Bbr => Congestion::Bbr,
                CongestionChoice::Cubic => Congestion::Cubic,
            }),
            plain_lanes: replicate::plain_lanes(self.settings.lanes_plain),
            ..Options::default()
        }
    }

    /// Whether a vault that is kept by this plan may stay as it is under `other`.
    pub(super) fn keeps(&self, other: &Self) -> bool {
        let what = |plan: &Self| (plan.dir.clone(), plan.listen.clone(), plan.follow.clone(), plan.memory_bytes);
        what(self) == what(other)
            && self.max_delete == other.max_delete
            && self.secrets == other.secrets
            && VaultSettings { dir: PathBuf::new(), ..self.settings.clone() }
                == VaultSettings { dir: PathBuf::new(), ..other.settings.clone() }
    }
}

/// A folder is of one vault.
fn check_folder_flags(cli: &MirordCli, vaults: usize) -> Result<(), Failure> {
    let typed = cli.watch.is_some() || cli.materialize.is_some() || cli.prefix.is_some();
    if typed && vaults > 1 {
        return Err(Failure::usage(format!("--watch, --materialize and --prefix are for one vault, and {vaults} are kept"))
            .hint("in mirord.toml say below a [[vault]]: watch = \"DIR\", materialize = \"DIR\""));
    }
    Ok(())
}

/// The folders of the vault in `vault_dir`. What can be wrong with them for now only, such as not being there, is seen when they are opened.
fn folders(settings: &VaultSettings, vault_dir: &Path, delete_limit: Option<DeleteLimit>) -> Result<Vec<FolderPlan>, Failure> {
    let flows = folder::flows(settings.watch.as_deref(), settings.materialize.as_deref());
    if flows.is_empty() && settings.prefix.is_some() {
        return Err(Failure::usage(format!("prefix says which keys a folder holds, and {} has none", vault_dir.display()))
            .hint("add watch = \"DIR\" or materialize = \"DIR\" (--watch DIR, --materialize DIR)"));
    }
    let plan = |(dir, flow): (PathBuf, Flow)| {
        let whole = std::path::absolute(&dir).map_err(|error| Failure::reading(&dir, &error))?;
        let whole = whole.canonicalize().unwrap_or(whole);
        if whole.starts_with(vault_dir) || vault_dir.starts_with(&whole) {
            let failure = Failure::usage(format!("the folder {} and the vault {} lie in each other", whole.display(), vault_dir.display()));
            return Err(failure.hint("follow a folder elsewhere: the vault holds what is in it encrypted, the folder as files"));
        }
        Ok(FolderPlan { dir: whole, options: FolderOptions { prefix: settings.prefix.clone(), delete_limit, ..FolderOptions::new(flow) } })
    };
    flows.into_iter().map(plan).collect()
}

/// Those that were typed, with what the settings say of them; else those of the settings; else the one that any command would take.
fn vaults(cli: &MirordCli, file: &SettingsFile, settings: &Settings) -> Result<Vec<VaultSettings>, Failure> {
    if !cli.vaults.is_empty() {
        let known = |dir: &PathBuf| file.vaults.iter().find(|vault| is_same(&vault.dir, dir)).cloned();
        return Ok(cli
            .vaults
            .iter()
            .map(|dir| known(dir).unwrap_or_else(|| VaultSettings { dir: dir.clone(), ..VaultSettings::default() }))
            .collect());
    }
    if !file.vaults.is_empty() {
        return Ok(file.vaults.clone());
    }
    let here = env::current_dir().map_err(|error| Failure::io("cannot tell the working directory", &error))?;
    let dir = settings.vault.clone().or_else(|| Vault::find(&here)).ok_or(VaultError::NoVault(here))?;
    Ok(vec![VaultSettings { dir, ..VaultSettings::default() }])
}

fn is_same(left: &Path, right: &Path) -> bool {
    left == right || left.canonicalize().is_ok_and(|left| right.canonicalize().is_ok_and(|right| left == right))
}

fn listen(cli: &MirordCli, settings: &VaultSettings) -> Vec<SocketAddr> {
    match (&cli.listen[..], &settings.listen) {
        _ if cli.no_listen => Vec::new(),
        ([], Some(addresses)) => addresses.clone(),
        ([], None) => vec![pairing::everywhere()],
        (typed, _) => typed.to_vec(),
    }
}

/// Each vault needs a port of its own: who calls says nothing of the vault before it has proved that it belongs there.
fn check_ports(vaults: &[VaultPlan]) -> Result<(), Failure> {
    let mut taken: BTreeMap<SocketAddr, &Path> = BTreeMap::new();
    for vault in vaults {
        for address in vault.listen.iter().filter(|address| address.port() != 0) {
            if let Some(other) = taken.insert(*address, &vault.dir) {
                let (one, two) = (other.display(), vault.dir.display());
                let failure = Failure::usage(format!("{one} and {two} would both listen on {address}"));
                let free = SocketAddr::new(address.ip(), address.port().saturating_add(1));
                return Err(
                    failure.hint(format!("in mirord.toml give one of them another port: listen = [\"{free}\"], or none: listen = []"))
                );
            }
        }
    }
    Ok(())
}

/// The status page is for this machine only, and metrics are unless the user says otherwise.
fn check_pages(ui: Option<SocketAddr>, metrics: Option<SocketAddr>, metrics_remote: bool) -> Result<(), Failure> {
    if let Some(address) = ui.filter(|address| !address.ip().is_loopback()) {
        return Err(Failure::usage(format!(
            "the status page is not shown to other machines, and {address} is not of the loopback interface"
        ))
        .hint(format!("--ui 127.0.0.1:{port}; from elsewhere: ssh -L {port}:127.0.0.1:{port} HOST", port = address.port())));
    }
    match metrics {
        Some(address) if !address.ip().is_loopback() && !metrics_remote => {
            Err(Failure::usage(format!("whoever reaches {address} could read the names of vaults and peers"))
                .hint(format!("--metrics 127.0.0.1:{}, or say that it is meant: --metrics-remote", address.port())))
        }
        Some(address) if ui == Some(address) && address.port() != 0 => Err(Failure::usage("the status page and metrics need a port each")
            .hint(format!("--metrics {}", SocketAddr::new(address.ip(), address.port().saturating_add(1))))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_page_is_for_this_machine_and_metrics_too_unless_it_is_meant() {
        assert!(check_pages(address("127.0.0.1:1"), address("[::1]:2"), false).is_ok());
        assert!(check_pages(None, address("0.0.0.0:2"), true).is_ok());
        for (ui, metrics, hint) in [
            (address("0.0.0.0:7741"), None, "--ui 127.0.0.1:7741; from elsewhere: ssh -L 7741:127.0.0.1:7741 HOST"),
            (None, address("10.0.0.1:9"), "--metrics 127.0.0.1:9, or say that it is meant: --metrics-remote"),
            (address("127.0.0.1:5"), address("127.0.0.1:5"), "--metrics 127.0.0.1:6"),
        ] {
            let failure = check_pages(ui, metrics, false).unwrap_err();
            assert_eq!((failure.code, failure.hint.as_deref()), (Code::Usage, Some(hint)));
        }
    }
}
