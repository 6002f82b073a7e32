//! A link that a test can break: a relay for TCP and UDP on one port, in the test's own process.
//!
//! ```text
//! client ──► relay (port p, TCP and UDP) ──► server      what passes is counted per way, over both transports
//! client ◄── relay                       ◄── server      a fault strikes when its way has carried so many bytes
//! ```

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// How often a thread of the relay looks whether the test has ended.
const POLL: Duration = Duration::from_millis(50);
const LARGEST_DATAGRAM: usize = 65_536;
/// What a narrow link carries at a time, and how much it queues before it drops datagrams.
const PIECE_BYTES: usize = 1_000;
const NARROW_QUEUE: usize = 32;
/// How many datagrams overtake one that comes late.
const OVERTAKEN_BY: u8 = 5;

/// From the relay's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// What happens to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Connections end, both ways; new ones work.
    Cut { way: Way, after: u64 },
    /// From here on nothing passes on this way, and nobody is told.
    Stall { way: Way, after: u64 },
    /// One bit of the next bytes is turned.
    Corrupt { way: Way, after: u64 },
    /// UDP is dropped both ways after so many bytes on either; TCP passes.
    NoUdp { after: u64 },
    /// Connections are reset, both ways; new ones work.
    Reset { way: Way, after: u64 },
    /// Datagrams of more than so many bytes are lost both ways, and nobody is told.
    BlackHole { over: usize, after: u64 },
    /// Of the datagrams on both ways some come twice, some late and some with a bit turned.
    Wild,
    /// From here on the server sees the client's datagrams come from another port.
    Rebind { after: u64 },
    /// Connections are closed at once and UDP is dropped.
    Refuse,
}

/// What becomes of the next bytes.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Corrupt,
    Drop,
    End,
    Reset,
    Twice,
    Late,
}

struct Link {
    target: SocketAddr,
    fault: Mutex<Fault>,
    delay: Duration,
    narrow: Option<Narrow>,
    carried: [AtomicU64; 2],
    datagrams: AtomicU64,
    /// How often the client's address has changed.
    rebound: AtomicU64,
    stopped: AtomicBool,
}

/// A bound on what each way carries, over all connections.
struct Narrow {
    bytes_per_s: u64,
    free_from: [Mutex<Instant>; 2],
}

impl Narrow {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_from: [Mutex::new(Instant::now()), Mutex::new(Instant::now())] }
    }

    /// Waits until the link has carried so many bytes more on this way.
    fn carry(&self, way: Way, bytes: usize) {
        let through = {
            let mut free_from = self.free_from[way as usize].lock().unwrap();
            *free_from = Instant::now().max(*free_from) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
            *free_from
        };
        thread::sleep(through.saturating_duration_since(Instant::now()));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Link {
    fn judge(&self, protocol: Protocol, way: Way, bytes: usize) -> Verdict {
        let before = self.carried[way as usize].fetch_add(bytes as u64, SeqCst);
        let mut fault = self.fault.lock().unwrap();
        let (verdict, spent) = match *fault {
            Fault::Cut { way: on, after } if on == way && before >= after => (Verdict::End, true),
            Fault::Corrupt { way: on, after } if on == way && before >= after => (Verdict::Corrupt, true),
            Fault::Stall { way: on, after } if on == way && before >= after => (Verdict::Drop, false),
            Fault::NoUdp { after } if protocol == Protocol::Udp && self.carried() >= after => (Verdict::Drop, false),
            Fault::Reset { way: on, after } if on == way && protocol == Protocol::Tcp && before >= after => (Verdict::Reset, true),
            Fault::BlackHole { over, after } if protocol == Protocol::Udp && bytes > over && self.carried() >= after => {
                (Verdict::Drop, false)
            }
            Fault::Wild if protocol == Protocol::Udp => (self.wild(), false),
            Fault::Rebind { after } if protocol == Protocol::Udp && self.carried() >= after => {
                self.rebound.fetch_add(1, SeqCst);
                (Verdict::Pass, true)
            }
            Fault::Refuse => (Verdict::Drop, false),
            _ => (Verdict::Pass, false),
        };
        if spent {
            *fault = Fault::None;
        }
        verdict
    }

    /// About one datagram of four arrives as it should not.
    fn wild(&self) -> Verdict {
        match self.datagrams.fetch_add(1, SeqCst) {
            number if number % 7 == 3 => Verdict::Twice,
            number if number % 11 == 5 => Verdict::Late,
            number if number % 53 == 7 => Verdict::Corrupt,
            _ => Verdict::Pass,
        }
    }

    fn carried(&self) -> u64 {
        self.carried[0].load(SeqCst) + self.carried[1].load(SeqCst)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(SeqCst)
    }
}

pub(crate) struct Relay {
    pub(crate) addr: String,
    link: Arc<Link>,
}

impl Relay {
    /// Towards `target`; each way takes `delay`.
    pub(crate) fn to(target: &str, delay: Duration) -> Self {
        Self::start(target, delay, None)
    }

    /// Towards `target`; each way carries so much.
    pub(crate) fn narrow(target: &str, bytes_per_s: u64) -> Self {
        Self::start(target, Duration::ZERO, Some(Narrow::new(bytes_per_s)))
    }

    fn start(target: &str, delay: Duration, narrow: Option<Narrow>) -> Self {
        let (tcp, udp) = both_on_one_port();
        let addr = tcp.local_addr().unwrap();
        let link = Arc::new(Link {
            target: target.parse().unwrap(),
            fault: Mutex::new(Fault::None),
            delay,
            narrow,
            carried: [AtomicU64::new(0), AtomicU64::new(0)],
            datagrams: AtomicU64::new(0),
            rebound: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let (for_tcp, for_udp) = (Arc::clone(&link), Arc::clone(&link));
        thread::spawn(move || accept(&tcp, &for_tcp));
        thread::spawn(move || take_datagrams(&Arc::new(udp), &for_udp));
        Self { addr: addr.to_string(), link }
    }

    /// From now on, with counters at zero.
    pub(crate) fn fault(&self, fault: Fault) {
        let mut current = self.link.fault.lock().unwrap();
        self.link.carried.iter().for_each(|carried| carried.store(0, SeqCst));
        *current = fault;
    }

    /// Whether the fault that was set has struck, of those that strike once.
    pub(crate) fn has_struck(&self) -> bool {
        *self.link.fault.lock().unwrap() == Fault::None
    }

    /// Bytes that came since the last fault was set, both ways.
    pub(crate) fn carried(&self) -> u64 {
        self.link.carried()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.link.stopped.store(true, SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(&self.addr));
    }
}

fn both_on_one_port() -> (TcpListener, UdpSocket) {
    (0..100)
        .find_map(|_| {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            UdpSocket::bind(tcp.local_addr().unwrap()).ok().map(|udp| (tcp, udp))
        })
        .expect("a port that is free for TCP and UDP")
}

fn accept(listener: &TcpListener, link: &Arc<Link>) {
    for client in listener.incoming().map_while(Result::ok) {
        if link.is_stopped() {
            return;
        }
        if *link.fault.lock().unwrap() == Fault::Refuse {
            continue;
        }
        let Ok(server) = TcpStream::connect(link.target) else { continue };
        for (way, from, to) in [(Way::ToServer, &client, &server), (Way::ToClient, &server, &client)] {
            let (from, to, link) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(link));
            thread::spawn(move || pump(&from, &to, way, &link));
        }
    }
}

/// Carries one way of one connection until it ends.
fn pump(mut from: &TcpStream, to: &TcpStream, way: Way, link: &Arc<Link>) {
    let late = Late::start(link, (Protocol::Tcp, way), {
        let mut to = to.try_clone().unwrap();
        move |bytes: &[u8]| to.write_all(bytes).is_ok()
    });
    from.set_read_timeout(Some(POLL)).unwrap();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    while !link.is_stopped() {
        let bytes = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => break,
        };
        match link.judge(Protocol::Tcp, way, bytes) {
            Verdict::Pass | Verdict::Twice | Verdict::Late => {}
            Verdict::Corrupt => buffer[bytes / 2] ^= 1,
            Verdict::Drop => continue,
            Verdict::Reset => {
                // To take a connection back resets it, whoever else has it open.
                [from, to].iter().for_each(|end| rustix::net::connect_unspec(end).unwrap());
                return;
            }
            Verdict::End => {
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
                return;
            }
        }
        if !late.send(&buffer[..bytes]) {
            break;
        }
    }
    late.finish();
    drop(to.shutdown(Shutdown::Write));
}

fn take_datagrams(socket: &Arc<UdpSocket>, link: &Arc<Link>) {
    socket.set_read_timeout(Some(POLL)).unwrap();
    let mut servers: HashMap<(SocketAddr, u64), Late> = HashMap::new();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    while !link.is_stopped() {
        let Ok((bytes, client)) = socket.recv_from(&mut buffer) else { continue };
        let late = servers.entry((client, link.rebound.load(SeqCst))).or_insert_with(|| {
            let upstream = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
            upstream.connect(link.target).unwrap();
            let (down, back, link_back) = (Arc::clone(&upstream), Arc::clone(socket), Arc::clone(link));
            thread::spawn(move || return_datagrams(&down, &back, client, &link_back));
            // A datagram that the system does not take is a lost one.
            Late::start(link, (Protocol::Udp, Way::ToServer), move |bytes: &[u8]| {
                let _ = upstream.send(bytes);
                true
            })
        });
        pass_datagram(late, &mut buffer[..bytes], Way::ToServer, link);
    }
}

fn return_datagrams(from: &UdpSocket, to: &Arc<UdpSocket>, client: SocketAddr, link: &Arc<Link>) {
    from.set_read_timeout(Some(POLL)).unwrap();
    let late = Late::start(link, (Protocol::Udp, Way::ToClient), {
        let to = Arc::clone(to);
        move |bytes: &[u8]| {
            let _ = to.send_to(bytes, client);
            true
        }
    });
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    while !link.is_stopped() {
        let Ok(bytes) = from.recv(&mut buffer) else { continue };
        pass_datagram(&late, &mut buffer[..bytes], Way::ToClient, link);
    }
}

fn pass_datagram(late: &Late, datagram: &mut [u8], way: Way, link: &Link) {
    match link.judge(Protocol::Udp, way, datagram.len()) {
        Verdict::Pass => {}
        Verdict::Corrupt => datagram[datagram.len() / 2] ^= 1,
        Verdict::Twice => late.offer(datagram),
        Verdict::Late => return late.hold(datagram),
        Verdict::Drop | Verdict::End | Verdict::Reset => return,
    }
    late.offer(datagram);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Hands bytes on, each after the same delay, in order, and not faster than the link is.
struct Late {
    delay: Duration,
    is_narrow: bool,
    queue: mpsc::SyncSender<(Instant, Vec<u8>)>,
    /// A datagram that comes late, and how many more overtake it.
    held: RefCell<Option<(u8, Vec<u8>)>>,
    thread: thread::JoinHandle<()>,
}

impl Late {
    fn start(link: &Arc<Link>, (protocol, way): (Protocol, Way), mut hand_on: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        let (delay, is_narrow) = (link.delay, link.narrow.is_some());
        let room = match (delay.is_zero(), is_narrow) {
            (_, true) => NARROW_QUEUE,
            (true, false) => 4,
            (false, false) => 4_096,
        };
        let (queue, waiting) = mpsc::sync_channel::<(Instant, Vec<u8>)>(room);
        let link = Arc::clone(link);
        let thread = thread::spawn(move || {
            for (due, bytes) in waiting {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let Some(narrow) = &link.narrow else { if hand_on(&bytes) { continue } else { return } };
                for piece in bytes.chunks(if protocol == Protocol::Tcp { PIECE_BYTES } else { LARGEST_DATAGRAM }) {
                    narrow.carry(way, piece.len());
                    if link.is_stopped() || !hand_on(piece) {
                        return;
                    }
                }
            }
        });
        Self { delay, is_narrow, queue, held: RefCell::default(), thread }
    }

    fn send(&self, bytes: &[u8]) -> bool {
        self.queue.send((Instant::now() + self.delay, bytes.to_vec())).is_ok()
    }

    /// The same for a datagram, which a narrow link with a full queue drops; and after it one that comes late, if it is due.
    fn offer(&self, datagram: &[u8]) {
        if self.is_narrow {
            let _ = self.queue.try_send((Instant::now(), datagram.to_vec()));
        } else {
            self.send(datagram);
        }
        let due = match &mut *self.held.borrow_mut() {
            Some((0, _)) => true,
            Some((overtaking, _)) => {
                *overtaking -= 1;
                false
            }
            None => false,
        };
        if due && let Some((_, datagram)) = self.held.take() {
            self.send(&datagram);
        }
    }

    /// The datagram comes after some that are sent after it.
    fn hold(&self, datagram: &[u8]) {
        if let Some((_, before)) = self.held.replace(Some((OVERTAKEN_BY, datagram.to_vec()))) {
            self.send(&before);
        }
    }

    /// Waits until everything is on its way.
    fn finish(self) {
        drop(self.queue);
        drop(self.thread.join());
    }
}
