//! What a transfer between two replicas did, and what `serve` and `invite` say.

use super::{Extent, FindingsRecord, Record, StageShares, bytes_text, count_text, rate_text, span_text, stage_text};
use mirror_engine::{
    id::DeviceId,
    replicate::{ReplicateError, Summary},
};
use serde::Serialize;
use std::net::SocketAddr;

/// The record of the contract, with what was added to it at the end.
#[derive(Serialize)]
pub(crate) struct TransferRecord<'a> {
    operation: &'a str,
    peer: String,
    transport: String,
    resumed: bool,
    events_sent: u64,
    events_received: u64,
    chunks_sent: u64,
    chunks_received: u64,
    chunks_present: u64,
    bytes_sent: u64,
    bytes_received: u64,
    elapsed_ms: u64,
    goodput_bits_per_s: u64,
    limiting_stage: String,
    root: String,
    peer_root: Option<String>,
    identical: bool,
    dry_run: bool,
    wire_bytes_sent: u64,
    wire_bytes_received: u64,
    first_chunk_ms: Option<u64>,
    chunks_unavailable: u64,
    transports: TransportsRecord,
    reconnects: u32,
    plain_lanes: bool,
    stages: StageShares,
    chunks_healed: u64,
    chunks_lost: u64,
    #[serde(flatten)]
    findings: FindingsRecord,
}

/// Bytes on the wire, both ways. `transport` is the one with more.
#[derive(Serialize)]
struct TransportsRecord {
    quic: u64,
    tcp: u64,
}

impl Record for TransferRecord<'_> {
    const TYPE: &'static str = "summary";
}

/// A finished transfer with `peer`, as the user named it.
pub(crate) fn transfer_record<'a>(operation: &'a str, peer: &str, extent: Extent, summary: &Summary) -> TransferRecord<'a> {
    TransferRecord {
        operation,
        peer: peer.to_owned(),
        transport: summary.transport.to_string(),
        resumed: summary.resumed,
        events_sent: summary.events_sent,
        events_received: summary.events_received,
        chunks_sent: summary.chunks_sent,
        chunks_received: summary.chunks_received,
        chunks_present: summary.chunks_present,
        bytes_sent: summary.bytes_sent,
        bytes_received: summary.bytes_received,
        elapsed_ms: summary.elapsed.as_millis() as u64,
        goodput_bits_per_s: summary.goodput_bits_per_s(),
        limiting_stage: summary.limiting_stage.name().to_owned(),
        root: summary.root.to_string(),
        peer_root: summary.peer_root.map(|root| root.to_string()),
        identical: summary.is_identical(),
        dry_run: extent == Extent::DryRun,
        wire_bytes_sent: summary.wire_bytes_sent,
        wire_bytes_received: summary.wire_bytes_received,
        first_chunk_ms: summary.first_chunk.map(|after| after.as_millis() as u64),
        chunks_unavailable: summary.chunks_unavailable,
        transports: TransportsRecord { quic: summary.transports.quic, tcp: summary.transports.tcp },
        reconnects: summary.reconnects,
        plain_lanes: summary.plain_lanes,
        stages: StageShares(summary.stages),
        chunks_healed: summary.chunks_healed,
        chunks_lost: summary.chunks_lost,
        findings: (&summary.findings).into(),
    }
}

/// The same for people.
pub(crate) fn transfer_text(peer: &str, extent: Extent, summary: &Summary) -> String {
    let verb = if extent == Extent::DryRun { "would be " } else { "" };
    let side = |events: u64, chunks: u64, bytes: u64| {
        format!("{}, {} ({})", count_text(events, "event"), count_text(chunks, "chunk"), bytes_text(bytes))
    };
    let sent = side(summary.events_sent, summary.chunks_sent, summary.bytes_sent);
    let received = side(summary.events_received, summary.chunks_received, summary.bytes_received);
    let equal = if summary.is_identical() {
        format!("identical with {peer} at {}", summary.root.short())
    } else {
        format!("not identical with {peer}")
    };
    let rate = rate_text(summary.goodput_bits_per_s() as f64);
    let (time, via, stage) = (span_text(summary.elapsed), summary.transport, stage_text(summary.limiting_stage));
    let plain = if summary.plain_lanes { ", chunks without TLS" } else { "" };
    format!("{verb}sent {sent}; {verb}received {received}\n{time} over {via}{plain}, {rate}, limited by {stage}\n{equal}")
}

#[derive(Serialize)]
pub(crate) struct ListeningRecord {
    quic: String,
    tcp: String,
    device: String,
}

impl Record for ListeningRecord {
    const TYPE: &'static str = "listening";
}

/// The ports that are open, and whose they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listening {
    pub(crate) quic: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) device: DeviceId,
}

pub(crate) fn listening_record(listening: &Listening) -> ListeningRecord {
    ListeningRecord { quic: listening.quic.to_string(), tcp: listening.tcp.to_string(), device: listening.device.to_string() }
}

pub(crate) fn listening_text(listening: &Listening) -> String {
    format!("listening on {} (quic) and {} (tcp), device {}", listening.quic, listening.tcp, listening.device)
}

/// A session that a server has answered.
#[derive(Serialize)]
pub(crate) struct SessionRecord {
    device: String,
    error: Option<String>,
    /// Also when some chunks were not available.
    #[serde(flatten)]
    transfer: Option<TransferRecord<'static>>,
}

impl Record for SessionRecord {
    const TYPE: &'static str = "session";
}

pub(crate) fn session_record(device: DeviceId, result: &Result<Box<Summary>, ReplicateError>) -> SessionRecord {
    let summary = match result {
        Ok(summary) | Err(ReplicateError::Partial(summary)) => Some(summary),
        Err(_) => None,
    };
    SessionRecord {
        device: device.to_string(),
        error: result.as_ref().err().map(ToString::to_string),
        transfer: summary.map(|summary| transfer_record("serve", &device.to_string(), Extent::Done, summary)),
    }
}

/// An examination that a server has answered.
#[derive(Serialize)]
pub(crate) struct ExaminedRecord {
    device: String,
    error: Option<String>,
}

impl Record for ExaminedRecord {
    const TYPE: &'static str = "examined";
}

pub(crate) fn examined_record(device: DeviceId, result: &Result<(), ReplicateError>) -> ExaminedRecord {
    ExaminedRecord { device: device.to_string(), error: result.as_ref().err().map(ToString::to_string) }
}

/// A ticket that was offered to a server.
#[derive(Serialize)]
pub(crate) struct PairedRecord {
    device: String,
    name: Option<String>,
    error: Option<String>,
}

impl Record for PairedRecord {
    const TYPE: &'static str = "paired";
}

pub(crate) fn paired_record(device: DeviceId, result: &Result<String, ReplicateError>) -> PairedRecord {
    PairedRecord { device: device.to_string(), name: result.as_ref().ok().cloned(), error: result.as_ref().err().map(ToString::to_string) }
}

#[derive(Serialize)]
pub(crate) struct TicketRecord {
    pub(crate) ticket: String,
    pub(crate) expires_ms: u64,
}

impl Record for TicketRecord {
    const TYPE: &'static str = "ticket";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json_line;
    use mirror_engine::{
        id::{DeviceId, Root},
        replicate::{ByTransport, Shares, Stage},
        transport::TransportKind,
    };
    use std::time::Duration;

    fn summary() -> Summary {
        Summary {
            findings: Default::default(),
            peer: DeviceId::from_bytes([3; 32]),
            transport: TransportKind::Tcp,
            transports: ByTransport { quic: 100, tcp: 5100 },
            reconnects: 0,
            plain_lanes: false,
            resumed: false,
            events_sent: 1,
            events_received: 0,
            chunks_sent: 2,
            chunks_received: 0,
            chunks_present: 0,
            bytes_sent: 4096,
            bytes_received: 0,
            elapsed: Duration::from_millis(500),
            limiting_stage: Stage::Link,
            stages: Shares::default(),
            first_chunk: None,
            chunks_unavailable: 0,
            chunks_healed: 0,
            chunks_lost: 0,
            root: Root::from_bytes([1; 32]),
            peer_root: Some(Root::from_bytes([1; 32])),
            wire_bytes_sent: 5000,
            wire_bytes_received: 200,
        }
    }

    #[test]
    fn a_summary_begins_with_the_fields_of_the_contract_in_order() {
        let root = "01".repeat(32);
        let json = json_line(&transfer_record("push", "nas", Extent::Done, &summary()));
        let expected = format!(
            r#"{{"type":"summary","operation":"push","peer":"nas","transport":"tcp","resumed":false,"events_sent":1,"events_received":0,"chunks_sent":2,"chunks_received":0,"chunks_present":0,"bytes_sent":4096,"bytes_received":0,"elapsed_ms":500,"goodput_bits_per_s":65536,"limiting_stage":"link","root":"{root}","peer_root":"{root}","identical":true"#
        );
        assert!(json.starts_with(&expected), "{json}");
    }

    #[test]
    fn people_read_how_much_how_fast_and_what_limits() {
        let text = transfer_text("nas", Extent::Done, &summary());
        assert!(text.starts_with("sent 1 event, 2 chunks (4.0 KiB); received 0 events"));
        assert!(text.contains("over tcp, 65.5 kbit/s (8.2 kB/s), limited by link"));
        assert!(text.ends_with("identical with nas at 01010101"));
    }
}
