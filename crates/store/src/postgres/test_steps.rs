//! The steps of the background tasks, one at a time, so that tests can run other programs' changes between them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Client;

use super::counting::Counting;
use super::failure::Failure;
use super::limits::Limits;
use super::reader::{Reader, Readers};
use super::round::Round;
use super::session::{Connector, Session};
use super::snapshot::Snapshot;
use super::task::Task;
use super::{audit, guard, indexing, listing, schema, statistics};
use crate::postgres::config::PostgresConfig;
use domain::{Page, PageRequest, Stats};

/// Limits so small that a few messages reach every code path.
pub(crate) const SMALL: Limits = Limits {
    gather: Duration::from_millis(2),
    gather_texts: Duration::from_millis(2),
    counted_first: 3,
    counted_least: 1,
    counted_max: 4,
    indexed_least: 3,
    indexed_max: 5,
    indexed_bytes_max: 40,
    gone_max: 2,
    admitted_max: 3,
    folded_max: 3,
    merged_together: 2,
    merged_rows_max: 7,
    place_chunk_bits: 2,
    skipped_max: 2,
    matches_max: 6,
    bound_least: 1,
    placed_least: 1,
    walked_first: 2,
    walked_max: 4,
    candidates_few: 2,
};

/// A database with our tables, and as many connections.
pub(crate) async fn open(config: &PostgresConfig, connections: usize) -> Vec<Session> {
    let connector = Connector::new(Arc::new(config.clone())).unwrap();
    let mut sessions = vec![schema::prepare(&connector).await.unwrap()];
    for _ in 1..connections {
        sessions.push(connector.connect().await.unwrap());
    }
    sessions
}

/// One reading task, and its channel; it ends when the channel closes. Must be called within a `LocalSet`.
pub(crate) fn readers(config: &PostgresConfig, patience: Duration) -> Readers {
    let connector = Connector::new(Arc::new(config.clone())).unwrap();
    let (readers, work) = Readers::new(patience);
    let (_, asks) = mpsc::channel(1);
    let (task, work) = (Arc::new(Task::new(false, patience)), Arc::new(Mutex::new(work)));
    let reader = Reader { task, asks, patience, limits: SMALL, connector, work, session: None };
    tokio::task::spawn_local(reader.run());
    readers
}

/// Gives numbers to rows that wait for one, and counts a segment. Returns whether there is more.
pub(crate) async fn count(client: &Client, counting: &Counting) -> bool {
    guard::admit(client, SMALL.admitted_max).await.unwrap();
    counting.round(client).await.unwrap().1 == Round::More
}

/// Indexes a segment, or removes texts. Returns whether there is more.
pub(crate) async fn index(client: &Client) -> bool {
    indexing::index(client, &SMALL, 1, 3).await.unwrap().1 == Round::More
}

/// Merges a part of the index. Returns whether there is more.
pub(crate) async fn merge(client: &Client) -> bool {
    indexing::merge(client, &SMALL).await.unwrap() == Round::More
}

/// A page, from the open snapshot.
pub(crate) async fn page(client: &Client, request: &PageRequest) -> Result<Page, Failure> {
    listing::page(&Snapshot { client, limits: &SMALL }, request).await
}

/// The statistics, from the open snapshot.
pub(crate) async fn stats(client: &Client) -> Result<Stats, Failure> {
    statistics::stats(&Snapshot { client, limits: &SMALL }).await
}

/// The findings of `postroom check --data`.
pub(crate) async fn findings(session: &Session, config: &PostgresConfig) -> Vec<String> {
    audit::look_over(session, config, true).await.unwrap().findings
}
