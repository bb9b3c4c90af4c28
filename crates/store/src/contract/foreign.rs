//! Changes of other programs on PostgreSQL, during and between the steps of counting and indexing: results match
//! the table.

use futures_util::future::join;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::*;
use crate::postgres::config::PostgresConfig;
use crate::postgres::{Counting, Session, test_steps};

#[derive(Debug, Clone)]
enum Operation {
    Insert(Vec<NewMessage>),
    /// With given numbers of arrival, or without numbers.
    Bring(Vec<(NewMessage, Option<i64>)>),
    /// With replica triggers only, like replication and restores.
    Replicated(Box<Operation>),
    /// Changes everything except the id.
    Change(String, NewMessage),
    Rename(String, String),
    Delete(String),
    DeleteBefore(Timestamp),
    Empty,
}

#[derive(Debug, Clone)]
enum Step {
    Theirs(Operation),
    /// In a transaction that lasts until `Close`.
    InTransaction(Operation),
    Close(bool),
    Count,
    Index,
    Merge,
    /// The transaction ends during these steps, this many round trips after their start.
    CountWhileItEnds(usize),
    IndexWhileItEnds(usize),
    LookOver,
    Ask(Box<PageRequest>),
}

struct World<'a> {
    config: &'a PostgresConfig,
    /// Our connection, that of another program, and one with a transaction that is open at times.
    sessions: Vec<Session>,
    counting: Counting,
}

impl World<'_> {
    fn ours(&self) -> &Client {
        &self.sessions[0].client
    }

    async fn perform(&self, step: &Step) -> Result<(), TestCaseError> {
        let (ours, theirs, other) = (self.ours(), &self.sessions[1].client, &self.sessions[2].client);
        match step {
            Step::Theirs(operation) => perform(theirs, operation).await,
            Step::InTransaction(operation) => {
                // BEGIN gives a warning in an open transaction, and an error in a failed one.
                let _ = other.batch_execute("BEGIN").await;
                perform(other, operation).await;
            }
            Step::Close(is_kept) => end(other, *is_kept, 0).await,
            Step::Count => drop(test_steps::count(ours, &self.counting).await),
            Step::Index => drop(test_steps::index(ours).await),
            Step::Merge => drop(test_steps::merge(ours).await),
            Step::CountWhileItEnds(after) => {
                join(test_steps::count(ours, &self.counting), end(other, true, *after)).await;
            }
            Step::IndexWhileItEnds(after) => {
                join(test_steps::index(ours), end(other, true, *after)).await;
            }
            Step::LookOver => prop_assert_eq!(test_steps::findings(&self.sessions[0], self.config).await, [""; 0]),
            Step::Ask(request) => self.compare(request).await?,
        }
        Ok(())
    }

    /// Compares the results with the table, in one snapshot.
    async fn compare(&self, request: &PageRequest) -> Result<(), TestCaseError> {
        let ours = self.ours();
        ours.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
        let columns = "SELECT message_id, from_msisdn, ts, text FROM messages";
        let rows = ours.query_typed(columns, &[]).await.unwrap();
        let (page, stats) = (test_steps::page(ours, request).await.unwrap(), test_steps::stats(ours).await.unwrap());
        ours.batch_execute("COMMIT").await.unwrap();
        let mut model = Model::default();
        for row in rows {
            model.append(&message(row.get(0), row.get(1), row.get(2), row.get(3)));
        }
        prop_assert_eq!(page, model.page(request), "{:?}", request);
        prop_assert_eq!(stats, model.stats());
        Ok(())
    }
}

async fn end(client: &Client, is_kept: bool, after: usize) {
    for _ in 0..after {
        let _ = client.simple_query("SELECT 1").await;
    }
    client.batch_execute(if is_kept { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
}

/// Skips changes that conflict with another one, or violate the table's constraints.
async fn perform(client: &Client, operation: &Operation) {
    let text = |text: &str| (text.to_owned(), Type::TEXT);
    let (sql, values): (&str, Vec<(String, Type)>) = match operation {
        Operation::Insert(messages) => {
            for message in messages {
                let NewMessage { id, from, to, ts, text, .. } = message;
                let values = [id.as_str(), from.as_str(), to.as_str(), ts.as_str()];
                let mut parameters: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), Type)> =
                    values.iter().map(|value| (value as _, Type::TEXT)).collect();
                parameters.push((text, Type::TEXT));
                let insert = "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
                              VALUES ($1, $2, $3, $4, $5, 'x') ON CONFLICT DO NOTHING";
                let _ = client.execute_typed(insert, &parameters).await;
            }
            return;
        }
        Operation::Bring(messages) => {
            for (message, arrival) in messages {
                let NewMessage { id, from, to, ts, text, .. } = message;
                let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 6] = [
                    (&id.as_str(), Type::TEXT),
                    (&from.as_str(), Type::TEXT),
                    (&to.as_str(), Type::TEXT),
                    (&ts.as_str(), Type::TEXT),
                    (text, Type::TEXT),
                    (arrival, Type::INT8),
                ];
                let insert = "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, arrival, created_at)
                              VALUES ($1, $2, $3, $4, $5, $6, 'x') ON CONFLICT DO NOTHING";
                let _ = client.execute_typed(insert, &parameters).await;
            }
            return;
        }
        Operation::Replicated(operation) => {
            let _ = client.batch_execute("SET session_replication_role = replica").await;
            Box::pin(perform(client, operation)).await;
            let _ = client.batch_execute("RESET session_replication_role").await;
            return;
        }
        Operation::Change(id, message) => {
            let NewMessage { from, ts, text: changed, .. } = message;
            let mut values = vec![text(id), text(from.as_str()), text(ts.as_str())];
            let sql = match changed {
                Some(changed) => {
                    values.push(text(changed));
                    "UPDATE messages SET from_msisdn = $2, ts = $3, text = $4 WHERE message_id = $1"
                }
                None => "UPDATE messages SET from_msisdn = $2, ts = $3, text = NULL WHERE message_id = $1",
            };
            (sql, values)
        }
        Operation::Rename(id, to) => {
            ("UPDATE messages SET message_id = $2 WHERE message_id = $1", vec![text(id), text(to)])
        }
        Operation::Delete(id) => ("DELETE FROM messages WHERE message_id = $1", vec![text(id)]),
        Operation::DeleteBefore(ts) => ("DELETE FROM messages WHERE ts < $1", vec![text(ts.as_str())]),
        Operation::Empty => ("TRUNCATE messages", Vec::new()),
    };
    let parameters: Vec<_> = values.iter().map(|(value, kind)| (value as _, kind.clone())).collect();
    let _ = client.execute_typed(sql, &parameters).await;
}

fn any_deed() -> impl Strategy<Value = Operation> {
    let id = || "[a-cA-C]{1,2}";
    let message = || {
        any_message().prop_map(|mut message| {
            message.text = message.text.map(|text| text.replace('\0', ""));
            message
        })
    };
    let own = prop_oneof![Just(None), (0..9i64).prop_map(Some), (0..9i64).prop_map(|n| Some(n + (1 << 62)))];
    let bring = prop::collection::vec((message(), own), 1..6).prop_map(Operation::Bring);
    let plain = prop_oneof![
        6 => prop::collection::vec(message(), 1..6).prop_map(Operation::Insert),
        3 => bring,
        3 => (id(), message()).prop_map(|(id, message)| Operation::Change(id, message)),
        1 => (id(), id()).prop_map(|(id, to)| Operation::Rename(id, to)),
        3 => id().prop_map(Operation::Delete),
        2 => any_timestamp().prop_map(Operation::DeleteBefore),
    ];
    (plain, prop::bool::weighted(0.25)).prop_map(|(operation, replicated)| match replicated {
        true => Operation::Replicated(Box::new(operation)),
        false => operation,
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_deed().prop_map(Step::Theirs),
        // Not within a transaction: other statements would wait for its lock.
        1 => Just(Step::Theirs(Operation::Empty)),
        4 => any_deed().prop_map(Step::InTransaction),
        2 => prop::bool::weighted(0.8).prop_map(Step::Close),
        4 => Just(Step::Count),
        4 => Just(Step::Index),
        1 => Just(Step::Merge),
        2 => (0..7usize).prop_map(Step::CountWhileItEnds),
        2 => (0..9usize).prop_map(Step::IndexWhileItEnds),
        1 => Just(Step::LookOver),
        6 => any_request().prop_map(|request| Step::Ask(Box::new(request))),
    ]
}

fn any_request() -> impl Strategy<Value = PageRequest> {
    any_page_request().prop_map(|request| PageRequest { bounded_total: false, ..request })
}

#[test]
fn whatever_other_programs_do_on_postgresql_answers_are_what_the_table_has() {
    let Some(cluster) = cluster::shared() else { return };
    let long = std::env::var("POSTROOM_TEST_LONG").is_ok_and(|value| value == "1");
    let config =
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if long { 500 } else { 30 }) };
    let history = (prop::collection::vec(any_step(), 1..60), prop::collection::vec(any_request(), 6));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&history, |(steps, last)| {
        let Database::Postgres(config) = on_server(&cluster.database()) else { unreachable!("it is PostgreSQL") };
        runtime.block_on(async {
            let world = World {
                config: &config,
                sessions: test_steps::open(&config, 3).await,
                counting: Counting::new(&test_steps::SMALL),
            };
            for session in &world.sessions {
                session.client.batch_execute("SET lock_timeout = '20ms'").await.unwrap();
            }
            for step in &steps {
                world.perform(step).await?;
            }
            world.perform(&Step::Close(true)).await?;
            for request in &last {
                world.compare(request).await?;
            }
            let mut rounds = 0;
            while test_steps::count(world.ours(), &world.counting).await | test_steps::index(world.ours()).await {
                rounds += 1;
                assert!(rounds < 1_000, "it comes to an end");
            }
            for request in &last {
                world.compare(request).await?;
            }
            world.perform(&Step::LookOver).await?;
            let left = "SELECT (SELECT count(*) FROM postroom_gone) + (SELECT count(*) FROM postroom_gone_texts)";
            let left: i64 = world.ours().query_typed_one(left, &[]).await.unwrap().get(0);
            prop_assert_eq!(left, 0, "all was taken in");
            Ok(())
        })
    });
    outcome.unwrap();
}
