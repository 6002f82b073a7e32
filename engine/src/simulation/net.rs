//! A network of hosts that exchange datagrams, with everything that may happen to one on the way.

use super::{dice::Dice, tell};
use crate::transport::Host;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

/// What a link takes, in bytes a second.
const RATE: u64 = 12_500_000;
/// What is kept of packets that wait for a link, as the time that it takes to send them.
const QUEUE: Duration = Duration::from_millis(100);
/// Ports that nobody asked for by number.
const EPHEMERAL: u16 = 40_000;

/// What happens to packets between any two hosts.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    pub(super) latency: Duration,
    /// Added by chance: packets overtake each other.
    pub(super) jitter: Duration,
    /// Of a million packets.
    pub(super) lost: u32,
    pub(super) doubled: u32,
    pub(super) corrupted: u32,
}

impl Weather {
    pub(super) const FAIR: Self = Self { latency: Duration::from_millis(5), jitter: Duration::ZERO, lost: 0, doubled: 0, corrupted: 0 };
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    weather: Weather,
    hosts: Vec<HostState>,
    /// From, to.
    blocked: BTreeSet<(usize, usize)>,
    /// When a link will have sent what waits for it.
    free_at: BTreeMap<(usize, usize), Instant>,
    inboxes: BTreeMap<(usize, u16), Inbox>,
    generation: u64,
    packets: u64,
    bytes: u64,
    began: Instant,
    /// Over when, where to and how long each packet was.
    shape: blake3::Hasher,
}

struct HostState {
    address: IpAddr,
    plugged: Plugged,
    next_port: u16,
    changes: watch::Sender<u64>,
}

impl HostState {
    /// The system tells those who listen that the network is another one.
    fn has_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Whether a host has a link at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugged {
    In,
    Out,
}

struct Inbox {
    generation: u64,
    packets: BinaryHeap<Reverse<Packet>>,
    waker: Option<Waker>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Instant,
    number: u64,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Net {
    pub(super) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            weather: Weather::FAIR,
            hosts: Vec::new(),
            blocked: BTreeSet::new(),
            free_at: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            generation: 0,
            packets: 0,
            bytes: 0,
            began: Instant::now(),
            shape: blake3::Hasher::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// One more host.
    pub(super) fn host(&self) -> Nic {
        let mut state = self.state();
        let host = state.hosts.len();
        let address = State::address(host, 0);
        state.hosts.push(HostState { address, plugged: Plugged::In, next_port: EPHEMERAL, changes: watch::Sender::new(0) });
        Nic { net: self.clone(), host }
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Stops packets from one host to another, or lets them through again.
    pub(super) fn block(&self, from: usize, to: usize) {
        self.state().blocked.insert((from, to));
    }

    /// Ends all partitions.
    pub(super) fn unblock(&self) {
        self.state().blocked.clear();
    }

    /// Bytes that were sent so far, whether or not they arrived.
    pub(super) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// What the packets of this run looked like, and how many there were.
    pub(super) fn shape(&self) -> (u64, String) {
        let state = self.state();
        (state.packets, state.shape.finalize().to_hex()[..16].to_owned())
    }
}

impl State {
    fn address(host: usize, number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, number, host as u8 + 1).into()
    }

    fn send(&mut self, from: (usize, u16), to: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        self.packets += 1;
        self.bytes += bytes.len() as u64;
        self.shape.update(&((now - self.began).as_nanos() as u64).to_le_bytes());
        self.shape.update(&[from.0 as u8]).update(&to.port().to_le_bytes()).update(&(bytes.len() as u32).to_le_bytes());
        tell(|| format!("{}:{} sends {} bytes to {to}", from.0, from.1, bytes.len()));
        let Some(target) = self.hosts.iter().position(|host| host.address == to.ip()) else { return };
        let unplugged = [from.0, target].iter().any(|host| self.hosts[*host].plugged == Plugged::Out);
        if unplugged || self.blocked.contains(&(from.0, target)) || self.dice.hits(self.weather.lost) {
            return;
        }
        let copies = 1 + u32::from(self.dice.hits(self.weather.doubled));
        for _ in 0..copies {
            self.deliver((from.0, from.1), (target, to.port()), now, bytes.to_vec());
        }
    }

    fn deliver(&mut self, from: (usize, u16), to: (usize, u16), now: Instant, mut bytes: Vec<u8>) {
        let free = self.free_at.get(&(from.0, to.0)).copied().unwrap_or(now).max(now);
        if free - now > QUEUE {
            return;
        }
        let sent = free + Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / RATE);
        self.free_at.insert((from.0, to.0), sent);
        let Weather { latency, jitter, corrupted, .. } = self.weather;
        let at = sent + latency + self.dice.between(Duration::ZERO..jitter.max(Duration::from_micros(1)));
        if self.dice.hits(corrupted) {
            let position = self.dice.index(bytes.len());
            bytes[position] ^= 1 << self.dice.below(8);
        }
        let from = SocketAddr::new(self.hosts[from.0].address, from.1);
        let Some(inbox) = self.inboxes.get_mut(&to) else { return };
        inbox.packets.push(Reverse(Packet { at, number: self.packets, from, bytes }));
        if let Some(waker) = inbox.waker.take() {
            waker.wake();
        }
    }
}

/// A host's link to the network. Cheap to clone.
#[derive(Clone)]
pub(super) struct Nic {
    net: Net,
    host: usize,
}

impl Nic {
    pub(super) fn address(&self) -> IpAddr {
        self.net.state().hosts[self.host].address
    }

    /// The host gets another address: its sockets go on with it, and what is sent to the old one arrives nowhere.
    pub(super) fn move_to(&self, number: u8) {
        let mut state = self.net.state();
        let host = &mut state.hosts[self.host];
        host.address = State::address(self.host, number);
        host.has_changed();
    }

    pub(super) fn plug(&self, plugged: Plugged) {
        let mut state = self.net.state();
        let host = &mut state.hosts[self.host];
        host.plugged = plugged;
        host.has_changed();
    }

    /// As when the process ends without a word: its sockets are gone.
    pub(super) fn close_sockets(&self) {
        self.net.state().inboxes.retain(|(host, _), _| *host != self.host);
    }
}

impl Host for Nic {
    fn bind(&self, port: u16) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.net.state();
        let port = if port == 0 {
            let next = &mut state.hosts[self.host].next_port;
            *next += 1;
            *next
        } else {
            port
        };
        if state.inboxes.contains_key(&(self.host, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.generation += 1;
        let generation = state.generation;
        state.inboxes.insert((self.host, port), Inbox { generation, packets: BinaryHeap::new(), waker: None });
        Ok(Arc::new(Socket { nic: self.clone(), port, generation, arrival: Mutex::new(None) }))
    }

    fn seed(&self) -> [u8; 32] {
        self.net.state().dice.bytes()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.net.state().hosts[self.host].changes.subscribe()
    }
}

struct Socket {
    nic: Nic,
    port: u16,
    generation: u64,
    arrival: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Socket {
    fn inbox<'s>(&self, state: &'s mut State) -> Option<&'s mut Inbox> {
        state.inboxes.get_mut(&(self.nic.host, self.port)).filter(|inbox| inbox.generation == self.generation)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({}:{})", self.nic.host, self.port)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.nic.net.state();
        if self.inbox(&mut state).is_some() {
            state.inboxes.remove(&(self.nic.host, self.port));
        }
    }
}

/// A datagram always leaves; whether it arrives is another matter.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.nic.net.state();
        if self.inbox(&mut state).is_some() {
            let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            for datagram in transmit.contents.chunks(segment) {
                state.send((self.nic.host, self.port), transmit.destination, datagram);
            }
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut state = self.nic.net.state();
        let Some(inbox) = self.inbox(&mut state) else { return Poll::Pending };
        let now = Instant::now();
        let mut taken = 0;
        while taken < buffers.len() && inbox.packets.peek().is_some_and(|Reverse(packet)| packet.at <= now) {
            let Some(Reverse(packet)) = inbox.packets.pop() else { break };
            let length = packet.bytes.len();
            buffers[taken][..length].copy_from_slice(&packet.bytes);
            meta[taken] = RecvMeta { addr: packet.from, len: length, stride: length, ecn: None, dst_ip: None };
            taken += 1;
        }
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        inbox.waker = Some(cx.waker().clone());
        if let Some(Reverse(packet)) = inbox.packets.peek() {
            let mut arrival = self.arrival.lock().unwrap();
            let timer = arrival.get_or_insert_with(|| Box::pin(sleep_until(packet.at)));
            timer.as_mut().reset(packet.at);
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let state = self.nic.net.state();
        Ok(SocketAddr::new(state.hosts[self.nic.host].address, self.port))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
