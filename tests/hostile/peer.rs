//! A peer that knows the protocol and keeps to none of its rules.

use crate::world::{PATIENCE, World};
use bytes::Bytes;
use mirror_engine::{
    bitmap::Bitmap,
    event::{ChunkList, Dot, Event, EventHeader, Frontier, Incarnation},
    frame::{FrameBuf, Kind},
    id::{DeviceId, ReplicaId, Root, VaultId},
    keys::{DeviceKey, random_bytes},
    session::{
        Direction, Hello, HelloKeys, Message, Side, hello,
        message::{Promise, Timing},
    },
    transport::{CloseReason, Connection, ControlReceiver, ControlSender, Dialer, Protocol, TransportError, TransportKind, Tuning},
};
use std::net::SocketAddr;
use tokio::time::timeout;

pub(crate) fn new_device() -> DeviceKey {
    DeviceKey::generate().unwrap()
}

pub(crate) async fn dial(
    device: &DeviceKey,
    addr: SocketAddr,
    server: DeviceId,
    protocol: Protocol,
    kind: TransportKind,
) -> Result<Connection, TransportError> {
    Dialer::new(device, Tuning::default()).unwrap().dial(addr, server, protocol, kind).await
}

/// One connection of a known device.
pub(crate) struct EvilPeer {
    pub(crate) connection: Connection,
    sender: ControlSender,
    receiver: ControlReceiver,
    keys: HelloKeys,
    vault: VaultId,
}

impl EvilPeer {
    pub(crate) async fn connect(world: &World, device: &DeviceKey, kind: TransportKind) -> Self {
        Self::connect_with(world, device, kind, world.vault.replication_key().as_bytes()).await
    }

    /// With a replication key that may be wrong.
    pub(crate) async fn connect_with(world: &World, device: &DeviceKey, kind: TransportKind, key: &[u8; 32]) -> Self {
        let connection = dial(device, world.addr, world.server_device(), Protocol::Session, kind).await.unwrap();
        let (sender, receiver) = connection.take_control().unwrap();
        let exporter = connection.exporter(b"EXPORTER-mirror-hello", b"").unwrap();
        Self { keys: HelloKeys::derive(key, &exporter), sender, receiver, connection, vault: world.vault.info().id }
    }

    /// A member that the server has just come to know, past the Hellos.
    pub(crate) async fn greeted(world: &World, device: &DeviceKey, kind: TransportKind) -> Self {
        let mut peer = Self::connect(world, device, kind).await;
        peer.greet(|_| {}).await;
        peer
    }

    /// A Hello that asks for everything by lanes.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            version: hello::VERSION,
            features: 0,
            vault: self.vault,
            replica: ReplicaId::from_bytes(random_bytes().unwrap()),
            direction: Direction::Both,
            frontier: Frontier::new(),
            pending: Frontier::new(),
            root: Root::from_bytes([7; 32]),
            inline_bytes_max: 0,
            early: None,
            extensions: Vec::new(),
        }
    }

    pub(crate) fn seal(&self, hello: &Hello) -> Message {
        Message::Hello(hello::seal(&self.keys, Side::Dialer, hello).into())
    }

    /// Says a Hello, changed by `change`, and reads the server's.
    pub(crate) async fn greet(&mut self, change: impl FnOnce(&mut Hello)) -> Hello {
        let mut hello = self.hello();
        change(&mut hello);
        self.say(&self.seal(&hello)).await;
        match self.hear().await {
            Some(Message::Hello(sealed)) => hello::open(&self.keys, Side::Listener, &sealed).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn say(&mut self, message: &Message) {
        self.say_bytes(message.encode()).await;
    }

    /// A server that has hung up already is what many tests want.
    pub(crate) async fn say_bytes(&mut self, bytes: Bytes) {
        let _ = self.sender.send(bytes).await;
    }

    pub(crate) async fn offer(&mut self, frames: Vec<u8>) {
        self.say(&Message::Events { timing: Timing::Known, promise: Promise::None, frames: frames.into() }).await;
    }

    /// The next message; none once the connection has ended.
    pub(crate) async fn hear(&mut self) -> Option<Message> {
        let bytes = timeout(PATIENCE, self.receiver.recv()).await.expect("the server answers or hangs up").ok()??;
        Some(Message::decode(bytes).unwrap())
    }

    /// The first message that `wanted` picks.
    pub(crate) async fn hear_until<T>(&mut self, wanted: impl Fn(Message) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("the server goes on");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// Everything that is still said, and how the connection ended. A goodbye is answered by hanging up: the server waits for that.
    pub(crate) async fn until_the_end(mut self) -> (Vec<Message>, TransportError) {
        let mut heard = Vec::new();
        while let Some(message) = self.hear().await {
            if matches!(message, Message::Bye { .. }) {
                self.connection.close(CloseReason::Done);
            }
            heard.push(message);
        }
        let ended = timeout(PATIENCE, self.connection.closed()).await.expect("the server hangs up");
        (heard, ended)
    }
}

/// An author whose events are whatever the test wants.
pub(crate) struct Author<'a> {
    pub(crate) device: &'a DeviceKey,
    pub(crate) header: EventHeader,
}

impl<'a> Author<'a> {
    /// Its first event follows every rule.
    pub(crate) fn new(world: &World, device: &'a DeviceKey) -> Self {
        let store = world.vault.store();
        let newest = store.heads().0.values().map(|head| store.event_by_id(&head.event).unwrap().unwrap().header().lamport).max();
        let header = EventHeader {
            vault: world.vault.info().id,
            device: device.id(),
            incarnation: Incarnation(random_bytes().unwrap()),
            sequence: 1,
            lamport: 1 + newest.unwrap_or(0),
            previous: None,
            deps: store.frontier(),
            epoch: 1,
            lists: Vec::new(),
            // A kind that nobody knows is kept and passed on, so its body may be anything.
            kind: 1_000,
            body_hash: [0; 32],
            wall_ms: 1,
        };
        Self { device, header }
    }

    pub(crate) fn event(&self) -> Event {
        Event::sign(self.header.clone(), b"body", self.device).unwrap()
    }

    pub(crate) fn naming(mut self, list: &ChunkList) -> Self {
        self.header.lists = vec![list.reference()];
        self
    }

    pub(crate) fn dot(&self) -> Dot {
        self.header.dot()
    }
}

pub(crate) fn frames_of(event: &Event, lists: &[&ChunkList]) -> Vec<u8> {
    let lists = lists.iter().flat_map(|list| list.to_frame().into_bytes());
    lists.chain(event.to_frame().into_bytes()).collect()
}

pub(crate) fn chunk(byte: u8) -> FrameBuf {
    FrameBuf::new(Kind::Chunk, &[byte; 1_000])
}

pub(crate) fn list_of(chunks: &[&FrameBuf]) -> ChunkList {
    use mirror_engine::{event::Entry, id::ChunkId};
    let entry = |chunk: &&FrameBuf| Entry { id: ChunkId::from_bytes(chunk.id()), length: chunk.verified().record().len() as u32 };
    ChunkList::new(chunks.iter().map(entry).collect()).unwrap()
}

pub(crate) fn nothing_of(list: &ChunkList) -> Message {
    Message::Served { list: list.id(), unavailable: Bitmap::empty(list.entries().len()) }
}
