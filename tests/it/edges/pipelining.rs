//! Several requests on one connection: responses in order, each for its own head, for any split into packets.

use super::{Raw, assert_healthy_with, good_post, statuses};
use crate::harness::{Client, Server, body, message, sign};

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Server::start();
    let mut client = server.client();
    for number in 0..20 {
        assert_eq!(client.post(&body(&message(&format!("m{number}")))).status, 200);
        assert_eq!(client.get("/messages?limit=1").json()["total"], number + 1);
        assert_eq!(client.get("/nothing").status, 404);
        assert_eq!(client.request("POST", "/webhook", &[("X-Signature", "00")], b"{}").expect("an answer").status, 401);
    }
}

#[test]
fn requests_sent_without_waiting_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    let mut all = Vec::new();
    for number in 1..=50 {
        all.extend_from_slice(format!("GET /messages?limit={number} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        all.extend_from_slice(&good_post(&format!("m{number}")));
    }
    client.send_raw(&all).expect("it is sent");
    for number in 1..=50 {
        let page = client.receive().expect("an answer").json();
        // The messages posted before are already listed.
        assert_eq!((&page["limit"], &page["total"]), (&number.into(), &(number - 1).into()));
        assert_eq!(client.receive().expect("an answer").text(), r#"{"status":"ok"}"#);
    }
    assert_healthy_with(&server, 50);
}

#[test]
fn a_request_may_be_cut_anywhere_even_behind_another() {
    let server = Server::start();
    let first = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n";
    let second = good_post("cut");
    for at in 1..second.len() {
        let mut client = Client::connect(server.address);
        client.send_raw(&[first, &second[..at]].concat()).expect("it is sent");
        assert_eq!(client.receive().expect("an answer").status, 200);
        client.send_raw(&second[at..]).expect("it is sent");
        let reply = client.receive().expect("an answer");
        assert_eq!(reply.status, 200, "cut after {:?}: {}", String::from_utf8_lossy(&second[..at]), reply.text());
    }
    assert_healthy_with(&server, 1);
}

#[test]
fn a_body_that_nobody_wanted_is_not_taken_for_a_head() {
    let server = Server::start();
    let unwanted = b"a\nb\n\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    for (target, expected) in [("POST /nothing", 404), ("GET /webhook", 405), ("GET /stats", 200)] {
        let head = format!("{target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", unwanted.len());
        for at_once in [true, false] {
            let mut raw = Raw::connect(&server);
            raw.send(head.as_bytes());
            if at_once {
                raw.send(unwanted);
            }
            assert_eq!(statuses(&raw.read_until("}")), [expected]);
            let rest = if at_once { b"" } else { &unwanted[..] };
            let next = b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
            let _ = std::io::Write::write_all(&mut raw.0, &[rest, next].concat());
            // The connection may be closed instead of reading the unwanted body.
            let answers = raw.read_to_close();
            assert!([vec![], vec![200]].contains(&statuses(&answers)), "{target}: {answers}");
        }
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let server = Server::start();
    let mut client = server.client();
    client.send_raw(&[b"\r\n", good_post("after an empty line").as_slice()].concat()).expect("it is sent");
    assert_eq!(client.receive().expect("an answer").status, 200);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let server = Server::start();
    let bytes = body(&message("old"));
    let post =
        format!("POST /webhook HTTP/1.0\r\nX-Signature: {}\r\nContent-Length: {}\r\n\r\n", sign(&bytes), bytes.len());
    let answers = Raw::sending(&server, &[post.as_bytes(), &bytes].concat()).read_to_close();
    assert_eq!(statuses(&answers), [200], "{answers}");
    let answers = Raw::sending(&server, b"GET /messages HTTP/1.0\r\n\r\n").read_to_close();
    assert!(answers.ends_with(r#""total":1,"limit":50,"offset":0}"#), "{answers}");
    assert_healthy_with(&server, 1);
}

#[test]
fn a_client_that_asks_first_is_told_to_continue() {
    let server = Server::start();
    let bytes = body(&message("asked"));
    let request = super::post_with(&["Expect: 100-continue", &format!("Content-Length: {}", bytes.len())], &bytes, b"");
    let mut raw = Raw::sending(&server, &request);
    assert_eq!(statuses(&raw.read_until("\r\n\r\n")), [100]);
    raw.send(&bytes);
    assert_eq!(statuses(&raw.read_until("}")), [200]);
    // A client that is refused anyway gets its response without sending the body.
    for (lines, expected) in [
        (["Expect: 100-continue", "Content-Length: 99999999"].as_slice(), 413),
        (&["Expect: 100-continue", "Content-Length: 5", "Content-Encoding: gzip"], 415),
    ] {
        assert_eq!(statuses(&Raw::sending(&server, &super::post_with(lines, &bytes, b"")).read_until("}")), [expected]);
    }
    assert_healthy_with(&server, 1);
}
