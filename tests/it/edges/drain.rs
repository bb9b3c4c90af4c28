//! A stop: requests in progress are completed, new connections are refused, and the program ends by itself.

use std::net::TcpStream;

use super::{Raw, good_post, post_with, statuses};
use crate::harness::server::Setup;
use crate::harness::{Server, Stored, body, database, message};

fn wait_for_stop(server: &Server) {
    server.signal("TERM");
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.starts_with("stopping")));
}

/// Asserts that a file is complete without its log.
fn assert_is_closed(stored: &Stored) {
    if let Stored::File(path) = stored {
        assert!(!database::log_exists(path));
    }
}

/// A POST whose head the server has read: it has requested the body.
fn begun_post(server: &Server, id: &str) -> (Raw, Vec<u8>) {
    let bytes = body(&message(id));
    let lines = ["Expect: 100-continue", &format!("Content-Length: {}", bytes.len())];
    let mut raw = Raw::sending(server, &post_with(&lines, &bytes, b""));
    assert_eq!(statuses(&raw.read_until("\r\n\r\n")), [100]);
    (raw, bytes)
}

#[test]
fn a_request_under_way_at_a_stop_is_answered_and_stored() {
    let server = Server::start();
    let (mut raw, bytes) = begun_post(&server, "under way");
    wait_for_stop(&server);
    // No new connection is accepted meanwhile.
    crate::harness::wait_until("no connection is taken", || TcpStream::connect(server.address).is_err().then_some(()));
    raw.send(&bytes);
    let answers = raw.read_to_close();
    assert_eq!(statuses(&answers), [200], "{answers}");
    let (stored, folder) = (server.stored(), server.folder());
    assert_eq!(server.wait().0.code(), Some(0));
    assert_is_closed(&stored);
    assert!(stored.ids().contains("under way"));
    drop(folder);
}

#[test]
fn a_message_that_waits_for_the_writer_at_a_stop_is_answered_and_stored() {
    let server = Setup::new().patient().start();
    let other = server.stored().lock();
    // The server read the second head after the whole first request, on the single thread of all connections.
    let mut first = Raw::sending(&server, &good_post("waiting"));
    let (second, _) = begun_post(&server, "never finished");
    drop(second);
    wait_for_stop(&server);
    other.release();
    let answers = first.read_to_close();
    assert_eq!(statuses(&answers), [200], "{answers}");
    let (stored, folder) = (server.stored(), server.folder());
    assert_eq!(server.wait().0.code(), Some(0));
    assert!(stored.ids().contains("waiting"));
    drop(folder);
}

#[test]
fn idle_connections_and_half_heads_do_not_delay_a_stop() {
    let server = Server::start();
    let mut idle = server.client();
    assert_eq!(idle.get("/health/live").status, 200);
    let fresh = Raw::connect(&server);
    let mut half = Raw::sending(&server, b"GET /health/ready HTTP/1.1\r\nHost: te");
    let (status, lines, stderr) = server.stop();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(idle.is_closed_by_server());
    assert_eq!(half.read_to_close(), "");
    assert!(lines.iter().all(|line| line["level"] != "ERROR"), "{lines:?}");
    drop(fresh);
}

#[test]
fn a_body_that_never_ends_delays_a_stop_no_longer_than_the_grace() {
    let server = Setup::new().env("POSTROOM_SERVER_GRACE_SECONDS", 1).start();
    let (mut raw, _) = begun_post(&server, "endless");
    let (stored, folder) = (server.stored(), server.folder());
    let (status, lines, _) = server.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(raw.read_to_close(), "");
    assert!(lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("grace"))), "it is told");
    assert_is_closed(&stored);
    drop(folder);
}

#[test]
fn a_request_that_comes_after_the_stop_is_refused_or_not_read() {
    let server = Server::start();
    let (mut held, bytes) = begun_post(&server, "held");
    let mut raw =
        Raw::sending(&server, b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\nGET /health/ready HTTP/1.1\r\nHost: te");
    assert_eq!(statuses(&raw.read_until("}")), [200]);
    wait_for_stop(&server);
    let _ = std::io::Write::write_all(&mut raw.0, b"st\r\n\r\n");
    let answers = raw.read_to_close();
    assert!(answers.is_empty() || answers.ends_with(r#"{"status":"not ready","reason":"shutting down"}"#), "{answers}");
    held.send(&bytes);
    assert_eq!(statuses(&held.read_to_close()), [200]);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn after_sigterm_messages_are_still_taken_for_as_long_as_was_set() {
    let server = Setup::new().env("POSTROOM_SERVER_DRAIN_SECONDS", 3_600).start();
    let mut open = server.client();
    assert_eq!(open.get("/health/ready").status, 200);
    wait_for_stop(&server);
    // Open and new connections: readiness is red, and both are served.
    for client in [&mut open, &mut server.client()] {
        let reply = client.get("/health/ready");
        assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"status":"not ready","reason":"shutting down"}"#));
        assert_eq!(reply.header("connection"), Some("close"), "proxies take their connections elsewhere");
    }
    assert_eq!(server.get("/health/live").status, 200);
    for number in 0..3 {
        server.store(&message(&format!("late {number}")));
    }
    assert_eq!(server.get("/stats").json()["total_messages"], 3);
    let (stored, folder) = (server.stored(), server.folder());
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(130), "whoever asks twice means at once");
    assert!((0..3).all(|number| stored.ids().contains(&format!("late {number}"))));
    drop(folder);
}

#[test]
fn a_stop_goes_on_by_itself_when_the_time_is_over() {
    let server = Setup::new().env("POSTROOM_SERVER_DRAIN_SECONDS", 1).start();
    let mut idle = server.client();
    assert_eq!(idle.get("/health/live").status, 200);
    let (mut raw, bytes) = begun_post(&server, "across");
    wait_for_stop(&server);
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("no new connections")));
    raw.send(&bytes);
    assert_eq!(statuses(&raw.read_to_close()), [200]);
    assert!(idle.is_closed_by_server());
    let (stored, folder) = (server.stored(), server.folder());
    assert_eq!(server.wait().0.code(), Some(0));
    assert_is_closed(&stored);
    assert!(stored.ids().contains("across"));
    drop(folder);
}

#[test]
fn a_person_who_interrupts_does_not_wait() {
    // With a drain time of an hour, the test ends only if the stop skips it.
    let server = Setup::new().env("POSTROOM_SERVER_DRAIN_SECONDS", 3_600).start();
    server.store(&message("before"));
    server.signal("INT");
    assert_eq!(server.wait().0.code(), Some(0));
}
