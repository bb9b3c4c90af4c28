//! The two probes: whether the process runs, and whether it can serve requests.

use crate::harness::{Server, message, on_a_file, wait_until};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL,
    to_msisdn TEXT NOT NULL, ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)";

/// Why a test is skipped on PostgreSQL: the service does not recreate a dropped table there.
const ANEW: &str = "a table there has columns of ours, and whoever drops it has to restore it";

fn assert_says(server: &Server, target: &str, status: u16, body: &str) {
    let reply = server.get(target);
    assert_eq!((reply.status, reply.text().as_str()), (status, body), "{target}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

fn assert_ready(server: &Server) {
    assert_says(server, "/health/ready", 200, r#"{"status":"ready"}"#);
    assert_eq!(server.metric("postroom_ready"), Some(1.0));
}

fn assert_live(server: &Server) {
    assert_says(server, "/health/live", 200, r#"{"status":"ok"}"#);
}

#[test]
fn a_running_service_is_live_and_ready() {
    let server = Server::start();
    assert_live(&server);
    assert_ready(&server);
}

#[test]
fn without_its_table_it_is_live_and_not_ready_until_the_table_is_back() {
    if !on_a_file(ANEW) {
        return;
    }
    let server = Server::start();
    server.store(&message("m1"));
    let sql = server.sql();
    for round in 0..2 {
        sql.execute_batch("DROP TABLE messages").unwrap();
        assert_says(&server, "/health/ready", 503, r#"{"status":"not ready","reason":"database not ready"}"#);
        assert_live(&server);
        assert_eq!(server.metric("postroom_ready"), Some(0.0));
        assert_says(&server, "/messages", 503, r#"{"detail":"Service Unavailable"}"#);
        let reply = server.post(&crate::harness::body(&message("m2")));
        assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"detail":"Service Unavailable"}"#));
        assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        sql.execute_batch(TABLE).unwrap();
        wait_until("it is ready again", || (server.get("/health/ready").status == 200).then_some(()));
        assert_ready(&server);
        server.store(&message("m3"));
        assert_eq!(
            server.get("/messages").json()["total"],
            1,
            "round {round}: only what came after the table was made"
        );
        assert_eq!(server.get("/messages?q=hello").json()["data"][0]["message_id"], "m3");
        assert_eq!(server.get("/stats").json()["total_messages"], 1);
    }
}

#[test]
fn a_table_made_anew_without_any_request_in_between_is_served() {
    if !on_a_file(ANEW) {
        return;
    }
    let server = Server::start();
    server.store(&message("m1"));
    let sql = server.sql();
    sql.execute_batch("DROP TABLE messages").unwrap();
    assert_eq!(server.get("/health/ready").status, 503);
    sql.execute_batch(TABLE).unwrap();
    wait_until("it is ready again", || (server.get("/health/ready").status == 200).then_some(()));
    for target in ["/messages", "/messages?from=+1", "/messages?q=x", "/messages?since=2025-01-15T10:00:00Z", "/stats"]
    {
        wait_until("it can be read again", || (server.get(target).status == 200).then_some(()));
    }
    assert_eq!(server.get("/messages").json()["total"], 0);
    assert_eq!(server.get("/stats").json()["total_messages"], 0);
    server.store(&message("m1"));
    assert_eq!(server.get("/stats").json()["total_messages"], 1);
}
