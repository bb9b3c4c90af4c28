//! The dataset as a file of the original service: one table with six columns, without additions. So the
//! measured service runs its own one-time upgrade.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use anyhow::Context;
use rusqlite::{Connection, params};

use super::inbox::{Inbox, Message};
use crate::progress::Progress;

/// Increased when the rows would differ, so that a kept dataset of an earlier version is not used.
const VERSION: u32 = 1;
/// Rows that are passed on at once.
const BATCH_ROWS: u64 = 1_000;
/// Batches that may wait: one core creates the rows while the other writes them.
const BATCHES_AHEAD: usize = 16;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL, to_msisdn TEXT NOT NULL,
  ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// No crash safety is needed here: an incomplete file is never renamed to a complete one.
const PRAGMAS: &str = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -1048576";

/// The dataset of an inbox, and the time of its creation.
#[derive(Debug)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// None if it existed from an earlier run.
    pub seconds: Option<f64>,
}

impl Dataset {
    /// Finds the dataset in a folder, or creates it there.
    pub fn prepare(folder: &Path, inbox: &Inbox, progress: &Progress) -> anyhow::Result<Self> {
        let path = folder.join(format!("dataset-{}-v{VERSION}.db", inbox.rows()));
        let seconds = match path.exists() {
            true => None,
            false => {
                let began = Instant::now();
                let unfinished = path.with_extension("unfinished");
                let _ = fs::remove_file(&unfinished);
                generate(&unfinished, inbox, progress).with_context(|| format!("cannot make {}", path.display()))?;
                fs::rename(&unfinished, &path)?;
                Some(began.elapsed().as_secs_f64())
            }
        };
        let bytes = fs::metadata(&path)?.len();
        Ok(Self { path, bytes, seconds })
    }
}

fn generate(path: &Path, inbox: &Inbox, progress: &Progress) -> anyhow::Result<()> {
    progress.step_of("creating the dataset", inbox.rows());
    let (sender, batches) = sync_channel(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || make(inbox, &sender));
        insert(path, batches, progress)
    })
}

/// Creates all rows. Ends early if nothing receives them.
fn make(inbox: &Inbox, sender: &SyncSender<Vec<Message>>) {
    let mut first = 0;
    while first < inbox.rows() {
        let end = (first + BATCH_ROWS).min(inbox.rows());
        let batch = (first..end).map(|index| {
            let mut message = Message::default();
            inbox.old(index, &mut message);
            message
        });
        if sender.send(batch.collect()).is_err() {
            return;
        }
        first = end;
    }
}

fn insert(path: &Path, batches: Receiver<Vec<Message>>, progress: &Progress) -> anyhow::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(PRAGMAS)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLE)?;
    let mut statement = transaction.prepare(INSERT)?;
    let mut rows = 0;
    for batch in batches {
        for message in &batch {
            let Message { id, from, to, ts, created_at, .. } = message;
            statement.execute(params![id, from, to, ts, message.text(), created_at])?;
        }
        rows += batch.len() as u64;
        progress.reached(rows);
    }
    drop(statement);
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_original_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (inbox, progress) = (Inbox::new(2_500), Progress::new());
        let made = Dataset::prepare(folder.path(), &inbox, &progress).unwrap();
        assert!(made.seconds.is_some() && made.bytes > 100_000);
        let connection = Connection::open(&made.path).unwrap();
        let read =
            |what: &str| -> i64 { connection.query_row(&format!("select {what}"), [], |row| row.get(0)).unwrap() };
        assert_eq!(read("count(*) from messages where text like '%refund%'"), 5);
        assert_eq!(read("count(distinct message_id) from messages"), 2_500);
        assert_eq!(read("count(*) from sqlite_schema where type in ('index', 'trigger') and sql is not null"), 0);
        let found = Dataset::prepare(folder.path(), &inbox, &progress).unwrap();
        assert_eq!((found.path, found.bytes, found.seconds), (made.path, made.bytes, None));
    }
}
