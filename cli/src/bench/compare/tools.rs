//! How each program is made to move the file, once.

use super::{Setup, peers};
use crate::{
    bench::{
        measurement::{Sample, Wire},
        program::{Ran, Running, free_port, run},
    },
    failure::{Code, Failure},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// One way to move a file.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) wire: Wire,
    /// Programs that must be installed; none for `mirror`, which is built.
    pub(super) needs: &'static [&'static str],
    /// In a directory of its own.
    pub(super) run: fn(&Setup, &Path) -> Result<Sample, Failure>,
}

pub(super) const TOOLS: [Tool; 10] = [
    Tool { name: "mirror-tcp", wire: Wire::Encrypted, needs: &[], run: |setup, _| mirror(setup, "tcp") },
    Tool { name: "mirror-quic", wire: Wire::Encrypted, needs: &[], run: |setup, _| mirror(setup, "quic") },
    Tool { name: "tar-openssl", wire: Wire::Encrypted, needs: &["openssl", "tar"], run: tar_openssl },
    Tool {
        name: "rclone-https",
        wire: Wire::Encrypted,
        needs: &["rclone", "openssl"],
        run: |setup, place| rclone(setup, place, Wire::Encrypted),
    },
    Tool { name: "restic", wire: Wire::Encrypted, needs: &["restic", "rclone"], run: restic },
    Tool { name: "syncthing", wire: Wire::Encrypted, needs: &["syncthing"], run: peers::syncthing },
    Tool { name: "sendme", wire: Wire::Encrypted, needs: &["sendme"], run: peers::sendme },
    Tool { name: "rclone-http", wire: Wire::Plain, needs: &["rclone"], run: |setup, place| rclone(setup, place, Wire::Plain) },
    Tool { name: "rsync-daemon", wire: Wire::Plain, needs: &["rsync"], run: rsync },
    Tool { name: "iperf3", wire: Wire::Plain, needs: &["iperf3"], run: iperf3 },
];

/// What both ends have cost for the whole file, in the time of the first.
pub(super) fn sample(setup: &Setup, elapsed: Duration, sender: &Ran, receiver: &Ran) -> Sample {
    Sample {
        sender: Some(sender.usage.cpu),
        receiver: Some(receiver.usage.cpu),
        peak_bytes: Some(sender.usage.peak_bytes.max(receiver.usage.peak_bytes)),
        ..Sample::of(setup.bytes, elapsed)
    }
}

/// The file must have come as long as it left.
pub(super) fn received(setup: &Setup, path: &Path) -> Result<(), Failure> {
    let length = fs::metadata(path).map_err(|error| Failure::reading(path, &error))?.len();
    if length == setup.bytes { Ok(()) } else { Err(Failure::new(Code::Failed, format!("{length} of {} bytes were received", setup.bytes))) }
}

pub(super) fn directory(path: PathBuf) -> Result<PathBuf, Failure> {
    fs::create_dir_all(&path).map_err(|error| Failure::writing(&path, &error))?;
    Ok(path)
}

pub(super) fn write(path: PathBuf, text: &str) -> Result<PathBuf, Failure> {
    fs::write(&path, text).map_err(|error| Failure::writing(&path, &error))?;
    Ok(path)
}

fn mirror(setup: &Setup, transport: &str) -> Result<Sample, Failure> {
    let mirror = setup.mirror.as_ref().ok_or_else(|| Failure::usage("there is no mirror"))?;
    let origin = mirror.device(&setup.bed)?;
    let pairing = mirror.serve(&setup.bed, &origin)?;
    let replica = mirror.clone_of(&setup.bed, &origin, &pairing)?;
    pairing.running.stop()?;
    mirror.run(&setup.bed, &replica, &["add".as_ref(), setup.data.as_os_str()])?;
    let serving = mirror.serve(&setup.bed, &origin)?;
    let (sent, _) = mirror.push(&setup.bed, &replica, &serving, transport)?;
    let served = serving.running.stop()?;
    [origin, replica].iter().for_each(|device| device.remove());
    Ok(sample(setup, sent.elapsed, &sent, &served))
}

/// A certificate that nobody checks: the bytes are encrypted, whoever reads them.
fn certificate(setup: &Setup, place: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let (key, certificate) = (place.join("key.pem"), place.join("certificate.pem"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=127.0.0.1",
    ]);
    run(&setup.bed, command.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
    Ok((key, certificate))
}

/// A pipe of two programs on each side. The receiving side ends when it has everything.
fn piped(setup: &Setup, place: &Path, receive: &str, send: &str) -> Result<Sample, Failure> {
    let (to, at) = (directory(place.join("received"))?, free_port()?);
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("PORT", at.port().to_string()).env("TO", &to).env("PLACE", place);
        command.env("DATA", &setup.data).env("DIR", setup.bed.path());
        command
    };
    let receiver = Running::start(&setup.bed, &mut shell(receive))?;
    let name = setup.data.file_name().unwrap_or_default();
    // Whether the port is open cannot be asked without being taken for the one who was meant.
    let began = Instant::now();
    let (mut sender, mut from);
    loop {
        from = Instant::now();
        sender = Running::start(&setup.bed, shell(send).env("NAME", name))?.succeed();
        if sender.is_ok() || began.elapsed() > Duration::from_secs(10) || to.join(name).exists() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (sent, received_by) = (sender?, receiver.succeed()?);
    let elapsed = from.elapsed();
    received(setup, &to.join(name))?;
    Ok(sample(setup, elapsed, &sent, &received_by))
}

fn tar_openssl(setup: &Setup, place: &Path) -> Result<Sample, Failure> {
    certificate(setup, place)?;
    piped(
        setup,
        place,
        "openssl s_server -quiet -naccept 1 -accept 127.0.0.1:$PORT -key $PLACE/key.pem -cert $PLACE/certificate.pem | tar -x -f - -C $TO",
        "tar -c -f - -C $DIR $NAME | openssl s_client -nocommands -quiet -no_ign_eof -connect 127.0.0.1:$PORT",
    )
}

fn rclone(setup: &Setup, place: &Path, wire: Wire) -> Result<Sample, Failure> {
    let (to, config, at) = (directory(place.join("received"))?, write(place.join("rclone.conf"), "")?, free_port()?);
    let command = || {
        let mut command = Command::new("rclone");
        command.arg("--config").arg(&config);
        command
    };
    let mut serve = command();
    serve.args(["serve", "webdav", "--addr", &at.to_string()]).arg(&to);
    let mut copy = command();
    copy.args(["copyto", "--no-check-certificate", "--webdav-url"]);
    if wire == Wire::Encrypted {
        let (key, certificate) = certificate(setup, place)?;
        serve.arg("--key").arg(key).arg("--cert").arg(certificate);
        copy.arg(format!("https://{at}"));
    } else {
        copy.arg(format!("http://{at}"));
    }
    let mut serving = Running::start(&setup.bed, &mut serve)?;
    serving.listens(at)?;
    let sent = run(&setup.bed, copy.arg(&setup.data).arg(":webdav:data"))?;
    received(setup, &to.join("data"))?;
    Ok(sample(setup, sent.elapsed, &sent, &serving.stop()?))
}

/// Into a repository that rclone serves: encrypted before it leaves, so on the wire too.
fn restic(setup: &Setup, place: &Path) -> Result<Sample, Failure> {
    let (to, at) = (directory(place.join("received"))?, free_port()?);
    let (config, password) = (write(place.join("rclone.conf"), "")?, write(place.join("password"), "only for this\n")?);
    let mut serve = Command::new("rclone");
    serve.arg("--config").arg(config).args(["serve", "restic", "--addr", &at.to_string()]).arg(&to);
    let mut serving = Running::start(&setup.bed, &mut serve)?;
    serving.listens(at)?;
    let command = |what: &str| {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "--repo", &format!("rest:http://{at}/"), what]).arg("--password-file").arg(&password);
        command
    };
    run(&setup.bed, &mut command("init"))?;
    let sent = run(&setup.bed, command("backup").arg(&setup.data))?;
    Ok(sample(setup, sent.elapsed, &sent, &serving.stop()?))
}

fn rsync(setup: &Setup, place: &Path) -> Result<Sample, Failure> {
    let (to, at) = (directory(place.join("received"))?, free_port()?);
    // As root it would become somebody else, who may not write here.
    let owner = if rustix::process::getuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
    let module = format!("use chroot = no\n{owner}[data]\npath = {}\nread only = no\n", to.display());
    let config = write(place.join("rsyncd.conf"), &module)?;
    let mut daemon = Command::new("rsync");
    daemon.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={}", at.port())]);
    let mut serving = Running::start(&setup.bed, daemon.arg("--config").arg(config))?;
    serving.listens(at)?;
    let mut copy = Command::new("rsync");
    copy.args(["--whole-file", "--times"]).arg(&setup.data).arg(format!("rsync://{at}/data/received"));
    let sent = run(&setup.bed, &mut copy)?;
    received(setup, &to.join("received"))?;
    Ok(sample(setup, sent.elapsed, &sent, &serving.stop()?))
}

/// The same number of bytes from memory to memory.
fn iperf3(setup: &Setup, _: &Path) -> Result<Sample, Failure> {
    let at = free_port()?;
    let mut serve = Command::new("iperf3");
    serve.args(["-s", "-1", "-B", "127.0.0.1", "-p", &at.port().to_string()]);
    let serving = Running::start(&setup.bed, &mut serve)?;
    let mut send = Command::new("iperf3");
    send.args(["-J", "-c", "127.0.0.1", "-p", &at.port().to_string(), "-n", &setup.bytes.to_string()]);
    let (began, mut sent) = (Instant::now(), run(&setup.bed, &mut send));
    while sent.is_err() && began.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
        sent = run(&setup.bed, &mut send);
    }
    // Told to end: a server that has lost its client in the middle waits for the next one.
    let (sent, served) = (sent?, serving.stop()?);
    let report: Value = serde_json::from_str(&sent.stdout).unwrap_or_default();
    let seconds = report["end"]["sum_received"]["seconds"].as_f64();
    let seconds = seconds.ok_or_else(|| Failure::new(Code::Failed, "iperf3 reported no time").cause(sent.stdout.clone()))?;
    Ok(sample(setup, Duration::from_secs_f64(seconds.max(1e-6)), &sent, &served))
}
