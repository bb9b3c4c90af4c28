//! What answers behind the protocol of PostgreSQL. Found out by asking at every connection, not by a setting: whoever connects to
//! an engine that lacks what the store is built on hears so in one line, before any statement that it would refuse.

use tokio_postgres::Client;

use super::failure::Failure;
use super::session::Server;
use super::sql;

/// Oldest server that knows transaction numbers of 64 bits, which the order of arrival is made of.
const VERSION_LEAST: i32 = 130_000;

/// Engines that speak the protocol and say themselves what they are: what is in their `version()`, their name, and what is in the way.
const OTHERS: [(&str, &str, &str); 3] = [
    ("CockroachDB", "CockroachDB", NO_NUMBERS),
    ("-YB-", "YugabyteDB", NO_NUMBERS),
    ("Redshift", "Amazon Redshift", "it does not keep keys unique, so messages would be stored twice"),
];
const NO_NUMBERS: &str =
    "it does not number transactions as PostgreSQL does, and the order of arrival is made of these numbers";

/// Asks a server what it is, and refuses what cannot be used.
pub(super) async fn ask(client: &Client) -> Result<Server, Failure> {
    // Alone and first: the one question that every engine answers.
    let version: String = client.query_typed_one("SELECT version()", &[]).await?.get(0);
    // The rest is about the compiler.
    let name = version.split(", ").next().unwrap_or_default().to_owned();
    if let Some((_, engine, why)) = OTHERS.iter().find(|(mark, ..)| version.contains(mark)) {
        return Err(Failure::Broken(format!("the server is {engine} ({name}): {why}; PostgreSQL is needed")));
    }
    let row =
        client.query_typed_one(sql::SERVER, &[]).await.map_err(Failure::from).map_err(|failure| match failure {
            Failure::Broken(why) => {
                Failure::Broken(format!("the server ({name}) does not answer as PostgreSQL does: {why}"))
            }
            other => other,
        })?;
    let number: i32 = row.get::<_, String>(0).parse().unwrap_or(0);
    let missing: Vec<String> = row.get(5);
    if number < VERSION_LEAST {
        return Err(Failure::Broken(format!("the server is PostgreSQL {}; 13 or later is needed", number / 10_000)));
    }
    if !missing.is_empty() {
        return Err(Failure::Broken(format!(
            "the server ({name}) lacks {}, which PostgreSQL has from version 13 on",
            missing.join(", ")
        )));
    }
    Ok(Server {
        name,
        version: number,
        encoding: row.get(1),
        is_standby: row.get(2),
        synchronous_commit: row.get(3),
        synchronous_standby_names: row.get(4),
        citus: row.get(6),
        is_read_only: row.get::<_, &str>(7) == "on",
    })
}
