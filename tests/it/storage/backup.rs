//! The documented operations with the stock `sqlite3` while the service stores messages.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::load::Load;
use crate::harness::random::Random;
use crate::harness::{Server, Setup, database, message, wait_until};

const CONNECTIONS: usize = 8;

/// Runs the line of a document that contains `words`, with these paths instead of its own; none without
/// `sqlite3`.
fn run_documented(document: &str, words: &str, paths: &[(&str, &Path)]) -> Option<Output> {
    let text = std::fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(document))
        .expect("it can be read");
    let line = text.lines().find(|line| line.contains("sqlite3 ") && line.contains(words));
    let mut command = line.unwrap_or_else(|| panic!("{document} has no line with {words}")).to_owned();
    for (documented, path) in paths {
        assert!(command.contains(documented), "{documented} in {command}");
        command = command.replace(documented, path.to_str().expect("a temporary folder's name is text"));
    }
    let command = command.trim().trim_matches('`').to_owned();
    if !Command::new("sqlite3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no sqlite3 shell");
        return None;
    }
    Some(Command::new("sh").args(["-c", &command]).output().expect("sh runs"))
}

/// Stores some tens of megabytes, so that a copy takes the time of many commits.
fn fill(server: &Server) {
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
        INSERT INTO messages SELECT 'old' || i, '+' || i % 9, '+2', '2025-01-01T00:00:00Z', hex(randomblob(200)), 'x' FROM n";
    database::open(&server.database()).execute_batch(rows).expect("it is filled");
}

#[test]
fn the_documented_backup_ends_while_messages_come_and_has_all_that_were_acknowledged_before() {
    let mut random = Random::announced("backup under load");
    let server = Setup::new().patient().start();
    fill(&server);
    server.store(&message("before"));
    let load = Load::start(server.address, CONNECTIONS, "load", &mut random);
    load.wait_for_acks(100);
    let copy = server.folder().path().join("copy.db");
    let paths = [("/var/lib/postroom/app.db", server.database()), ("/backup/app.db", copy.clone())];
    let paths = paths.each_ref().map(|(documented, path)| (*documented, path.as_path()));
    let output = run_documented("DEPLOYMENT.md", "VACUUM INTO", &paths);
    let during = wait_until("messages are stored meanwhile", || {
        server.metric("postroom_messages_total{source=\"postroom\",outcome=\"created\"}")
    });
    let sent = load.finish();
    let Some(output) = output else { return };
    assert!(output.status.success() && during > 100.0, "{output:?}");
    assert!(sent.refused.is_empty(), "{:?}", sent.refused);
    let connection = database::open(&copy);
    database::assert_sound(&connection);
    let ids = database::ids(&connection);
    assert!(ids.contains("before") && ids.len() > 40_100, "{} messages", ids.len());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "a backup is for its owner alone");
    drop(connection);
    // The copy is a database that can be served.
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    std::fs::rename(&copy, folder.path().join("app.db")).unwrap();
    let server = Setup::in_folder(folder).start();
    assert_eq!(server.get("/messages?limit=1").json()["total"], ids.len());
}

#[test]
fn the_documented_deletion_waits_for_its_turn_while_messages_come() {
    let mut random = Random::announced("deletion under load");
    let server = Setup::new().patient().start();
    let load = Load::start(server.address, CONNECTIONS, "load", &mut random);
    load.wait_for_acks(100);
    for number in 0..10 {
        let id = format!("unwanted {number}");
        server.store(&message(&id));
        let (path, id) = (server.database(), Path::new(&id).to_owned());
        let paths = [("/var/lib/postroom/app.db", path.as_path()), ("wamid.ABC", id.as_path())];
        let Some(output) = run_documented("SECURITY.md", "DELETE FROM messages", &paths) else { return };
        assert!(output.status.success(), "{output:?}");
    }
    let sent = load.finish();
    assert!(sent.refused.is_empty(), "{:?}", sent.refused);
    let ids = database::ids(&database::open(&server.database()));
    assert!(!ids.iter().any(|id| id.starts_with("unwanted")));
    assert_eq!(server.get("/messages?limit=1").json()["total"], ids.len());
}
