//! Every exceeded limit has a defined response, and checks have a defined order.

use std::io::{Read, Write};
use std::time::Duration;

use super::{Raw, assert_healthy_with, chunked, good_post, post_with, statuses};
use crate::harness::server::Setup;
use crate::harness::{Server, body, message, sign};

/// A valid message whose body has exactly this length.
fn body_of(bytes: usize) -> Vec<u8> {
    let mut padded = message("exact");
    padded["padding"] = "".into();
    let short = body(&padded).len();
    padded["padding"] = "x".repeat(bytes - short).into();
    body(&padded)
}

#[test]
fn a_body_is_taken_up_to_the_limit_and_not_a_byte_more() {
    let server = Setup::new().env("MAX_BODY_BYTES", 1_000).start();
    for (bytes, expected) in [(1_000, 200), (1_001, 413)] {
        let bytes = body_of(bytes);
        let length = format!("Content-Length: {}", bytes.len());
        let whole = post_with(&[&length], &bytes, &bytes);
        let in_chunks = post_with(&["Transfer-Encoding: chunked"], &bytes, &chunked(&bytes));
        for request in [whole, in_chunks] {
            let answer = Raw::sending(&server, &request).read_until("}");
            assert_eq!(statuses(&answer), [expected], "{answer}");
            assert_eq!(answer.contains(r#"{"detail":"Payload Too Large"}"#), expected == 413);
        }
    }
    assert_healthy_with(&server, 1);
}

#[test]
fn a_client_that_goes_on_sending_still_reads_its_413() {
    let server = Server::start();
    let heads = [["Content-Length: 8388608"], ["Transfer-Encoding: chunked"]];
    for lines in heads {
        let mut raw = Raw::sending(&server, &post_with(&lines, b"", b""));
        // 8 MiB in chunks of 64 KiB (with a length they are plain bytes), far more than the sockets buffer.
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
        for _ in 0..128 {
            if raw.0.write_all(&chunk).is_err() {
                break;
            }
        }
        let answers = raw.read_to_close();
        assert_eq!(statuses(&answers), [413], "{lines:?}: {answers}");
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_compressed_body_is_415_and_identity_is_no_compression() {
    let server = Server::start();
    let bytes = body(&message("encoded"));
    let length = format!("Content-Length: {}", bytes.len());
    for (encoding, expected) in
        [("gzip", 415), ("br", 415), ("identity, gzip", 415), ("identity", 200), ("Identity", 200)]
    {
        let line = format!("Content-Encoding: {encoding}");
        let answer = Raw::sending(&server, &post_with(&[&line, &length], &bytes, &bytes)).read_until("}");
        assert_eq!(statuses(&answer), [expected], "{encoding}");
    }
    assert_healthy_with(&server, 1);
}

#[test]
fn checks_come_in_the_order_of_the_contract() {
    let server = Setup::new().env("MAX_BODY_BYTES", 1_000).env("POSTROOM_SERVER_BODY_SECONDS", 1).start();
    let (nonsense, long) = (b"{nonsense".as_slice(), [b'x'; 2_000]);
    let request = |line: &str, headers: &[&str], signature: &str, body: &[u8]| {
        let head = format!("{line} HTTP/1.1\r\nX-Signature: {signature}\r\nContent-Length: {}\r\n", body.len());
        [head.as_bytes(), headers.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
    };
    let many: Vec<String> = (0..80).map(|at| format!("X-{at}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (host, gzip) = ("Host: test", "Content-Encoding: gzip");
    let slow = [post_with(&["Content-Length: 999"], b"", b"{"), Vec::new()].concat();
    let cases = [
        ("malformed before path", request("POST /nothing", &[host, host, gzip], "00", &long), 400),
        ("headers before path", request("POST /nothing", &many, "00", &long), 431),
        ("path before method", request("DELETE /nothing", &[host, gzip], "00", &long), 404),
        ("method before encoding", request("PUT /webhook", &[host, gzip], "00", &long), 405),
        ("encoding before length", request("POST /webhook", &[host, gzip], "00", &long), 415),
        ("length before signature", request("POST /webhook", &[host], "00", &long), 413),
        ("slowness before signature", slow, 408),
        ("signature before fields", request("POST /webhook", &[host], "00", nonsense), 401),
        ("fields last", request("POST /webhook", &[host], &sign(nonsense), nonsense), 422),
    ];
    for (what, bytes, expected) in cases {
        let answer = Raw::sending(&server, &bytes).read_until("\r\n");
        assert_eq!(statuses(&answer), [expected], "{what}");
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn connections_beyond_the_most_wait_while_all_others_are_served_and_are_served_later() {
    let server = Setup::new().patient().env("POSTROOM_SERVER_CONNECTIONS_MAX", 3).start();
    let other = server.stored().lock();
    let mut held: Vec<_> = (0..3).map(|at| Raw::sending(&server, &good_post(&format!("m{at}")))).collect();
    let mut waiting = Raw::sending(&server, b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n");
    // No response arrives while all places are taken; a slow machine only makes this easier.
    waiting.0.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
    assert!(waiting.0.read(&mut [0]).is_err(), "there was no place for it");
    other.release();
    held.iter_mut().for_each(|raw| assert_eq!(statuses(&raw.read_until("}")), [200]));
    waiting.0.set_read_timeout(Some(crate::harness::server::PATIENCE)).expect("a timeout can be set");
    assert_eq!(statuses(&waiting.read_until("}")), [200]);
}

#[test]
fn a_request_that_takes_too_long_is_answered_and_what_it_brought_is_a_copy_later() {
    let server = Setup::new().patient().env("POSTROOM_SERVER_REQUEST_SECONDS", 1).start();
    let (other, bytes) = (server.stored().lock(), body(&message("late")));
    let length = format!("Content-Length: {}", bytes.len());
    let answer = Raw::sending(&server, &post_with(&[&length], &bytes, &bytes)).read_until("}");
    assert_eq!(statuses(&answer), [503]);
    assert!(answer.to_lowercase().contains("\r\nretry-after: "), "{answer}");
    other.release();
    let answer = Raw::sending(&server, &post_with(&[&length], &bytes, &bytes)).read_until("}");
    assert_eq!(statuses(&answer), [200]);
    assert_healthy_with(&server, 1);
    let log = server.stop().1;
    assert!(log.iter().any(|line| line["reason"] == "request_deadline"), "{log:?}");
}
