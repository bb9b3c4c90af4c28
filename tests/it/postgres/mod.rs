//! Any number of replicas on one PostgreSQL database: the same answers and the same promises as on a file of one's own.

mod drill;
mod failures;
mod moving;
mod pooler;
mod refusals;
mod replicas;
mod restores;
mod same_answers;
mod sources;
mod tls;
mod upgrade;

use super::harness::cluster::Cluster;
use super::harness::{Server, Setup, Stored, wait_until};

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
    Stored::at(url).ids()
}

/// Everything acknowledged is stored, nothing is stored that was not sent, and everything derived is that of a recount.
fn assert_holds(url: &str, sent: &super::harness::load::Sent) {
    let stored = Stored::at(url);
    stored.assert_holds(sent);
    stored.assert_sound();
}
