//! Two replicas in one process: the engine without the command line.
//!
//! `cargo run --release -p mirror-engine --example two_replicas`
//!
//! A vault is made and given a value; a second device redeems a ticket and pulls; both then hold the same.

use mirror_engine::{
    event::Key,
    home::{Home, Role},
    replicate::{self, Options, Server, Unobserved},
    session::Direction,
    vault::{InitOptions, Unwatched, Vault},
};
use std::{error::Error, io::Cursor, net::SocketAddr, sync::Arc, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("mirror-example-{}", std::process::id()));
    let result = tokio::runtime::Runtime::new()?.block_on(run(&dir));
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn run(dir: &std::path::Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    let first = Home::open(&dir.join("first-home"))?;
    let options = InitOptions::for_this_device("example", "first");
    let vault = Arc::new(Vault::init(&dir.join("first"), &first, options)?.vault);
    vault.put(&Key::new("greeting")?, &mut Cursor::new(b"hello"), &Unwatched)?;

    let server = Server::bind(Arc::clone(&vault), &[SocketAddr::from(([127, 0, 0, 1], 0))], "first", &Options::default()).await?;
    let (quic, _tcp) = server.local_addrs();
    let addresses = quic.iter().map(ToString::to_string).collect();
    let ticket = replicate::invite(&vault, Role::Member, addresses, Duration::from_secs(60))?;
    let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(|served| println!("first: {served:?}"))));

    let second = Home::open(&dir.join("second-home"))?;
    let pull = Options { direction: Direction::Pull, ..Options::default() };
    let (copy, origin) = replicate::pair(&ticket, &dir.join("second"), &second, "second", &pull).await?;
    let summary = replicate::sync(&copy, &origin, &pull, Arc::new(Unobserved)).await?;
    serving.abort();

    let mut value = Vec::new();
    copy.get(&Key::new("greeting")?, &mut value)?;
    println!("second: {} over {}, identical: {}", String::from_utf8_lossy(&value), summary.transport, summary.is_identical());
    Ok(())
}
