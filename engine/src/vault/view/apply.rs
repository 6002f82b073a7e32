//! Applying a batch of the log in one transaction.

use super::{
    Position, View, ViewError,
    plaintexts::Plaintexts,
    resealed::{self, Resealed},
    row::{self, COLUMNS, Said, Standing},
    schema,
};
use crate::{
    event::{Dot, Frontier, Key, Operation},
    id::{EpochId, EventId, ReplicaId},
    merge::{self, Action, Agreement, OpenedEvent, Place},
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::{collections::BTreeSet, ops::Range};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The view stands at the end of the batch.
    Applied,
    /// Nothing was done: the view does not stand where the batch begins, because another process was faster. Ask for the position again.
    Overtaken,
}

impl View {
    /// Applies `batch`, the events in `span` of the log, in the order of the log, in one transaction.
    ///
    /// Every event of the log is to be given, those that cannot be read without operations: the view knows by them what has been
    /// seen. An event that was applied before is passed over, so a log may hold one twice. `resealed` is what events of the batch say
    /// of chunks and of no key.
    ///
    /// # Errors
    /// [`ViewError::OutOfOrder`] when an event comes before its past; nothing of the batch is applied then, nor on other errors.
    pub fn apply(&mut self, batch: &[OpenedEvent], resealed: &[Resealed], span: Range<Position>) -> Result<Outcome, ViewError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if schema::position(&transaction)? != span.start {
            return Ok(Outcome::Overtaken);
        }
        let mut writer = Writer::new(&transaction)?;
        batch.iter().try_for_each(|event| writer.apply(event))?;
        resealed.iter().try_for_each(|said| resealed::add(&transaction, said))?;
        writer.finish(span.end)?;
        transaction.commit()?;
        Ok(Outcome::Applied)
    }
}

/// A maximal version while its key is worked on.
struct Held {
    place: Place,
    /// Row of its event.
    event: i64,
    standing: Standing,
    action: i64,
    said: Vec<u8>,
}

impl AsRef<Place> for Held {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

impl Held {
    fn says(&self) -> Result<Action, ViewError> {
        Said::action(self.action, &self.said)
    }
}

/// Whether `maximal` say the same. Nearly always there is one, and nothing to decode.
fn agreement(maximal: &[Held]) -> Result<Agreement, ViewError> {
    if maximal.len() < 2 {
        return Ok(Agreement::Whole);
    }
    let said: Vec<Action> = maximal.iter().map(Held::says).collect::<Result<_, _>>()?;
    Ok(merge::agreement(&said))
}

/// What one key adds to the counts of keys and conflicts.
fn tally(maximal: &[Held], agreement: Agreement) -> (i64, i64) {
    let live = maximal.first().is_some_and(|winner| winner.action == Said::PUT);
    (i64::from(live), i64::from(agreement == Agreement::Broken))
}

/// What the rows say of their agreement.
fn agreement_held(maximal: &[Held]) -> Agreement {
    let broken = maximal.first().is_some_and(|winner| winner.standing == Standing::Winner);
    if broken { Agreement::Broken } else { Agreement::Whole }
}

/// The statements of one transaction and what is written at its end.
struct Writer<'t> {
    transaction: &'t Transaction<'t>,
    find: CachedStatement<'t>,
    insert: CachedStatement<'t>,
    stand: CachedStatement<'t>,
    keep: CachedStatement<'t>,
    drop: CachedStatement<'t>,
    plaintexts: Plaintexts<'t>,
    seen_before: Frontier,
    seen: Frontier,
    keys: i64,
    conflicts: i64,
}

impl<'t> Writer<'t> {
    fn new(transaction: &'t Transaction<'t>) -> Result<Self, ViewError> {
        let find = format!("SELECT {COLUMNS}, v.event FROM maximal v CROSS JOIN event e ON e.number = v.event WHERE v.key = ?1");
        let seen_before = frontier(transaction)?;
        Ok(Self {
            find: transaction.prepare_cached(&find)?,
            insert: transaction.prepare_cached("INSERT INTO maximal VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            stand: transaction.prepare_cached("UPDATE maximal SET standing = ?4 WHERE key = ?1 AND event = ?2 AND idx = ?3")?,
            keep: transaction.prepare_cached(
                "INSERT INTO superseded SELECT key, event, idx, ?4, action, said, chosen FROM maximal
                 WHERE key = ?1 AND event = ?2 AND idx = ?3",
            )?,
            drop: transaction.prepare_cached("DELETE FROM maximal WHERE key = ?1 AND event = ?2 AND idx = ?3")?,
            plaintexts: Plaintexts::new(transaction)?,
            seen: seen_before.clone(),
            seen_before,
            transaction,
            keys: 0,
            conflicts: 0,
        })
    }

    fn apply(&mut self, event: &OpenedEvent) -> Result<(), ViewError> {
        if self.seen.contains(&event.dot) {
            return Ok(());
        }
        let past = event.past();
        if let Some(missing) = first_missing(&self.seen, &past) {
            return Err(ViewError::OutOfOrder { event: event.id, missing });
        }
        self.seen.raise(event.dot);
        if event.operations.is_empty() {
            return Ok(());
        }
        let number = self.insert_event(event)?;
        for (index, operation) in event.operations.iter().enumerate() {
            let said = match Said::by(operation) {
                Some(said) => Some(said),
                None => self.said_by_chosen(operation, &past)?,
            };
            if let Some(said) = said {
                self.version(operation.key(), Place::of(event, index), number, &said, &past)?;
            }
            if let Operation::Put(_, value) = operation {
                self.plaintexts.add(value.content.references.iter().map(|piece| (piece.plaintext, piece.chunk, piece.length)))?;
            }
        }
        Ok(())
    }

    fn insert_event(&self, event: &OpenedEvent) -> Result<i64, ViewError> {
        let mut insert =
            self.transaction.prepare_cached("INSERT INTO event(id, author, sequence, lamport, wall_ms) VALUES(?1, ?2, ?3, ?4, ?5)")?;
        Ok(insert.insert(params![
            event.id.as_bytes(),
            event.dot.author.as_bytes(),
            event.dot.sequence as i64,
            event.lamport as i64,
            event.wall_ms as i64
        ])?)
    }

    /// What a resolution says: the last that the chosen event said of the key, if that lies in the resolution's past.
    fn said_by_chosen(&self, operation: &Operation, past: &Frontier) -> Result<Option<Said>, ViewError> {
        let Operation::Resolve(key, chosen) = operation else { return Ok(None) };
        let mut find = self.transaction.prepare_cached("SELECT number, author, sequence FROM event WHERE id = ?1")?;
        let event = find
            .query_row([chosen.as_bytes()], |row| {
                let dot = Dot { author: ReplicaId::from_bytes(row.get(1)?), sequence: row.get::<_, i64>(2)? as u64 };
                Ok((row.get::<_, i64>(0)?, dot))
            })
            .optional()?;
        let Some((number, _)) = event.filter(|(_, dot)| past.contains(dot)) else { return Ok(None) };
        let mut find = self.transaction.prepare_cached(
            "SELECT idx, action, said FROM maximal WHERE key = ?1 AND event = ?2
             UNION ALL SELECT idx, action, said FROM superseded WHERE key = ?1 AND event = ?2 ORDER BY 1 DESC LIMIT 1",
        )?;
        let said = find
            .query_row(params![key.as_bytes(), number], |row| Ok(Said { action: row.get(1)?, said: row.get(2)?, chosen: Some(*chosen) }));
        Ok(said.optional()?)
    }

    /// Takes one more version of `key` in: the step of the merge, then the rows that differ.
    fn version(&mut self, key: &Key, place: Place, event: i64, said: &Said, past: &Frontier) -> Result<(), ViewError> {
        let key = key.as_bytes();
        let mut maximal = self.maximal(key)?;
        let (keys, conflicts) = tally(&maximal, agreement_held(&maximal));
        let new = Held { place, event, standing: Standing::Superseded, action: said.action, said: said.said.clone() };
        for old in merge::apply(&mut maximal, new, past) {
            self.keep.execute(params![key, old.event, old.place.index, Standing::Superseded as i64])?;
            self.drop.execute(params![key, old.event, old.place.index])?;
        }
        let agreement = agreement(&maximal)?;
        for (index, version) in maximal.iter().enumerate() {
            let standing = Standing::among(index, agreement);
            if version.place == place {
                let chosen = said.chosen.as_ref().map(EventId::as_bytes);
                self.insert.execute(params![key, event, place.index, standing as i64, said.action, said.said, chosen])?;
            } else if version.standing != standing {
                self.stand.execute(params![key, version.event, version.place.index, standing as i64])?;
            }
        }
        let (keys_now, conflicts_now) = tally(&maximal, agreement);
        self.keys += keys_now - keys;
        self.conflicts += conflicts_now - conflicts;
        Ok(())
    }

    fn maximal(&mut self, key: &[u8]) -> Result<Vec<Held>, ViewError> {
        let mut rows = self.find.query([key])?;
        let mut maximal = Vec::new();
        while let Some(row) = rows.next()? {
            maximal.push(Held {
                place: row::place(row)?,
                action: row.get(7)?,
                said: row.get(8)?,
                standing: Standing::from_column(row.get(10)?)?,
                event: row.get(11)?,
            });
        }
        maximal.sort_by_key(|version| std::cmp::Reverse(version.place.rank()));
        Ok(maximal)
    }

    fn finish(self, (segment, offset): Position) -> Result<(), ViewError> {
        self.plaintexts.finish()?;
        let mut raise = self.transaction.prepare_cached("INSERT OR REPLACE INTO frontier VALUES(?1, ?2)")?;
        for (author, sequence) in self.seen.iter().filter(|(author, sequence)| self.seen_before.sequence_of(author) < *sequence) {
            raise.execute(params![author.as_bytes(), sequence as i64])?;
        }
        let mut meta =
            self.transaction.prepare_cached("UPDATE meta SET segment = ?1, offset = ?2, keys = keys + ?3, conflicts = conflicts + ?4")?;
        meta.execute(params![segment, offset as i64, self.keys, self.conflicts])?;
        Ok(())
    }
}

pub(super) fn frontier(connection: &Connection) -> Result<Frontier, ViewError> {
    let mut statement = connection.prepare_cached("SELECT author, sequence FROM frontier")?;
    let dots =
        statement.query_map([], |row| Ok(Dot { author: ReplicaId::from_bytes(row.get(0)?), sequence: row.get::<_, i64>(1)? as u64 }))?;
    Ok(dots.collect::<Result<_, _>>()?)
}

pub(super) fn removals(connection: &Connection) -> Result<BTreeSet<Dot>, ViewError> {
    let mut statement = connection.prepare_cached("SELECT author, sequence FROM removal")?;
    let dots =
        statement.query_map([], |row| Ok(Dot { author: ReplicaId::from_bytes(row.get(0)?), sequence: row.get::<_, i64>(1)? as u64 }))?;
    Ok(dots.collect::<Result<_, _>>()?)
}

pub(super) fn heed_removals(connection: &mut Connection, removals: &BTreeSet<Dot>) -> Result<(), ViewError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for dot in removals {
        transaction.execute("INSERT OR IGNORE INTO removal VALUES(?1, ?2)", params![dot.author.as_bytes(), dot.sequence as i64])?;
    }
    Ok(transaction.commit()?)
}

pub(super) fn unread(connection: &Connection) -> Result<BTreeSet<EpochId>, ViewError> {
    let mut statement = connection.prepare_cached("SELECT epoch FROM unread")?;
    let epochs = statement.query_map([], |row| Ok(EpochId::from_bytes(row.get(0)?)))?;
    Ok(epochs.collect::<Result<_, _>>()?)
}

pub(super) fn leave_unread(connection: &mut Connection, epochs: &BTreeSet<EpochId>) -> Result<(), ViewError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for epoch in epochs {
        transaction.execute("INSERT OR IGNORE INTO unread VALUES(?1)", params![epoch.as_bytes()])?;
    }
    Ok(transaction.commit()?)
}

/// The first event of `past` that is not in `seen`.
fn first_missing(seen: &Frontier, past: &Frontier) -> Option<Dot> {
    past.iter().find_map(|(author, sequence)| {
        let held = seen.sequence_of(author);
        (held < sequence).then_some(Dot { author: *author, sequence: held + 1 })
    })
}
