//! Any number of replicas on one PostgreSQL database: the same answers and the same promises as on a file of one's own.

mod doors;
mod drill;
mod failures;
mod moving;
mod pooler;
mod refusals;
mod replicas;
mod same_answers;
mod tls;
mod upgrade;

use super::harness::cluster::{self, Cluster};
use super::harness::{Server, Setup, wait_until};

/// How a replica on that database is started.
fn on(url: &str) -> Setup {
    Setup::new().env("DATABASE_URL", url)
}

/// A cluster of a test's own, for tests that break it.
fn own_cluster() -> Option<Cluster> {
    let cluster = Cluster::start("");
    if cluster.is_none() {
        println!("skipped: PostgreSQL is not installed (Debian: apt-get install postgresql)");
    }
    cluster
}

fn wait_for_readiness(server: &Server, status: u16) {
    wait_until("readiness changes", || (server.get("/health/ready").status == status).then_some(()));
}

/// Messages that this replica filed with that outcome.
fn filed(server: &Server, outcome: &str) -> f64 {
    let sample = format!("postroom_messages_total{{source=\"postroom\",outcome=\"{outcome}\"}}");
    server.metric(&sample).expect("the metric is there")
}

/// Every id in the table.
fn ids(url: &str) -> std::collections::BTreeSet<String> {
    cluster::sql(url, "SELECT message_id FROM messages").lines().map(str::to_owned).collect()
}

/// Everything acknowledged is stored, nothing is stored that was not sent, and the counters are those of a recount.
fn assert_holds(url: &str, sent: &super::harness::load::Sent) {
    let stored = ids(url);
    let lost: Vec<_> = sent.acked.difference(&stored).collect();
    assert!(lost.is_empty(), "{} acknowledged messages are lost: {lost:?}", lost.len());
    let unknown: Vec<_> = stored.difference(&sent.tried).collect();
    assert!(unknown.is_empty(), "nobody sent {unknown:?}");
    let (status, stdout, stderr) = on(url).arg("check").arg("--data").run();
    assert!(status.success() && stdout.contains("agree with a recount"), "{stdout}{stderr}");
}
