//! A batch inside its transaction: it appends rows above every rowid that was ever used, and changes only
//! the table and its primary key. So an index that covers all rows up to one of them finds the rest above it.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement, params};

use super::details;
use crate::queue::Job;
use crate::{Receipt, StoreError};
use domain::{Address, MessageId, Moment, NewMessage, Outcome, Timestamp};
use runtime::log;

const INSERT_NEXT: &str = "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (message_id) DO NOTHING";

/// The rowid of the next row. SQLite's own choice, the greatest rowid plus one, could reuse the rowid of a deleted
/// row, and readers that remember the first use would miss it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The table contains the greatest rowid that was ever used: plus one is right.
    Automatic,
    /// The greatest ones were deleted: the next row must skip them.
    At(i64),
    /// A row has the greatest possible rowid, so no rowid is above all others. SQLite chooses a free one; each new
    /// row gets a change record, like another program's.
    Anywhere,
}

/// Values that never decrease: within an epoch every deleted row is recorded, and no change number is reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    epoch: String,
    row: i64,
    note: i64,
}

impl Reach {
    /// Reads the values.
    pub fn look(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT epoch, max(high_row, ifnull((SELECT max(rowid) FROM messages), 0)),
                       ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'postroom_changes'), 0)
                   FROM postroom_index";
        connection
            .prepare_cached(sql)?
            .query_row([], |row| Ok(Self { epoch: row.get(0)?, row: row.get(1)?, note: row.get(2)? }))
    }

    /// Whether a row was deleted without a change record since `before`, when rows up to `committed` existed.
    pub fn fell_behind(&self, before: &Self, committed: i64) -> bool {
        self.epoch == before.epoch && (self.row < before.row.max(committed) || self.note < before.note)
    }
}

/// The state of the table's rowids.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    next: Next,
    /// The greatest in the table; 0 if it is empty.
    pub greatest: i64,
}

impl Rows {
    /// Reads the state. Required whenever another program may have written.
    pub fn look(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT ifnull((SELECT max(rowid) FROM messages), 0), high_row FROM postroom_index";
        let (greatest, high): (i64, i64) =
            connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let next = match greatest.max(high) {
            i64::MAX => Next::Anywhere,
            high if high > greatest => Next::At(high + 1),
            _ => Next::Automatic,
        };
        Ok(Self { next, greatest })
    }

    /// Records the rowid of a new row.
    fn appended(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let row = connection.last_insert_rowid();
        self.greatest = self.greatest.max(row);
        match self.next {
            Next::Automatic => {}
            Next::At(_) => self.next = Next::Automatic,
            Next::Anywhere => {
                connection.prepare_cached("INSERT INTO postroom_changes (row) VALUES (?1)")?.execute([row])?;
            }
        }
        Ok(())
    }
}

/// Appends the new messages of a batch. A message that the database itself refuses fails alone, with
/// its request. `triggers_fire`: triggers of other programs fire, and may delete rows at any moment.
pub(super) fn append(
    connection: &Connection,
    rows: &mut Rows,
    triggers_fire: bool,
    jobs: &[Job],
) -> rusqlite::Result<Vec<Result<Receipt, StoreError>>> {
    let mut results = Vec::with_capacity(jobs.len());
    // Prepared once per batch; rarer statements are prepared when they are needed.
    let mut insert_next = connection.prepare_cached(INSERT_NEXT)?;
    for job in jobs {
        let mut outcomes = Vec::with_capacity(job.messages.len());
        let mut refused = None;
        for message in &job.messages {
            if triggers_fire {
                *rows = Rows::look(connection)?;
            }
            match insert(connection, &mut insert_next, rows, message) {
                Ok(outcome) => outcomes.push(outcome),
                // A constraint or a trigger of another program refused it; the rest of the batch is not affected.
                Err(error) if is_refusal(&error) && !connection.is_autocommit() => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        results.push(match refused {
            None => {
                let mut receipt = Receipt { outcomes, statuses: Vec::new(), events: Vec::new() };
                if let Some(extras) = &job.extras {
                    details::write(connection, &job.messages, extras, &mut receipt)?;
                }
                Ok(receipt)
            }
            Some(error) => {
                log::error("the database refused a message").cause(&error).emit();
                Err(StoreError::Unavailable("the database refused a message".to_owned()))
            }
        });
    }
    Ok(results)
}

/// Tests whether messages would be accepted: inserts one with all kinds of provider data, and one with
/// each of `ids`, which were refused before; then rolls back. Must be called outside a transaction.
pub(super) fn try_out(connection: &Connection, ids: impl IntoIterator<Item = MessageId>) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let tried = (|| {
        let mut insert_next = connection.prepare_cached(INSERT_NEXT)?;
        let now = Moment::now();
        let key = format!("postroom-trial-{}", now.to_iso_micros());
        for id in ids.into_iter().chain(MessageId::parse(&key)) {
            let address = Address::tagged("postroom", "trial");
            let message = NewMessage {
                id,
                from: address.clone(),
                to: address,
                ts: now.to_timestamp(),
                text: Some("trial".to_owned()),
                accepted_at: now,
                details: None,
                former_id: None,
            };
            insert(connection, &mut insert_next, &mut Rows::look(connection)?, &message)?;
        }
        details::try_out(connection, &key)
    })();
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    tried
}

/// Whether an insert was refused or ignored (`RAISE(IGNORE)`), as opposed to failed.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) || *error == rusqlite::Error::QueryReturnedNoRows
}

/// Inserts a message, unless it exists. The primary key decides.
fn insert(
    connection: &Connection,
    insert_next: &mut Statement<'_>,
    rows: &mut Rows,
    message: &NewMessage,
) -> rusqlite::Result<Outcome> {
    if let Some(former) = &message.former_id
        && is_copy_of(connection, message, former.as_str())? == Some(true)
    {
        return Ok(Outcome::Duplicate);
    }
    let (id, from, to, ts) = (message.id.as_str(), message.from.as_str(), message.to.as_str(), message.ts.as_str());
    let (text, created_at) = (&message.text, message.accepted_at.to_iso_micros());
    let created = match rows.next {
        Next::At(row) => {
            let mut insert = connection.prepare_cached(
                "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at, rowid)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (message_id) DO NOTHING",
            )?;
            insert.execute(params![id, from, to, ts, text, created_at, row])?
        }
        Next::Automatic | Next::Anywhere => insert_next.execute(params![id, from, to, ts, text, created_at])?,
    };
    if created == 1 {
        rows.appended(connection)?;
        return Ok(Outcome::Created);
    }
    match is_copy_of(connection, message, id)? {
        Some(true) => Ok(Outcome::Duplicate),
        Some(false) => Ok(Outcome::Conflict),
        // Neither present nor inserted: a trigger discarded it.
        None => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// Whether the row with this key has the same content; none if there is no row.
fn is_copy_of(connection: &Connection, message: &NewMessage, key: &str) -> rusqlite::Result<Option<bool>> {
    let mut find = connection.prepare_cached(
        "SELECT from_msisdn, to_msisdn, (?2 IS NULL OR ts IS ?2) AND text IS ?3 FROM messages WHERE message_id = ?1",
    )?;
    let ts = message.compared_ts();
    let ts = ts.as_ref().map(Timestamp::as_str);
    let compare = |row: &Row<'_>| {
        // Another program may have stored a value that is no text.
        let (from, to) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str());
        let is_between = from.is_ok_and(|from| to.is_ok_and(|to| message.is_between(from, to)));
        Ok(row.get(2)? && is_between)
    };
    find.query_row(params![key, ts, message.text], compare).optional()
}
