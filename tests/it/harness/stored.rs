//! The stored data of servers, read from outside like by any other program, for either store.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;

use rusqlite::types::Value;

use super::database::{self, Summaries};
use super::load::Sent;
use super::{Running, Server, Setup, cluster, wait_until};

/// The location of the messages.
#[derive(Debug, Clone)]
pub enum Stored {
    File(PathBuf),
    /// A database on PostgreSQL, by its URL.
    Postgres(String),
}

/// A lock of another program that prevents all writes. Released when this is dropped.
pub enum Lock {
    File(rusqlite::Connection),
    Postgres(Running),
}

impl Stored {
    /// The database of a `DATABASE_URL`.
    pub fn at(url: &str) -> Self {
        match url.strip_prefix("sqlite:///") {
            Some(path) => Self::File(path.into()),
            None => Self::Postgres(url.to_owned()),
        }
    }

    /// Each row of a query as a line, its values separated by `|` and NULL as an empty value.
    pub fn rows(&self, query: &str) -> Vec<String> {
        let path = match self {
            Self::File(path) => path,
            Self::Postgres(url) => return cluster::sql(url, query).lines().map(str::to_owned).collect(),
        };
        let connection = database::open(path);
        let mut statement = connection.prepare(query).expect("the query is right");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|column| Ok(text_of(row.get(column)?)));
            Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
        });
        rows.expect("it can be asked").map(|row| row.expect("it can be read")).collect()
    }

    /// The only value of a query, a number.
    pub fn number(&self, query: &str) -> i64 {
        self.rows(query).concat().parse().expect("a number")
    }

    /// Runs these statements as another program.
    pub fn execute(&self, statements: &str) {
        match self {
            Self::File(path) => database::open(path).execute_batch(statements).expect("the statements run"),
            Self::Postgres(url) => drop(cluster::sql(url, statements)),
        }
    }

    /// Locks everything that a write needs, as another program.
    pub fn lock(&self) -> Lock {
        match self {
            Self::File(path) => {
                let other = database::open(path);
                other.execute_batch("BEGIN IMMEDIATE").expect("the lock comes free");
                Lock::File(other)
            }
            Self::Postgres(url) => {
                let mut other = Running::listening(cluster::psql(url).stdout(Stdio::piped()));
                writeln!(other.stdin(), "BEGIN; LOCK TABLE messages IN EXCLUSIVE MODE; SELECT 'locked';")
                    .expect("it reads");
                let mut said = String::new();
                BufReader::new(other.stdout()).read_line(&mut said).expect("it answers");
                assert_eq!(said, "locked\n");
                Lock::Postgres(other)
            }
        }
    }

    /// All ids, read from the rows.
    pub fn ids(&self) -> BTreeSet<String> {
        match self {
            Self::File(path) => database::ids(&database::open(path)),
            Self::Postgres(_) => {
                let rows = self.rows("SELECT message_id FROM messages");
                let ids: BTreeSet<String> = rows.iter().cloned().collect();
                assert_eq!(ids.len(), rows.len(), "no id is there twice");
                ids
            }
        }
    }

    /// Messages, senders, and messages by sender, counted row by row.
    pub fn recount(&self) -> Summaries {
        let Self::File(path) = self else {
            let rows = self.rows("SELECT from_msisdn, count(*) FROM messages GROUP BY from_msisdn");
            let counts = rows.iter().map(|row| row.rsplit_once('|').expect("two columns"));
            return database::summed(
                counts.map(|(sender, count)| (sender.to_owned(), count.parse().expect("a number"))),
            );
        };
        database::recount(&database::open(path))
    }

    /// Asserts that every acknowledged message is stored, and nothing that was not sent.
    pub fn assert_holds(&self, sent: &Sent) {
        sent.assert_are_all_of(&self.ids());
    }

    /// Asserts that it has no damage: by SQLite's own
    /// check for a file, and by `postroom check --data`,
    /// which compares all derived data with a recount.
    pub fn assert_sound(&self) {
        if let Self::File(path) = self {
            database::assert_sound(&database::open(path));
        }
        let (url, said) = match self {
            Self::File(path) => (format!("sqlite:///{}", path.display()), "integrity ok"),
            Self::Postgres(url) => (url.clone(), "agree with a recount"),
        };
        let (status, stdout, stderr) = Setup::new().env("DATABASE_URL", url).arg("check").arg("--data").run();
        assert!(status.success() && stdout.contains(said), "{stdout}{stderr}");
    }

    /// Asserts that `/stats` has the results of a recount.
    pub fn assert_counted_by(&self, server: &Server) {
        let (messages, senders, by_sender) = self.recount();
        let stats = server.get("/stats").json();
        assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&messages.into(), &senders.into()));
        for sender in stats["messages_per_sender"].as_array().expect("a list") {
            assert_eq!(sender["count"], by_sender[sender["from"].as_str().expect("a text")], "{sender}");
        }
    }

    /// Waits for the database's work for killed servers: their last writes are then stored, or never will be.
    pub fn wait_for_the_dead(&self) {
        let Self::Postgres(url) = self else { return };
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                      AND backend_type = 'client backend'";
        wait_until("the server has let go of them", || (cluster::sql(url, others) == "0").then_some(()));
    }
}

impl Lock {
    /// Releases the lock, and waits until it is released.
    pub fn release(self) {
        match self {
            Self::File(other) => other.execute_batch("ROLLBACK").expect("it ends"),
            Self::Postgres(mut other) => {
                other.end_input();
                assert!(other.wait().success());
            }
        }
    }
}

fn text_of(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Blob(bytes) => format!("{bytes:?}"),
    }
}
