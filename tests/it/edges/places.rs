//! More connections than the limit: idle and slow ones are closed, active ones are not.

use std::io::Write;
use std::net::TcpStream;

use super::{Raw, assert_healthy_with, good_post, post_with, statuses};
use crate::harness::server::Setup;
use crate::harness::{Client, Server, body, message, wait_until};

const PLACES: usize = 8;

/// A server with a low connection limit, and timeouts so long that none of them frees a place.
fn few_places() -> Server {
    let waits = ["HEADER", "BODY", "IDLE", "REQUEST"].map(|what| format!("POSTROOM_SERVER_{what}_SECONDS"));
    let setup = Setup::new().patient().env("POSTROOM_SERVER_CONNECTIONS_MAX", PLACES);
    waits.iter().fold(setup, |setup, name| setup.env(name, 3_600)).start()
}

fn assert_probes_are_answered(server: &Server) {
    for target in ["/health/live", "/health/ready"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
}

#[test]
fn health_is_answered_however_many_connections_rest() {
    let server = few_places();
    // Ten times as many as the limit, all kept open.
    let crowd: Vec<Client> = (0..10 * PLACES)
        .map(|_| {
            let mut client = server.client();
            assert_eq!(client.get("/health/live").status, 200);
            client
        })
        .collect();
    assert_probes_are_answered(&server);
    server.store(&message("meanwhile"));
    assert_healthy_with(&server, 1);
    drop(crowd);
}

#[test]
fn health_is_answered_however_many_connections_ask_nothing_or_half() {
    let server = few_places();
    let beginnings: [&[u8]; 3] = [b"", b"GET /health/li", b"POST /webhook HTTP/1.1\r\nHost: test\r\nX-Slow: "];
    for beginning in beginnings {
        let crowd: Vec<Raw> = (0..3 * PLACES).map(|_| Raw::sending(&server, beginning)).collect();
        assert_probes_are_answered(&server);
        drop(crowd);
    }
}

#[test]
fn health_is_answered_however_many_bodies_do_not_come() {
    let server = few_places();
    let bytes = body(&message("slow"));
    let length = format!("Content-Length: {}", bytes.len());
    for (line, sent) in [("X-Nothing: a", &b""[..]), ("X-Nothing: a", &bytes[..10]), ("Expect: 100-continue", b"")] {
        let crowd: Vec<Raw> =
            (0..2 * PLACES).map(|_| Raw::sending(&server, &post_with(&[&length, line], &bytes, sent))).collect();
        assert_probes_are_answered(&server);
        drop(crowd);
    }
    // Bodies of requests that are refused anyway, and the rest of refused ones.
    for request in [
        "POST /nothing HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n",
    ] {
        let crowd: Vec<Raw> = (0..3 * PLACES).map(|_| Raw::sending(&server, request.as_bytes())).collect();
        assert_probes_are_answered(&server);
        drop(crowd);
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_sender_whose_body_is_late_where_places_are_wanted_is_asked_to_try_again() {
    let server = few_places();
    let bytes = body(&message("late"));
    let head = post_with(&[&format!("Content-Length: {}", bytes.len())], &bytes, b"");
    let mut crowd: Vec<Raw> = (0..PLACES).map(|_| Raw::sending(&server, &head)).collect();
    assert_probes_are_answered(&server);
    let response = crowd[0].read_to_close();
    assert_eq!(statuses(&response), [503], "the first has waited longest: {response}");
    let response = response.to_lowercase();
    assert!(
        response.contains("\r\nretry-after: 1\r\n") && response.contains("\r\nconnection: close\r\n"),
        "{response}"
    );
    let last = crowd.last_mut().expect("there are some");
    last.send(&bytes);
    assert_eq!(statuses(&last.read_until("}")), [200], "the others are as they were");
    assert!(server.metric("postroom_refused_total{reason=\"connection_gave_way\"}") >= Some(1.0));
}

#[test]
fn health_is_answered_however_many_clients_take_no_answer() {
    let server = few_places();
    let asking = b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1_000);
    let crowd: Vec<TcpStream> = (0..2 * PLACES)
        .map(|_| {
            let raw = Raw::connect(&server);
            raw.0.set_nonblocking(true).expect("it can be set");
            let _ = (&raw.0).write(&asking);
            raw.0
        })
        .collect();
    assert_probes_are_answered(&server);
    drop(crowd);
}

#[test]
fn requests_that_are_served_keep_their_places_and_make_room_with_their_answers() {
    let server = few_places();
    let other = server.stored().lock();
    let mut served: Vec<Raw> = (0..PLACES).map(|at| Raw::sending(&server, &good_post(&format!("m{at}")))).collect();
    let mut waiting = Raw::sending(&server, b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n");
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("connections are in use")));
    other.release();
    assert_eq!(statuses(&waiting.read_until("}")), [200]);
    for raw in &mut served {
        let response = raw.read_until("}");
        assert_eq!(statuses(&response), [200], "{response}");
    }
    assert_healthy_with(&server, PLACES as i64);
}

#[test]
fn clients_that_take_turns_on_too_few_places_lose_nothing() {
    let server = few_places();
    let address = server.address;
    let workers: Vec<_> = (0..3 * PLACES)
        .map(|worker| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..20 {
                    let bytes = body(&message(&format!("w{worker}-{number}")));
                    let signature = crate::harness::sign(&bytes);
                    let reply = client.request("POST", "/webhook", &[("X-Signature", &signature)], &bytes);
                    let reply = match reply {
                        Ok(reply) => reply,
                        // It was idle while the machine was busy, so the server may have closed it.
                        Err(_) => {
                            client = Client::connect(address);
                            client
                                .request("POST", "/webhook", &[("X-Signature", &signature)], &bytes)
                                .expect("a response")
                        }
                    };
                    assert_eq!(reply.status, 200);
                    if reply.header("connection") == Some("close") {
                        client = Client::connect(address);
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("all of its messages were taken"));
    wait_until("all are stored", || (server.rows() == 20 * 3 * PLACES as i64).then_some(()));
}
