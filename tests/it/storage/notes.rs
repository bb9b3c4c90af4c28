//! Change records of other programs' changes, for
//! derived data outside the file. If all rows up to some
//! rowid and all change records up to some number are
//! known, the later rows and the later change records
//! must describe everything that has happened since.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::harness::random::{Random, long_run};
use crate::harness::server::{Server, Setup};
use crate::harness::{body, database, message, wait_until};

/// A row as an index contains it: rowid, id, time and sender, the last three as SQL literals.
type Entry = (i64, String, String, String);

const ENTRIES: &str = "SELECT rowid, quote(message_id), quote(ts), quote(from_msisdn) FROM messages";

/// Derived data at some moment.
struct Derived {
    epoch: String,
    /// `entries` has the rows up to this one.
    row: i64,
    /// `entries` reflects the change records up to this one.
    change: i64,
    entries: BTreeSet<Entry>,
}

fn entries(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> BTreeSet<Entry> {
    let mut statement = connection.prepare(sql).expect(sql);
    let rows = statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    rows.expect(sql).map(|entry| entry.expect("an entry")).collect()
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).expect(sql).unwrap_or(0)
}

fn epoch(connection: &Connection) -> String {
    connection.query_row("SELECT epoch FROM postroom_index", [], |row| row.get(0)).expect("there is an epoch")
}

impl Derived {
    /// Takes the rows up to some rowid, like an index that is built in parts.
    fn of(connection: &Connection, random: &mut Random) -> Self {
        let _snapshot = connection.unchecked_transaction().expect("a snapshot");
        let greatest = number(connection, "SELECT max(rowid) FROM messages");
        let row = if random.one_in(2) { greatest } else { greatest.min(random.below(30) as i64) };
        let change = number(connection, "SELECT max(seq) FROM sqlite_sequence WHERE name = 'postroom_changes'");
        let known = entries(connection, &format!("{ENTRIES} WHERE rowid <= ?1"), [row]);
        Self { epoch: epoch(connection), row, change, entries: known }
    }

    /// Applies the later change records, and adds the later rows: the result must be the table.
    fn assert_leads_to_the_table(&self, connection: &Connection, after: &str) {
        let _snapshot = connection.unchecked_transaction().expect("a snapshot");
        assert_eq!(self.epoch, epoch(connection), "no epoch ends without a reason");
        let sql =
            "SELECT row, quote(message_id), quote(ts), quote(from_msisdn) FROM postroom_changes WHERE change > ?1";
        let notes = entries(connection, sql, [self.change]);
        let mut derived: BTreeSet<Entry> = self.entries.difference(&notes).cloned().collect();
        for (row, ..) in notes.iter().filter(|(row, ..)| *row <= self.row) {
            derived.extend(entries(connection, &format!("{ENTRIES} WHERE rowid = ?1"), [row]));
        }
        derived.extend(entries(connection, &format!("{ENTRIES} WHERE rowid > ?1"), [self.row]));
        assert_eq!(derived, entries(connection, ENTRIES, []), "rows to {}: {after}", self.row);
    }
}

/// A statement of any kind on a few rows.
fn any_statement(random: &mut Random) -> String {
    let any = |random: &mut Random, values: &[&str]| values[random.below(values.len() as u64) as usize].to_owned();
    let id = |random: &mut Random| any(random, &["'a'", "'b'", "'c'", "'d'", "'e'", "'f'", "X'61'", "NULL", "7"]);
    let rowid = |random: &mut Random| (random.below(14) as i64 - 1).to_string();
    let values = |random: &mut Random| {
        let sender = any(random, &["'+1'", "'+2'", "X'2B'", "3"]);
        let ts = any(random, &["'2025-01-01T00:00:00Z'", "'2025-01-02T00:00:00Z'", "20250103"]);
        format!("{}, {sender}, '+9', {ts}, {}, 'x'", id(random), any(random, &["NULL", "'Hello'"]))
    };
    let verb = any(random, &["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL"]);
    let or = any(random, &["", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ROLLBACK"]);
    let columns = "message_id, from_msisdn, to_msisdn, ts, text, created_at";
    let place =
        any(random, &["rowid = 1 + abs(random()) % 12", "rowid = (SELECT max(rowid) FROM messages)", "rowid % 3 = 0"]);
    match random.below(15) {
        0 | 1 => format!("{verb} INTO messages ({columns}) VALUES ({})", values(random)),
        2 => format!("{verb} INTO messages ({columns}) VALUES ({}), ({})", values(random), values(random)),
        3 | 4 => format!("{verb} INTO messages (rowid, {columns}) VALUES ({}, {})", rowid(random), values(random)),
        5 => format!(
            "INSERT INTO messages ({columns}) VALUES ({}) ON CONFLICT (message_id) DO UPDATE SET ts = excluded.ts, rowid = {}",
            values(random),
            rowid(random)
        ),
        6 => format!("UPDATE {or} messages SET message_id = {} WHERE {place}", id(random)),
        7 => format!("UPDATE {or} messages SET rowid = {} WHERE {place}", rowid(random)),
        8 => format!("UPDATE {or} messages SET message_id = {}, _rowid_ = {} WHERE {place}", id(random), rowid(random)),
        9 => format!("UPDATE messages SET from_msisdn = '+4', ts = ts || 'x' WHERE {place}"),
        10 => format!("UPDATE {or} messages SET rowid = rowid + 1, text = 'moved'"),
        11 | 12 => format!("DELETE FROM messages WHERE {place}"),
        13 => {
            any(random, &["DELETE FROM messages", "VACUUM", "REINDEX", "REPLACE INTO messages SELECT * FROM messages"])
        }
        _ => format!("DELETE FROM messages WHERE message_id = {}", id(random)),
    }
}

/// Runs a part of a history in one transaction, which may be rolled back.
fn run_some(connection: &Connection, random: &mut Random, told: &mut Vec<String>) {
    let mut run = |sql: String| {
        // A statement that a constraint refuses is a valid case, too.
        let result = connection.execute_batch(&sql).map_err(|error| error.to_string());
        told.push(format!("{sql}: {result:?}"));
    };
    let together = random.one_in(3);
    if together {
        run("BEGIN IMMEDIATE".to_owned());
    }
    (0..=random.below(4)).for_each(|_| run(any_statement(random)));
    if together && !connection.is_autocommit() {
        run(if random.one_in(4) { "ROLLBACK" } else { "COMMIT" }.to_owned());
    }
}

fn history_is_noted(server: &Server, pragma: &str, random: &mut Random) {
    let (plain, reader) = (database::open(&server.database()), database::open(&server.database()));
    plain.execute_batch(pragma).expect(pragma);
    for round in 0..if long_run() { 1_000 } else { 100 } {
        let (derived, mut told) = (Derived::of(&reader, random), Vec::new());
        for step in 0..random.below(8) {
            if random.one_in(2) {
                run_some(&plain, random, &mut told);
            } else {
                let given_up = number(&reader, "SELECT high_row FROM postroom_index");
                let greatest = number(&reader, "SELECT max(rowid) FROM messages");
                server.store(&message(&format!("ours-{round}-{step}")));
                let row =
                    number(&reader, &format!("SELECT rowid FROM messages WHERE message_id = 'ours-{round}-{step}'"));
                assert!(
                    row > given_up.max(greatest),
                    "no rowid is used again: {row}, {given_up}, {greatest}: {told:?}"
                );
                told.push(format!("ours: {row}"));
            }
            derived.assert_leads_to_the_table(&reader, &told.join("\n"));
        }
    }
    database::assert_sound(&plain);
}

#[test]
fn notes_and_appended_rows_tell_all_that_happened() {
    let mut random = Random::announced("notes");
    for pragma in ["PRAGMA recursive_triggers = 0", "PRAGMA recursive_triggers = 1"] {
        history_is_noted(&Server::start(), pragma, &mut random);
    }
}

#[test]
fn they_tell_it_too_where_triggers_of_others_delete_rows_at_our_inserts() {
    let setup = Setup::new();
    let connection = database::open(&setup.database());
    let keep_three = "CREATE TRIGGER keep_three AFTER INSERT ON messages BEGIN
        DELETE FROM messages WHERE rowid <= NEW.rowid - 3 OR text = 'unwanted'; END;";
    connection.execute_batch(&format!("{}; {keep_three}", database::MESSAGES)).expect("it is made");
    let server = setup.start();
    let mut random = Random::announced("triggers of others");
    for round in 0..40 {
        let derived = Derived::of(&connection, &mut random);
        for step in 0..3 {
            let mut new = message(&format!("{round}-{step}"));
            if random.one_in(3) {
                new["text"] = "unwanted".into();
            }
            server.store(&new);
            derived.assert_leads_to_the_table(&connection, "our inserts");
        }
    }
    history_is_noted(&server, "PRAGMA recursive_triggers = 1", &mut random);
}

#[test]
fn a_row_at_the_end_of_all_rowids_costs_no_message_and_hides_none() {
    let mut random = Random::announced("the greatest rowid");
    let server = Server::start();
    let plain = database::open(&server.database());
    server.store(&message("before"));
    let insert = "INSERT INTO messages (rowid, message_id, from_msisdn, to_msisdn, ts, created_at)
        VALUES (9223372036854775807, 'last', '+1', '+2', 'x', 'x')";
    plain.execute_batch(insert).expect("nothing forbids it");
    let derived = Derived::of(&plain, &mut random);
    let store_some = |when: &str| {
        for number in 0..20 {
            server.store(&message(&format!("{when}-{number}")));
            derived.assert_leads_to_the_table(&plain, when);
        }
    };
    store_some("beside it");
    plain.execute_batch("DELETE FROM messages WHERE message_id = 'last'").expect("it was there");
    store_some("after it");
    plain.execute_batch("INSERT INTO messages VALUES ('theirs', '+1', '+9', 'x', NULL, 'x')").expect("it is written");
    derived.assert_leads_to_the_table(&plain, "theirs");
    assert_eq!(server.get("/stats").json()["total_messages"], 42);
    // A rebuild ends the epoch, and with it the rowids to be avoided.
    let (status, told, _) = Setup::in_folder(server.folder()).arg("reindex").run();
    assert!(status.success(), "{told}");
    assert_ne!(epoch(&plain), derived.epoch);
    let (notes, derived) = ("SELECT count(*) FROM postroom_changes", Derived::of(&plain, &mut random));
    server.store(&message("as ever"));
    assert_eq!(number(&plain, notes), 0, "an append needs no note");
    derived.assert_leads_to_the_table(&plain, "as ever");
}

#[test]
fn an_epoch_ends_whenever_rows_may_have_changed_without_a_note() {
    let server = Server::start();
    server.store(&message("ours"));
    let plain = database::open(&server.database());
    let mut known = epoch(&plain);
    for sql in [
        "DROP TRIGGER postroom_note_delete",
        "DROP TABLE postroom_changes",
        "DROP TABLE postroom_index",
        "PRAGMA user_version = 1; CREATE TABLE unrelated (x)",
        "ALTER TABLE messages RENAME TO gone; CREATE TABLE messages AS SELECT * FROM gone LIMIT 0; DROP TABLE messages;
         CREATE TABLE messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL, to_msisdn TEXT NOT NULL,
             ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)",
    ] {
        plain.execute_batch(sql).expect(sql);
        let id = format!("after {}", known);
        wait_until("messages are taken again", || (server.post(&body(&message(&id))).status == 200).then_some(()));
        let now = epoch(&plain);
        assert_ne!(now, known, "{sql}");
        known = now;
        let derived = Derived::of(&plain, &mut Random::new(0));
        plain.execute_batch("DELETE FROM messages").expect("it can be done");
        derived.assert_leads_to_the_table(&plain, sql);
    }
}
