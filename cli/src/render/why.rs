//! The answer to `why`.

use super::{KeyField, Live, Record, bytes_text, connection_text, count_text, escape, key_text, rfc3339};
use mirror_engine::{
    event::Dot,
    vault::{PeerWord, Subject, Whereabouts, Why, Word},
};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct WhyRecord {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    key: Option<KeyField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk: Option<String>,
    here: bool,
    known: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyField>,
    events: Vec<WordRecord>,
    peers: Vec<PeerWordRecord>,
}

impl Record for WhyRecord {
    const TYPE: &'static str = "why";
}

#[derive(Serialize)]
struct WordRecord {
    event: String,
    replica: String,
    sequence: u64,
    deletes: bool,
    /// `here`, `lost` or `waits`.
    state: &'static str,
    missing_chunks: u64,
    missing_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
}

#[derive(Serialize)]
struct PeerWordRecord {
    name: String,
    device: String,
    has: Option<bool>,
    ahead_events: u64,
    lag_events: Option<u64>,
    last_contact_ms: Option<u64>,
    /// Of a daemon that runs; without one nothing is connected.
    connected: bool,
    transport: Option<String>,
    state: Option<String>,
    reason: Option<String>,
}

/// The answer in JSON.
pub(crate) fn why_record(why: &Why, live: Live<'_>) -> WhyRecord {
    let (mut key, mut event, mut chunk) = (None, None, None);
    match &why.subject {
        Subject::Key(of) => key = Some(KeyField::from(of)),
        Subject::Event(id) => event = Some(id.to_string()),
        Subject::Chunk(id) => chunk = Some(id.to_string()),
    }
    WhyRecord {
        key,
        event,
        chunk,
        here: why.is_here(),
        known: !why.is_unknown(),
        keys: why.keys.iter().map(KeyField::from).collect(),
        events: why.words.iter().map(word_record).collect(),
        peers: why.peers.iter().map(|word| peer_record(word, live)).collect(),
    }
}

fn word_record(word: &Word) -> WordRecord {
    let (state, missing_chunks, missing_bytes, after) = match word.whereabouts {
        Whereabouts::Here => ("here", 0, 0, None),
        Whereabouts::Lost { chunks } => ("lost", chunks, 0, None),
        Whereabouts::Waits { chunks, bytes, after, .. } => ("waits", chunks, bytes, after),
    };
    WordRecord {
        event: word.event.to_string(),
        replica: word.dot.author.to_string(),
        sequence: word.dot.sequence,
        deletes: word.deletes,
        state,
        missing_chunks,
        missing_bytes,
        waits_for: after.map(dot_text),
    }
}

fn peer_record(word: &PeerWord, live: Live<'_>) -> PeerWordRecord {
    let now = live.peer(&word.status.peer.device);
    PeerWordRecord {
        name: word.status.peer.name.clone(),
        device: word.status.peer.device.to_string(),
        has: word.has,
        ahead_events: word.ahead_events,
        lag_events: word.status.lag_events,
        last_contact_ms: word.status.contact.as_ref().map(|contact| contact.at_ms),
        connected: now.is_some_and(|now| now.connected),
        transport: now.and_then(|now| now.transport.clone()),
        state: now.map(|now| now.state.clone()),
        reason: now.and_then(|now| now.reason.clone()),
    }
}

fn dot_text(dot: Dot) -> String {
    format!("{}#{}", dot.author.short(), dot.sequence)
}

/// The answer for people: what was asked, a line an event, a line a peer.
pub(crate) fn why_text(why: &Why, live: Live<'_>) -> String {
    let mut lines = vec![subject_text(why)];
    lines.extend(why.keys.iter().map(|key| format!("  needed by {}", key_text(key))));
    lines.extend(why.words.iter().map(|word| format!("  {}", word_text(word))));
    for word in &why.peers {
        lines.push(format!("  {}", peer_text(word)));
        lines.extend(live.peer(&word.status.peer.device).map(|now| format!("    now {}", connection_text(now, live.now_ms()))));
    }
    lines.join("\n")
}

fn subject_text(why: &Why) -> String {
    let name = match &why.subject {
        Subject::Key(key) => key_text(key),
        Subject::Event(id) => format!("event {}", id.short()),
        Subject::Chunk(id) => format!("chunk {}", id.short()),
    };
    let state = match (why.is_here(), why.is_unknown(), why.chunk_here) {
        (true, ..) => "all of it is here",
        (_, true, _) => "nothing here knows of it",
        (.., Some(true)) => "it is here; what needs it is not whole",
        (.., Some(false)) => "it is not here",
        (.., None) => "it is not whole here",
    };
    format!("{name}: {state}")
}

fn word_text(word: &Word) -> String {
    let (said, event, dot) = (if word.deletes { "deleted by " } else { "" }, word.event.short(), dot_text(word.dot));
    let state = match word.whereabouts {
        Whereabouts::Here => "applied, everything it needs is here".to_owned(),
        Whereabouts::Lost { chunks } => format!("applied, but {} that it needs are gone", count_text(chunks, "chunk")),
        Whereabouts::Waits { after: Some(after), .. } => format!("received, waits for event {}, which has to come first", dot_text(after)),
        Whereabouts::Waits { chunks: 0, .. } => "received, waits to be applied".to_owned(),
        Whereabouts::Waits { chunks, of, bytes, .. } => {
            format!("received, waits for {chunks} of {} ({})", count_text(of, "chunk"), bytes_text(bytes))
        }
    };
    format!("{said}event {event} ({dot}): {state}")
}

fn peer_text(word: &PeerWord) -> String {
    let name = escape(word.status.peer.name.as_bytes());
    let Some(contact) = &word.status.contact else { return format!("{name}: never talked with") };
    let at = rfc3339(contact.at_ms as i64);
    let has = match word.has {
        Some(true) => "has it, as of when it was last talked with",
        Some(false) => "did not have it when it was last talked with",
        None => "last talked with",
    };
    let ahead = match word.ahead_events {
        0 => String::new(),
        events => format!("; had {} that are not here", count_text(events, "event")),
    };
    format!("{name}: {has}, {at}{ahead}")
}
