//! The system clock is changed while the service runs.

use std::path::Path;

use super::shim::Shimmed;
use crate::harness::{Reply, Server, Setup};

const HOUR: i64 = 3_600;

/// Sets the server's clock this many seconds ahead of the machine's, at once and for every reader.
fn set(folder: &Path, seconds: i64) {
    let draft = folder.join("clock.new");
    std::fs::write(&draft, seconds.to_string()).expect("the file can be written");
    std::fs::rename(draft, folder.join("clock")).expect("the file can be replaced");
}

/// The time in a response's `Date`, in seconds since 1970.
fn date(reply: &Reply) -> i64 {
    let text = reply.header("date").expect("every answer has a Date");
    assert!(text.len() == 29 && text.ends_with(" GMT"), "{text}");
    jiff::fmt::rfc2822::parse(text).expect("a date of RFC 9110").timestamp().as_second()
}

#[test]
fn the_date_of_answers_follows_the_clock_both_ways() {
    let setup = Setup::new();
    let folder = setup.path().to_owned();
    set(&folder, 2 * HOUR);
    let server = Shimmed::new(setup).file("SHIM_CLOCK", "clock").start();
    let mut client = server.client();
    let mut before = date(&client.get("/health/live"));
    for hours in [0, 5, 1, 0] {
        set(&folder, hours * HOUR);
        let now = date(&client.get("/health/live"));
        assert!((now - before).abs() > HOUR / 2, "the clock was set, and Date went from {before} to {now}");
        let other = date(&server.get("/health/live"));
        assert!((now - other).abs() < HOUR / 4, "{now} on one connection, {other} on another");
        before = now;
    }
}

#[test]
fn every_answer_has_one_date() {
    let server = Server::start();
    let ask = |bytes: &str| {
        let mut client = server.client();
        client.send_raw(bytes.as_bytes()).expect("it can be sent");
        client.receive().expect("an answer")
    };
    for request in ["GET /stats HTTP/1.1\r\nHost: a", "GET /none HTTP/1.1\r\nHost: a", "GET / HTTP/1.1", "GARBAGE"] {
        let reply = ask(&format!("{request}\r\n\r\n"));
        date(&reply);
        assert_eq!(reply.headers.iter().filter(|(name, _)| name == "date").count(), 1, "{request}");
    }
}
