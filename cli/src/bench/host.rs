//! `serve`: the other end of `link`, `small` and `latency`.

use super::{
    args::ServeArgs,
    bare::{self, Port},
    bed::Bed,
    block_on,
    console::Console,
    control::{Answer, RawKind, Request, Wire, Word},
};
use crate::{
    failure::{Code, Failure},
    render::Record,
};
use mirror_engine::{
    home::Role,
    id::DeviceId,
    io::usage,
    keys::DeviceKey,
    probe::Datagrams,
    replicate::{self, Options, Server, Unobserved},
    transport::{Admission, CloseReason, Connection, Listener, Standing, TransportKind, Tuning},
};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;

/// A ticket is used at once.
const TICKET_LIFE: Duration = Duration::from_secs(60);
const STOP_POLL: Duration = Duration::from_millis(50);

/// The line that a client is given.
#[derive(serde::Serialize)]
struct Serving {
    target: String,
}

impl Record for Serving {
    const TYPE: &'static str = "serving";
}

/// Lets in whoever has the seed.
struct Only(DeviceId);

impl Admission for Only {
    fn standing(&self, device: &DeviceId) -> Standing {
        if *device == self.0 { Standing::Known } else { Standing::Stranger }
    }

    fn pairing_open(&self) -> bool {
        false
    }
}

pub(super) fn serve(console: &Console, args: &ServeArgs) -> Result<Code, Failure> {
    block_on(async {
        // The port is known only once it is open, and the keys must be known before.
        let mut word = Word::new(String::new())?;
        let (serving, asking) = word.keys();
        let admission = Arc::new(Only(asking.id()));
        let listener = listener(&serving, admission, args.listen)?;
        let bound = listener.local_addrs().1.first().copied().unwrap_or(args.listen);
        word.address = SocketAddr::new(reachable(bound.ip()), bound.port()).to_string();
        console.record(&Serving { target: word.to_string() })?;
        console.text(|| format!("on the other host: mirror-bench link {word}"))?;
        loop {
            let Some(connection) = next(console, &listener).await else { return Ok(interrupted(console)) };
            let ended = answer(&connection, bound.ip()).await;
            if args.once {
                return ended.map(|()| Code::Ok);
            }
            match ended {
                Ok(()) => console.talk.note("a client is done"),
                Err(failure) => console.talk.warn(&failure.message),
            }
        }
    })
}

fn listener(key: &DeviceKey, admission: Arc<Only>, listen: SocketAddr) -> Result<Listener, Failure> {
    Ok(Listener::bind_only(TransportKind::Tcp, &[listen], key, admission, Tuning::default())?)
}

fn interrupted(console: &Console) -> Code {
    if console.interrupt.is_set() { Code::Interrupted } else { Code::Ok }
}

/// The next client; none once the user wants to stop.
async fn next(console: &Console, listener: &Listener) -> Option<Connection> {
    let mut poll = tokio::time::interval(STOP_POLL);
    loop {
        tokio::select! {
            connection = listener.accept() => return connection,
            _ = poll.tick() => if console.interrupt.is_set() { return None },
        }
    }
}

/// Where others reach an address: itself, unless it means all of them. No packet is sent: the system only looks up the route (RFC 5737).
fn reachable(ip: IpAddr) -> IpAddr {
    let routed = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    if ip.is_unspecified() { routed().unwrap_or(IpAddr::from([127, 0, 0, 1])) } else { ip }
}

/// Does what one client asks for, one thing after the other.
async fn answer(connection: &Connection, ip: IpAddr) -> Result<(), Failure> {
    let Some(mut wire) = Wire::of(connection) else { return Ok(()) };
    let mut hosting = Hosting { ip, vault: None, raw: None };
    while let Some(request) = wire.hear::<Request>().await? {
        let answer = hosting.answer(request).await.unwrap_or_else(|failure| Answer::Failed(failure.message));
        wire.say(&answer).await?;
    }
    connection.close(CloseReason::Done);
    Ok(())
}

/// What one client has made this end do.
struct Hosting {
    ip: IpAddr,
    vault: Option<Hosted>,
    raw: Option<JoinHandle<Result<Datagrams, Failure>>>,
}

/// A vault that is served until it is dropped, and then gone.
struct Hosted {
    serving: JoinHandle<()>,
    _bed: Bed,
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hosting {
    async fn answer(&mut self, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Vault => self.vault().await,
            Request::Raw { kind, time } => self.raw(kind, time).await,
            Request::RawEnd => self.raw_end().await,
            Request::Usage => {
                let used = usage::own().map_err(|error| Failure::io("cannot tell what this process costs", &error))?;
                Ok(Answer::Usage { cpu_s: used.cpu.as_secs_f64(), peak_bytes: used.peak_bytes })
            }
        }
    }

    async fn vault(&mut self) -> Result<Answer, Failure> {
        self.vault = None;
        let bed = Bed::new()?;
        let vault = Arc::new(bed.vault()?);
        let server = Server::bind(Arc::clone(&vault), &[SocketAddr::new(self.ip, 0)], "host", &Options::default()).await?;
        let address = server.local_addrs().1.first().copied().ok_or_else(|| Failure::new(Code::Failed, "no port was opened"))?;
        let ticket = replicate::invite(&vault, Role::Member, vec![address.to_string()], TICKET_LIFE)?.to_string();
        let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(|_| ())));
        self.vault = Some(Hosted { serving, _bed: bed });
        Ok(Answer::Vault { ticket, port: address.port() })
    }

    async fn raw(&mut self, kind: RawKind, time: Duration) -> Result<Answer, Failure> {
        let (token, opened) = (bare::token()?, Port::open(kind, self.ip).await?);
        let port = opened.number()?;
        self.raw = Some(tokio::spawn(opened.receive(token, time)));
        Ok(Answer::Raw { port, token })
    }

    async fn raw_end(&mut self) -> Result<Answer, Failure> {
        let receiving = self.raw.take().ok_or_else(|| Failure::usage("nothing is being received"))?;
        let Datagrams { count, rate } = receiving.await.map_err(|error| Failure::new(Code::Failed, error.to_string()))??;
        Ok(Answer::Received { datagrams: count, bytes: rate.bytes, elapsed: rate.elapsed })
    }
}
