//! Keys and their history: what the view answers.

use super::{
    Entry, KeysReport, LogEntry, Vault, VaultError,
    view::{Deleted, Standing, VersionRow},
};
use crate::{
    codec::CodecError,
    event::{Event, KIND_OPERATIONS, Key, Operation, Value, body_context, decode_operations},
    id::EventId,
    limits::{EVENT_BODY_BYTES_MAX, EVENT_OPERATIONS_MAX, REASON_BYTES_MAX},
    seal::KeyRing,
    store::LogPosition,
};
use std::{io::Write, ops::ControlFlow};

/// Rows read from the view at once.
const PAGE_ROWS: usize = 1_024;
/// Bytes of events read from the log at once.
const PAGE_BYTES: usize = EVENT_BODY_BYTES_MAX;

impl Vault {
    /// The current value of `key`, without its bytes, and the event that set it.
    pub(super) fn current_value(&self, key: &Key) -> Result<Option<(EventId, Value)>, VaultError> {
        let row = self.ask(|view| view.current(key))?;
        Ok(row.and_then(|row| Some((row.version.place.event, row.version.value()?.clone()))))
    }

    fn existing(&self, key: &Key) -> Result<VersionRow, VaultError> {
        let row = self.ask(|view| view.current(key))?;
        row.filter(|row| row.version.value().is_some()).ok_or_else(|| self.no_such_key(key))
    }

    /// What is not there may be where this device cannot look.
    pub(super) fn no_such_key(&self, key: &Key) -> VaultError {
        let key = key.to_text().into_owned();
        match self.epochs_without_key().first() {
            Some((epoch, _)) => VaultError::NoEpochKey { key, epoch: *epoch, why: self.why_no_key() },
            None => VaultError::NoSuchKey(key),
        }
    }

    pub(super) fn get_value(&self, key: &Key, sink: &mut dyn Write) -> Result<Entry, VaultError> {
        self.catch_up()?;
        let row = self.existing(key)?;
        if let Some(value) = row.version.value() {
            self.stream(&value.content, sink)?;
        }
        Ok(entry(row))
    }

    /// Hands every row below `prefix` to `each`, a page at a time.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        deleted: bool,
        each: &mut dyn FnMut(VersionRow) -> Result<ControlFlow<()>, VaultError>,
    ) -> Result<(), VaultError> {
        let mut after: Option<Key> = None;
        loop {
            let shown = if deleted { Deleted::Shown } else { Deleted::Hidden };
            let rows = self.ask(|view| view.scan(prefix, after.as_ref(), shown, PAGE_ROWS))?;
            let last = rows.len() < PAGE_ROWS;
            after = rows.last().map(|row| row.key.clone());
            for row in rows {
                if each(row)?.is_break() {
                    return Ok(());
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    pub(super) fn list_keys(&self, prefix: &[u8], deleted: bool, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), VaultError> {
        self.catch_up()?;
        self.scan(prefix, deleted, &mut |row| Ok(each(entry(row))))
    }

    pub(super) fn log_entries(&self, key: Option<&Key>, each: &mut dyn FnMut(LogEntry) -> ControlFlow<()>) -> Result<(), VaultError> {
        self.seal_keys()?;
        self.store().refresh()?;
        let mut position = LogPosition::START;
        loop {
            let events = self.store().events_from(position, PAGE_BYTES)?;
            let Some((next, _)) = events.last() else { return Ok(()) };
            position = *next;
            for (_, event) in &events {
                for operation in self.readable_operations_of(event)? {
                    if key.is_some_and(|key| key != operation.key()) {
                        continue;
                    }
                    if each(log_entry(event, operation)).is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What an event says: nothing, if this version does not know its kind, its device had been removed, or nobody with the vault's
    /// key wrote it.
    ///
    /// Who holds only the replication key can sign events, but not seal bodies. The record has matched its id, so a body that does
    /// not open is its author's doing and is the same on every replica; it must not keep anyone from reading the rest.
    pub(super) fn operations_of(&self, event: &Event) -> Result<Vec<Operation>, VaultError> {
        if event.header().kind != KIND_OPERATIONS || !self.is_in_force(event) {
            return Ok(Vec::new());
        }
        let keys = self.seal_keys()?;
        Ok(opened(&keys, event).unwrap_or_else(|error| {
            match self.epochs_without_key().iter().any(|(number, _)| *number == event.header().epoch) {
                // Expected where this device was removed, and said by `status`.
                true => tracing::debug!(event = %event.id(), error, "an event cannot be read"),
                false => {
                    tracing::warn!(event = %event.id(), device = %event.header().device, error, "an event says nothing that can be read");
                }
            }
            Vec::new()
        }))
    }

    pub(super) fn remove_keys(&self, keys: &[Key], reason: Option<&str>) -> Result<KeysReport, VaultError> {
        if reason.is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(VaultError::Usage(format!("a reason has at most {REASON_BYTES_MAX} bytes")));
        }
        self.catch_up()?;
        let mut report = KeysReport::default();
        let mut operations = Vec::new();
        for key in keys {
            let before = operations.len();
            self.scan(key.as_bytes(), false, &mut |row| {
                if is_at_or_below(&row.key, key) {
                    operations.push(Operation::Delete(row.key, reason.map(str::to_owned)));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if operations.len() == before {
                report.missing.push(key.clone());
            }
        }
        report.done = operations.len() as u64;
        self.append_operations(operations)?;
        Ok(report)
    }

    pub(super) fn undelete_keys(&self, keys: &[Key]) -> Result<KeysReport, VaultError> {
        self.catch_up()?;
        let mut report = KeysReport::default();
        let mut operations = Vec::new();
        for key in keys {
            let before = operations.len();
            let mut deleted = Vec::new();
            self.scan(key.as_bytes(), true, &mut |row| {
                if row.version.value().is_none() && is_at_or_below(&row.key, key) {
                    deleted.push(row.key);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            for key in deleted {
                let versions = self.ask(|view| view.versions(&key))?;
                // The newest value before the deletion, in the order that merge gives all versions.
                if let Some(value) = versions.iter().rev().find_map(|row| row.version.value().cloned()) {
                    operations.push(Operation::Put(key, value));
                }
            }
            if operations.len() == before {
                report.missing.push(key.clone());
            }
        }
        report.done = operations.len() as u64;
        self.append_operations(operations)?;
        Ok(report)
    }

    /// Signs and stores operations that add no chunks, in as many events as they need.
    pub(super) fn append_operations(&self, operations: Vec<Operation>) -> Result<(), VaultError> {
        // A key, a reason and a value of the greatest length must still fit a body: 8 MiB / 1,024 operations.
        for batch in operations.chunks(EVENT_OPERATIONS_MAX / 16) {
            self.append(batch, Vec::new())?;
        }
        self.catch_up()
    }
}

/// `key` itself, or something in the directory `key`.
pub(super) fn is_at_or_below(candidate: &Key, key: &Key) -> bool {
    let directory = key.as_bytes().strip_suffix(b"/").unwrap_or(key.as_bytes());
    match candidate.as_bytes().strip_prefix(directory) {
        Some(rest) => rest.first().is_none_or(|byte| *byte == b'/'),
        None => false,
    }
}

pub(super) fn entry(row: VersionRow) -> Entry {
    let value = row.version.value();
    let modified_ms = value.map_or(row.version.wall_ms as i64, modified_ms);
    Entry {
        kind: value.map(|value| value.kind.clone()),
        size: value.map_or(0, |value| value.content.bytes),
        modified_ms,
        deleted: value.is_none(),
        event: row.version.place.event,
        replica: row.version.place.dot.author,
        conflict: row.standing == Standing::Winner,
        key: row.key,
    }
}

/// When the content of a value was changed, in milliseconds since 1970.
pub(super) fn modified_ms(value: &Value) -> i64 {
    value.modified_s.saturating_mul(1000).saturating_add(i64::from(value.modified_ns / 1_000_000))
}

/// The operations in an event's body, or why they cannot be read.
pub(super) fn opened(keys: &KeyRing, event: &Event) -> Result<Vec<Operation>, String> {
    opened_as(keys, event, decode_operations)
}

/// What an event's body decodes to, or why it cannot be read.
pub(super) fn opened_as<T>(keys: &KeyRing, event: &Event, decode: fn(&[u8]) -> Result<T, CodecError>) -> Result<T, String> {
    let body = keys.open_body(event.body(), &body_context(&event.author(), event.header().sequence)).map_err(|error| error.to_string())?;
    decode(&body).map_err(|error| error.to_string())
}

pub(super) fn log_entry(event: &Event, operation: Operation) -> LogEntry {
    let (action, size, reason) = match &operation {
        Operation::Put(_, value) => ("put", value.content.bytes, None),
        Operation::Delete(_, reason) => ("delete", 0, reason.clone()),
        Operation::Resolve(..) => ("resolve", 0, None),
    };
    LogEntry {
        event: event.id(),
        replica: event.author(),
        sequence: event.header().sequence,
        wall_ms: event.header().wall_ms,
        key: operation.key().clone(),
        action,
        size,
        reason,
    }
}
