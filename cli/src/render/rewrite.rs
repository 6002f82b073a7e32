//! What a rewrite did, or would do.

use super::{Extent, KeyField, Record, bytes_text, count_text, key_text, not_done_line};
use mirror_engine::{event::Key, vault::Rewrite};
use serde::Serialize;

#[derive(Serialize)]
struct Unreadable {
    #[serde(flatten)]
    key: KeyField,
    reason: String,
}

#[derive(Serialize)]
pub(crate) struct RewriteRecord {
    operation: &'static str,
    dry_run: bool,
    epoch: u32,
    keys: u64,
    losers: u64,
    chunks: u64,
    bytes: u64,
    stored_bytes: u64,
    unreadable: Vec<Unreadable>,
    ok: bool,
}

impl Record for RewriteRecord {
    const TYPE: &'static str = "summary";
}

/// A rewrite in JSON.
pub(crate) fn rewrite_record(extent: Extent, done: &Rewrite) -> RewriteRecord {
    let unreadable = |(key, reason): &(Key, String)| Unreadable { key: KeyField::from(key), reason: reason.clone() };
    RewriteRecord {
        operation: "rewrite",
        dry_run: extent == Extent::DryRun,
        epoch: done.epoch,
        keys: done.keys,
        losers: done.losers,
        chunks: done.chunks,
        bytes: done.bytes,
        stored_bytes: done.stored_bytes,
        unreadable: done.unreadable.iter().map(unreadable).collect(),
        ok: done.unreadable.is_empty(),
    }
}

/// The same for people.
pub(crate) fn rewrite_text(extent: Extent, done: &Rewrite) -> String {
    if done.chunks == 0 && done.unreadable.is_empty() {
        return format!(
            "nothing that stands is sealed under older keys than those of epoch {}{}",
            done.epoch,
            first_epoch_text(done.epoch)
        );
    }
    let verb = if extent == Extent::DryRun { "would be sealed anew" } else { "sealed anew" };
    let (keys, chunks) = (count_text(done.keys, "key"), count_text(done.chunks, "chunk"));
    let losers = if done.losers == 0 { String::new() } else { format!(" and {} in conflict", count_text(done.losers, "version")) };
    let (bytes, stored) = (bytes_text(done.bytes), bytes_text(done.stored_bytes));
    format!(
        "{verb} under epoch {}: {keys}{losers}, {chunks} of {bytes}, {stored} of new records; old records stay where they are",
        done.epoch
    )
}

fn first_epoch_text(epoch: u32) -> &'static str {
    if epoch == 1 { ", the first: mirror rekey begins another" } else { "" }
}

/// One key that stays as it is.
pub(crate) fn unreadable_line(key: &Key, reason: &str) -> String {
    not_done_line(&key_text(key), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json_line;

    fn done() -> Rewrite {
        Rewrite { epoch: 2, keys: 3, losers: 1, chunks: 2, bytes: 1024, stored_bytes: 2048, unreadable: Vec::new() }
    }

    #[test]
    fn a_rewrite_says_how_much_and_that_nothing_goes_away() {
        let text = rewrite_text(Extent::Done, &done());
        assert_eq!(
            text,
            "sealed anew under epoch 2: 3 keys and 1 version in conflict, 2 chunks of 1.0 KiB, 2.0 KiB of new records; old records stay where they are"
        );
        assert!(rewrite_text(Extent::DryRun, &done()).starts_with("would be sealed anew under epoch 2"));
        let nothing = Rewrite { epoch: 1, ..Rewrite::default() };
        assert!(rewrite_text(Extent::Done, &nothing).ends_with("epoch 1, the first: mirror rekey begins another"));
        let json = json_line(&rewrite_record(Extent::DryRun, &done()));
        assert!(json.starts_with(r#"{"type":"summary","operation":"rewrite","dry_run":true,"epoch":2,"keys":3,"losers":1,"#), "{json}");
        assert!(json.ends_with(r#""unreadable":[],"ok":true}"#), "{json}");
    }
}
