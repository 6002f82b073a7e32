//! Where secrets must not be: in anything that is printed or logged, in what other users of the machine see, in the vault directory.

use crate::support::{Device, Sandbox, contents};
use std::{fs, path::PathBuf};

const PASSPHRASE: &str = "correct horse battery staple";

/// Each file of the sandbox with its bytes, but those that are secrets.
fn files(sandbox: &Sandbox, secrets: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let all = contents(&sandbox.path("")).into_iter().map(|(path, (.., bytes))| (path, bytes));
    all.filter(|(path, _)| !secrets.iter().any(|secret| path.ends_with(secret))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What everybody on the machine can read of a process.
fn shown_by_the_system(process: u32) -> Vec<(PathBuf, Vec<u8>)> {
    ["cmdline", "environ"]
        .map(|file| format!("/proc/{process}/{file}").into())
        .map(|path: PathBuf| (path.clone(), fs::read(path).unwrap_or_default()))
        .into()
}

fn run_logged(device: &Device, log: &str, args: &[&str]) -> Vec<u8> {
    let ran = device.run(&[&["-vvv", "--log-file", log], args].concat()).ok();
    [ran.stdout, ran.stderr.into_bytes()].concat()
}

#[test]
fn no_secret_is_printed_logged_shown_by_the_system_or_kept_where_it_does_not_belong() {
    let sandbox = Sandbox::new();
    sandbox.write("pw", PASSPHRASE);
    let a = sandbox.device("a");
    let mut said = run_logged(&a, "init.log", &["init", "vault", "--passphrase-file", "pw", "--recovery-file", "kit"]);
    let a = a.within(&sandbox.path("vault"));
    sandbox.write("value", "what the value says");
    said.extend(run_logged(&a, "../put.log", &["put", "name-of-the-value", "../value"]));
    let serving = a.serve_with(&["-vvv", "--log-file", "../serve.log"]);
    let ticket = a.invite(&serving, "member");
    sandbox.write("ticket", &ticket);
    said.extend(run_logged(&sandbox.device("b"), "clone.log", &["clone", "--ticket-file", "ticket", "b"]));
    said.extend(run_logged(&a, "../wrong.log", &["ls", "--passphrase-file", "../pw"]));
    sandbox.device("b").run(&["clone", &ticket, "again"]).ended_with(6);

    let mut places = shown_by_the_system(serving.id());
    places.push(("what was printed".into(), said.clone()));
    places.extend(files(&sandbox, &["pw", "kit", "ticket", "device.key", "value"]));
    assert!(places.len() > 20);
    let seed = |home: &str| sandbox.read(&format!("{home}/device.key")).split_off(b"mirror device key 1\n".len());
    let phrase = String::from_utf8(sandbox.read("kit")).unwrap().trim().to_owned();
    let mut secrets =
        vec![PASSPHRASE.as_bytes().to_vec(), phrase.into_bytes(), ticket.clone().into_bytes(), ticket.to_uppercase().into_bytes()];
    for seed in [seed("home-a"), seed("home-b")] {
        assert_eq!(seed.len(), 32);
        secrets.extend([hex(&seed).into_bytes(), format!("{seed:?}").into_bytes(), seed]);
    }
    for secret in secrets {
        for (path, bytes) in &places {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds {:?}", path.display(), String::from_utf8_lossy(&secret));
        }
    }
    let vaults = places.iter().filter(|(path, _)| path.starts_with("vault") || path.starts_with("b"));
    for (path, bytes) in vaults {
        for plain in ["name-of-the-value", "what the value says"] {
            assert!(!bytes.windows(plain.len()).any(|window| window == plain.as_bytes()), "{} holds {plain}", path.display());
        }
    }
    assert!(!String::from_utf8_lossy(&said).contains("what the value says"));
}
