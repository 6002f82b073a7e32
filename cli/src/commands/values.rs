//! `add`, `put`, `get`: values into the vault and out of it.

use super::{Session, key};
use crate::{
    args::{AddArgs, GetArgs, PutArgs},
    failure::{Code, Failure},
    interrupt::Interrupt,
    render::{self, Extent, Format},
};
use mirror_engine::vault::{AddOptions, AddReport, Entry};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(super) fn add(session: &Session, args: AddArgs) -> Result<Code, Failure> {
    let extent = Extent::of(args.dry_run);
    let options = AddOptions { paths: args.paths, prefix: args.prefix, exclude: args.exclude, dry_run: args.dry_run };
    let vault = session.open()?;
    let progress = session.progress("add");
    let report = vault.add(&options, &*progress.meter())?;
    drop(progress);
    show(session, "add", extent, &report)
}

pub(super) fn put(session: &Session, args: &PutArgs) -> Result<Code, Failure> {
    let key = key(&args.key)?;
    let mut source: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.file).map_err(|error| Failure::reading(&args.file, &error))?)
    };
    let vault = session.open()?;
    let progress = session.progress("put");
    let report = vault.put(&key, &mut source, &*progress.meter())?;
    drop(progress);
    show(session, "put", Extent::Done, &report)
}

fn show(session: &Session, operation: &'static str, extent: Extent, report: &AddReport) -> Result<Code, Failure> {
    for (path, reason) in &report.skipped {
        session.talk.warn(&format!("skipped {}", render::not_done_line(&render::path_text(path), reason)));
    }
    session.report(|| render::add_record(operation, extent, report), || render::add_text(extent, report))?;
    Ok(if report.skipped.is_empty() { Code::Ok } else { Code::Partial })
}

pub(super) fn get(session: &Session, args: &GetArgs) -> Result<Code, Failure> {
    let key = key(&args.key)?;
    let to_file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if to_file.is_none() && session.output.format() == Format::Json {
        return Err(
            Failure::usage("with --json, stdout holds JSON lines and not a value").hint("write the value to a file: get KEY -o FILE")
        );
    }
    let vault = session.open()?;
    let fetch = |sink: &mut dyn Write| {
        let mut sink = Sink { sink, interrupt: &session.interrupt, error: None };
        let result = match &args.event {
            None => vault.get(&key, &mut sink),
            Some(event) => vault.get_version(&key, event, &mut sink),
        };
        (result, sink.error)
    };
    match to_file {
        None => to_stdout(session, fetch)?,
        Some(path) => {
            let entry = to_path(path, fetch)?;
            session.report(
                || render::entry_record(&entry),
                || format!("{} written to {}", render::bytes_text(entry.size), render::path_text(path)),
            )?;
        }
    }
    Ok(Code::Ok)
}

type Fetched = (Result<Entry, mirror_engine::vault::VaultError>, Option<io::Error>);

fn to_stdout(session: &Session, fetch: impl FnOnce(&mut dyn Write) -> Fetched) -> Result<(), Failure> {
    match fetch(&mut *session.output.lock()) {
        (_, Some(_)) if session.interrupt.is_set() => Err(Failure::interrupted()),
        (_, Some(error)) => Err(render::stdout_failure(&error)),
        (result, None) => Ok(result.map(drop)?),
    }
}

/// The file appears whole or not at all: it is written under another name beside its place, made durable, and renamed.
fn to_path(path: &Path, fetch: impl FnOnce(&mut dyn Write) -> Fetched) -> Result<Entry, Failure> {
    let failed = |error: &io::Error| Failure::writing(path, error);
    let Some(place) = place(path).map_err(|error| failed(&error))? else {
        let mut device = File::options().write(true).open(path).map_err(|error| failed(&error))?;
        return settle(fetch(&mut device), path);
    };
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = fs::Permissions::from_mode(0o666);
    let staged = tempfile::Builder::new().prefix(".mirror-get-").permissions(permissions).tempfile_in(parent);
    let mut staged = staged.map_err(|error| failed(&error))?;
    let entry = settle(fetch(staged.as_file_mut()), path)?;
    staged.as_file().sync_all().map_err(|error| failed(&error))?;
    staged.persist(&place).map_err(|error| failed(&error.error))?;
    Ok(entry)
}

/// Where the file really goes, behind links; none for a device or pipe, which is written to and never replaced.
fn place(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => fs::canonicalize(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(path.to_owned())),
        Err(error) => Err(error),
    }
}

fn settle((result, error): Fetched, path: &Path) -> Result<Entry, Failure> {
    match error {
        Some(error) if error.kind() == io::ErrorKind::ConnectionAborted => Err(Failure::interrupted()),
        Some(error) => Err(Failure::writing(path, &error)),
        None => Ok(result?),
    }
}

/// Where a value is streamed to. It remembers its own error, to be told apart from the vault's, and it is where a
/// command that has no other place to look notices Ctrl-C.
struct Sink<'a> {
    sink: &'a mut dyn Write,
    interrupt: &'a Interrupt,
    error: Option<io::Error>,
}

impl Sink<'_> {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.error = Some(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error));
        }
        result
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // `Interrupted` itself would be tried again by whoever writes.
        let result = if self.interrupt.is_set() { Err(io::ErrorKind::ConnectionAborted.into()) } else { self.sink.write(bytes) };
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.sink.flush();
        self.note(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_engine::{
        event::{Key, ValueKind},
        id::{EventId, ReplicaId},
        vault::VaultError,
    };

    fn entry() -> Entry {
        Entry {
            key: Key::new(*b"k").unwrap(),
            kind: Some(ValueKind::Blob),
            size: 3,
            modified_ms: 0,
            event: EventId::from_bytes([0; 32]),
            replica: ReplicaId::from_bytes([0; 32]),
            deleted: false,
            conflict: false,
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        to_path(&path, |sink| (Ok(entry()), sink.write_all(b"new").err())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_value_that_fails_half_way_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let result = to_path(&path, |sink| {
            sink.write_all(b"ne").unwrap();
            (Err(VaultError::Damaged("chunk".into())), None)
        });
        assert_eq!(result.unwrap_err().code, Code::Damaged);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_link_is_followed_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        to_path(&link, |sink| (Ok(entry()), sink.write_all(b"new").err())).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(link.is_symlink());
    }

    #[test]
    fn a_device_is_written_to_and_never_replaced() {
        to_path(Path::new("/dev/null"), |sink| (Ok(entry()), sink.write_all(b"new").err())).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn an_interrupt_ends_a_stream() {
        let interrupt = Interrupt::default();
        let mut bytes = Vec::new();
        let mut sink = Sink { sink: &mut bytes, interrupt: &interrupt, error: None };
        sink.write_all(b"abc").unwrap();
        interrupt.set();
        assert!(sink.write_all(b"def").is_err());
        let failure = settle((Err(VaultError::Cancelled), sink.error), Path::new("out")).unwrap_err();
        assert_eq!(failure.code, Code::Interrupted);
    }
}
