//! Programs that keep a peer of their own: sendme, and syncthing.
//!
//! ```text
//! sendme     send ── ticket ─► receive ── QUIC ──► the file, exported          relays off, addresses in the ticket
//! syncthing  serve ═══ TLS over TCP ═══► serve ── the file, renamed            discovery, relays and NAT off, each knows where the other is
//! ```
//! sendme hashes before it prints a ticket, so that its time, from the start of `receive` to its end, is without that; its CPU-seconds are
//! with it. syncthing's time is from the start of the sending end, which has to hash the file, until the receiving one has given it its name.

use super::{
    Setup,
    tools::{directory, received, sample, write},
};
use crate::{
    bench::{
        measurement::Sample,
        program::{Running, free_port, run},
    },
    failure::{Code, Failure},
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(2);
/// Longer than a program takes that works: it starts, and moves this much a second.
const START_S: u64 = 60;
const SLOWEST_BYTES_PER_S: u64 = 1 << 20;

/// What stands before the ticket in the line that tells what to type at the other end.
const TICKET: &str = "sendme receive ";

pub(super) fn sendme(setup: &Setup, place: &Path) -> Result<Sample, Failure> {
    let (from, to) = (directory(place.join("from"))?, directory(place.join("to"))?);
    let mut sending = Running::start(&setup.bed, &mut send(&setup.data, &from))?;
    let ticket = ticket(&mut sending)?;
    let receiver = run(&setup.bed, &mut receive(&ticket, &to))?;
    received(setup, &to.join(setup.data.file_name().unwrap_or_default()))?;
    Ok(sample(setup, receiver.elapsed, &sending.stop()?, &receiver))
}

/// What is printed once the file is hashed.
fn ticket(sending: &mut Running) -> Result<String, Failure> {
    loop {
        let line = sending.line()?;
        if line.is_empty() {
            return Err(sending.complaint("prints no ticket"));
        }
        if let Some(ticket) = line.trim().strip_prefix(TICKET) {
            return Ok(ticket.to_owned());
        }
    }
}

/// Keeps its state in the directory where it runs.
fn send(data: &Path, at: &Path) -> Command {
    let mut command = Command::new("sendme");
    command.args(["send", "--relay", "disabled", "--no-progress"]).arg(data).current_dir(at);
    command
}

/// Leaves the file in the directory where it runs.
fn receive(ticket: &str, at: &Path) -> Command {
    let mut command = Command::new("sendme");
    command.args(["receive", "--relay", "disabled", "--no-progress", ticket]).current_dir(at);
    command
}

pub(super) fn syncthing(setup: &Setup, place: &Path) -> Result<Sample, Failure> {
    let (sender, receiver) = (End::new(setup, place, "from")?, End::new(setup, place, "to")?);
    let name = setup.data.file_name().unwrap_or_default();
    let (data, wanted) = (sender.folder.join(name), receiver.folder.join(name));
    fs::copy(&setup.data, &data).map_err(|error| Failure::writing(&data, &error))?;
    sender.configure(FolderType::SendOnly, &receiver)?;
    receiver.configure(FolderType::ReceiveOnly, &sender)?;
    let mut receiving = Running::start(&setup.bed, &mut serve(&receiver.home))?;
    receiving.listens(receiver.address)?;
    let began = Instant::now();
    let sending = Running::start(&setup.bed, &mut serve(&sender.home))?;
    // It has another name until it is complete.
    let patience = Duration::from_secs(START_S + setup.bytes / SLOWEST_BYTES_PER_S);
    while !wanted.exists() {
        if began.elapsed() > patience {
            return Err(Failure::new(Code::Failed, format!("syncthing has not moved the file in {} s", patience.as_secs())));
        }
        thread::sleep(POLL);
    }
    let elapsed = began.elapsed();
    received(setup, &wanted)?;
    Ok(sample(setup, elapsed, &sending.stop()?, &receiving.stop()?))
}

/// A device of syncthing's.
struct End {
    home: PathBuf,
    folder: PathBuf,
    /// Follows from the key that it has made for itself.
    id: String,
    address: SocketAddr,
}

/// Which way files go.
#[derive(Debug, Clone, Copy)]
enum FolderType {
    SendOnly,
    ReceiveOnly,
}

impl FolderType {
    fn name(self) -> &'static str {
        match self {
            Self::SendOnly => "sendonly",
            Self::ReceiveOnly => "receiveonly",
        }
    }
}

impl End {
    fn new(setup: &Setup, place: &Path, name: &str) -> Result<Self, Failure> {
        let (home, folder) = (place.join(format!("{name}-home")), directory(place.join(name))?);
        // Without it syncthing takes the folder for a disk that is not mounted.
        directory(folder.join(".stfolder"))?;
        run(&setup.bed, &mut generate(&home))?;
        let config = home.join("config.xml");
        let config = fs::read_to_string(&config).map_err(|error| Failure::reading(&config, &error))?;
        let id = first_device(&config).ok_or_else(|| Failure::new(Code::Failed, "syncthing has generated no device"))?;
        Ok(Self { home, folder, id: id.to_owned(), address: free_port()? })
    }

    fn configure(&self, folder: FolderType, other: &Self) -> Result<(), Failure> {
        write(self.home.join("config.xml"), &config(self, folder, other)).map(drop)
    }
}

/// Makes a key and a configuration.
fn generate(home: &Path) -> Command {
    let mut command = Command::new("syncthing");
    command.arg("generate").arg("--home").arg(home);
    command
}

/// One process, which `wait4` can charge with everything.
fn serve(home: &Path) -> Command {
    let mut command = Command::new("syncthing");
    command.args(["serve", "--no-browser", "--no-restart", "--home"]).arg(home).env("STNOUPGRADE", "1");
    command
}

/// The id of the first device in a configuration: whose it is, when it is new.
fn first_device(config: &str) -> Option<&str> {
    config.split_once("<device id=\"")?.1.split('"').next()
}

/// A configuration of version 35 (of 2021), which later programs understand: two devices and a folder, and nothing that looks for others.
fn config(own: &End, folder: FolderType, other: &End) -> String {
    format!(
        r#"<configuration version="35">
    <folder id="data" label="data" path="{path}" type="{direction}" rescanIntervalS="3600" fsWatcherEnabled="false" ignorePerms="true">
        <device id="{own}"></device>
        <device id="{other}"></device>
    </folder>
    <device id="{own}" name="own" compression="never"><address>dynamic</address></device>
    <device id="{other}" name="other" compression="never"><address>tcp://{at}</address></device>
    <gui enabled="false"></gui>
    <options>
        <listenAddress>tcp://{listen}</listenAddress>
        <globalAnnounceEnabled>false</globalAnnounceEnabled>
        <localAnnounceEnabled>false</localAnnounceEnabled>
        <relaysEnabled>false</relaysEnabled>
        <natEnabled>false</natEnabled>
        <reconnectionIntervalS>1</reconnectionIntervalS>
        <startBrowser>false</startBrowser>
        <urAccepted>-1</urAccepted>
        <crashReportingEnabled>false</crashReportingEnabled>
        <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
        <setLowPriority>false</setLowPriority>
    </options>
</configuration>
"#,
        path = escaped(&own.folder),
        direction = folder.name(),
        own = own.id,
        other = other.id,
        at = other.address,
        listen = own.address,
    )
}

/// As an attribute in XML.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn end(name: &str, port: u16) -> End {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        End { home: format!("{name}-home").into(), folder: format!("a & {name}").into(), id: name.to_uppercase(), address }
    }

    #[test]
    fn sendme_leaves_no_machine_and_works_where_it_is_told_to() {
        let (send, receive) = (send(Path::new("/data/file"), Path::new("from")), receive("blobabc", Path::new("to")));
        assert_eq!(words(&send), "sendme send --relay disabled --no-progress /data/file");
        assert_eq!(words(&receive), "sendme receive --relay disabled --no-progress blobabc");
        assert_eq!((send.get_current_dir(), receive.get_current_dir()), (Some(Path::new("from")), Some(Path::new("to"))));
    }

    #[test]
    fn syncthing_runs_as_one_process_with_a_home_of_its_own() {
        assert_eq!(words(&generate(Path::new("home"))), "syncthing generate --home home");
        assert_eq!(words(&serve(Path::new("home"))), "syncthing serve --no-browser --no-restart --home home");
    }

    #[test]
    fn each_end_of_syncthing_knows_the_other_and_looks_for_nobody() {
        let (from, to) = (end("from", 1_001), end("to", 1_002));
        let config = config(&from, FolderType::SendOnly, &to);
        assert_eq!(first_device(&config), Some("FROM"));
        for part in [
            r#"path="a &amp; from" type="sendonly""#,
            r#"<device id="TO" name="other" compression="never"><address>tcp://127.0.0.1:1002</address>"#,
            "<listenAddress>tcp://127.0.0.1:1001</listenAddress>",
            "<globalAnnounceEnabled>false<",
            "<localAnnounceEnabled>false<",
            "<relaysEnabled>false<",
            "<natEnabled>false<",
            "<gui enabled=\"false\">",
        ] {
            assert!(config.contains(part), "{part}: {config}");
        }
    }
}
