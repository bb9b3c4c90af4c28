//! What the tasks do, one step at a time, so that tests can put other programs' deeds between and beside the steps.

use std::sync::Arc;

use tokio_postgres::Client;

use super::derive::{self, Counting, Round};
use super::{Connector, Failure, Session, audit, listing, schema, statistics};
use crate::domain::{Page, PageRequest, Stats};
use crate::store::postgres::config::PostgresConfig;

/// A database with our tables, and as many connections.
pub(in crate::store) async fn open(config: &PostgresConfig, connections: usize) -> Vec<Session> {
    let connector = Connector::new(Arc::new(config.clone())).unwrap();
    let mut sessions = vec![schema::prepare(&connector).await.unwrap()];
    for _ in 1..connections {
        sessions.push(connector.connect().await.unwrap());
    }
    sessions
}

/// Gives numbers to rows that wait for one, and counts a stretch. Answers whether there is more.
pub(in crate::store) async fn count(client: &Client, counting: &Counting) -> bool {
    derive::admit(client).await.unwrap();
    counting.round(client).await.unwrap().1 == Round::More
}

/// Indexes a stretch, or takes texts out. Answers whether there is more.
pub(in crate::store) async fn index(client: &Client) -> bool {
    derive::index(client, 1, 3).await.unwrap().1 == Round::More
}

/// Merges a piece of the index. Answers whether there is more.
pub(in crate::store) async fn merge(client: &Client) -> bool {
    derive::merge(client).await.unwrap() == Round::More
}

/// A page, of the snapshot that is open.
pub(in crate::store) async fn page(client: &Client, request: &PageRequest) -> Result<Page, Failure> {
    listing::page(client, request).await
}

/// The statistics, of the snapshot that is open.
pub(in crate::store) async fn stats(client: &Client) -> Result<Stats, Failure> {
    statistics::stats(client).await
}

/// What `postroom check --data` finds.
pub(in crate::store) async fn findings(session: &Session, config: &PostgresConfig) -> Vec<String> {
    audit::look_over(session, config, true).await.unwrap().findings
}
