//! A read on PostgreSQL: a closure over one snapshot, with a deadline, repeated if the connection was lost.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::task::LocalSet;
use tokio_postgres::types::Type;

use super::*;
use crate::postgres::{Failure, Readers, Session, Snapshot};

/// A reading task with this patience, a table of numbers, and a session of another program.
fn with_reader(patience: Duration, test: impl AsyncFnOnce(Readers, Session)) {
    let Some(cluster) = cluster::shared() else { return };
    let Database::Postgres(config) = on_server(&cluster.database()) else { unreachable!("it is PostgreSQL") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let other = test_steps::open(&config, 1).await.remove(0);
        other.client.batch_execute("CREATE TABLE numbers AS SELECT 1 AS number").await.unwrap();
        let readers = test_steps::readers(&config, patience);
        test(readers, other).await;
    });
}

async fn sleep(client: &tokio_postgres::Client) -> Result<(), Failure> {
    client.query_typed("SELECT pg_sleep(30) AS slept_for_a_test", &[]).await?;
    Ok(())
}

#[test]
fn a_read_sees_one_snapshot_and_can_write_nothing() {
    with_reader(Duration::from_secs(30), async |readers, other| {
        let read = async move |snapshot: &Snapshot<'_>| {
            let count = async || snapshot.client.query_typed_one("SELECT count(*) AS rows FROM numbers", &[]).await;
            let before: i64 = count().await?.get("rows");
            other.client.batch_execute("INSERT INTO numbers VALUES (2)").await?;
            Ok((before, count().await?.get::<_, i64>("rows")))
        };
        assert_eq!(readers.read(read).await, Ok((1, 1)));
        let write = async |snapshot: &Snapshot<'_>| {
            Ok(snapshot.client.execute_typed("INSERT INTO numbers VALUES (3)", &[]).await?)
        };
        assert!(matches!(readers.read(write).await, Err(StoreError::Unavailable(_))));
        let count = async |snapshot: &Snapshot<'_>| {
            Ok(snapshot
                .client
                .query_typed_one("SELECT count(*) AS rows FROM numbers", &[])
                .await?
                .get::<_, i64>("rows"))
        };
        assert_eq!(readers.read(count).await, Ok(2), "after a failure too");
    });
}

#[test]
fn a_read_is_tried_again_where_its_connection_had_gone() {
    with_reader(Duration::from_secs(30), async |readers, _| {
        let tries = Arc::new(AtomicU32::new(0));
        // The first read opens the connection, so it cannot be an expired one.
        for (expected, is_lost) in [(1, true), (2, false), (4, false)] {
            let counted = Arc::clone(&tries);
            let read = async move |snapshot: &Snapshot<'_>| {
                let tried = counted.fetch_add(1, Ordering::Relaxed) + 1;
                if tried == 1 || tried == 3 {
                    snapshot.client.query_typed("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await?;
                }
                Ok(())
            };
            let result = readers.read(read).await;
            assert_eq!((tries.load(Ordering::Relaxed), result.is_err()), (expected, is_lost), "{result:?}");
        }
    });
}

#[test]
fn a_read_ends_at_its_deadline() {
    with_reader(Duration::from_millis(300), async |readers, _| {
        let began = Instant::now();
        let read = readers.read(async |snapshot: &Snapshot<'_>| sleep(snapshot.client).await).await;
        assert_eq!(read, Err(StoreError::QueryDeadline));
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_read_that_nobody_waits_for_is_given_up_by_the_server() {
    with_reader(Duration::from_secs(30), async |readers, other| {
        let sleeping = async || {
            let sql = "SELECT count(*) AS reads FROM pg_stat_activity WHERE datname = current_database() AND state = $1
                       AND query LIKE '%slept_for_a_test' AND pid <> pg_backend_pid()";
            other.client.query_typed_one(sql, &[(&"active", Type::TEXT)]).await.unwrap().get::<_, i64>("reads")
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let read = readers.read(async |snapshot: &Snapshot<'_>| sleep(snapshot.client).await);
        let is_sleeping = async {
            while sleeping().await == 0 {
                assert!(Instant::now() < deadline, "it began");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! { _ = read => panic!("it is over"), () = is_sleeping => {} }
        while sleeping().await > 0 {
            assert!(Instant::now() < deadline, "it was cancelled");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(readers.read(async |_: &Snapshot<'_>| Ok(7)).await, Ok(7));
    });
}
