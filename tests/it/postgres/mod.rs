//! Many replicas on one PostgreSQL database: the same responses and guarantees as with a local file.

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

/// The setup of a replica on that database.
fn on(url: &str) -> Setup {
    Setup::new().env("DATABASE_URL", url)
}

/// A cluster for one test that breaks it.
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

/// The number of messages that this replica stored with that outcome.
fn filed(server: &Server, outcome: &str) -> f64 {
    let sample = format!("postroom_messages_total{{source=\"postroom\",outcome=\"{outcome}\"}}");
    server.metric(&sample).expect("the metric is there")
}

/// All ids in the table.
fn ids(url: &str) -> std::collections::BTreeSet<String> {
    Stored::at(url).ids()
}

/// Asserts that every acknowledged message is stored, nothing else, and that derived data is correct.
fn assert_holds(url: &str, sent: &super::harness::load::Sent) {
    let stored = Stored::at(url);
    stored.assert_holds(sent);
    stored.assert_sound();
}
