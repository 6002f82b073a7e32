//! `init`: a new vault, and the one moment at which its recovery phrase can be seen.

use super::Session;
use crate::{
    args::InitArgs,
    failure::{Code, Failure},
    render,
};
use mirror_engine::vault::{InitOptions, Initialised, Vault};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{self, Path, PathBuf},
};

pub(super) fn init(session: &Session, args: InitArgs) -> Result<Code, Failure> {
    let options = InitOptions {
        name: name(&args)?,
        passphrase: if args.no_passphrase { None } else { Some(session.settings.secrets.new_passphrase()?) },
        recovery: !args.no_recovery_kit,
        device_slot: !args.no_device_slot,
        device_name: super::pairing::own_name(),
    };
    let kit = args.recovery_file.map(|path| RecoveryFile::create(path, &args.dir)).transpose()?;
    let made = match Vault::init(&args.dir, &session.home()?, options) {
        Ok(made) => made,
        Err(error) => {
            if let Some(kit) = kit {
                kit.discard();
            }
            return Err(error.into());
        }
    };
    hand_over(session, &made, kit)?;
    Ok(Code::Ok)
}

fn name(args: &InitArgs) -> Result<String, Failure> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let absolute = path::absolute(&args.dir).map_err(|error| Failure::reading(&args.dir, &error))?;
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    name.ok_or_else(|| Failure::usage("the vault needs a name").hint("give one with --name"))
}

/// The phrase goes to its file, else to stdout. If the file fails it is printed all the same: it exists only here.
fn hand_over(session: &Session, made: &Initialised, kit: Option<RecoveryFile>) -> Result<(), Failure> {
    let phrase = made.recovery_phrase.as_ref().map(|phrase| phrase.as_str());
    let written = match (&kit, phrase) {
        (Some(kit), Some(phrase)) => Some(kit.write(phrase)),
        _ => None,
    };
    let printed = if matches!(written, Some(Ok(()))) { None } else { phrase };
    let file = kit.as_ref().map(|kit| kit.path.as_path());
    session.output.show(|| render::init_record(made, printed, file), || text(made, printed, file))?;
    session.output.flush()?;
    written.unwrap_or(Ok(()))
}

fn text(made: &Initialised, phrase: Option<&str>, file: Option<&Path>) -> String {
    let mut text = format!("made vault {} in {}", made.vault.info().id.short(), render::path_text(made.vault.dir()));
    match (phrase, file) {
        (Some(phrase), _) => {
            text.push_str(&format!("\nrecovery phrase, shown only now; it opens the vault without the passphrase:\n{phrase}"))
        }
        (None, Some(file)) => {
            text.push_str(&format!("\nrecovery phrase written to {}; keep it away from this machine", render::path_text(file)))
        }
        (None, None) => {}
    }
    text
}

/// A new file that only its owner can read. It is made before the vault, so that a vault is not left without its phrase
/// because a path was wrong.
struct RecoveryFile {
    path: PathBuf,
    file: File,
}

impl RecoveryFile {
    fn create(path: PathBuf, vault: &Path) -> Result<Self, Failure> {
        let absolute = |path: &Path| path::absolute(path).map_err(|error| Failure::reading(path, &error));
        if absolute(&path)?.starts_with(absolute(vault)?) {
            return Err(Failure::usage("--recovery-file lies inside the vault").hint("keep the phrase apart from what it opens"));
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.map(|file| Self { path: path.clone(), file })
            .map_err(|error| Failure::writing(&path, &error).hint("name a file that does not exist yet"))
    }

    fn write(&self, phrase: &str) -> Result<(), Failure> {
        let mut file = &self.file;
        file.write_all(phrase.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .map_err(|error| Failure::writing(&self.path, &error).hint("the vault was made; the phrase is on stdout, write it down"))
    }

    /// Takes the empty file away again.
    fn discard(self) {
        drop(fs::remove_file(&self.path));
    }
}
