//! Responses that are sent before the request body is read: the connection continues, or the response
//! announces its end.

use std::io::Write;

use super::{Raw, assert_healthy_with, post_with, statuses};
use crate::harness::server::Setup;
use crate::harness::{Client, Reply, Server};

/// An unwanted body; it looks like a head that must not be parsed as one.
const UNWANTED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// The maximum that the server may read of a refused request, including the socket buffers of both sides.
const SWALLOWED_BYTES_MAX: usize = 64 << 20;

/// A server with tokens, a source with a handshake, and limits that single requests reach.
fn guarded() -> Setup {
    Setup::new()
        .env("API_TOKEN", "readers")
        .env("WHATSAPP_APP_SECRET", "app secret")
        .env("WHATSAPP_VERIFY_TOKEN", "verify token")
        .env("POSTROOM_SERVER_CORS_ORIGINS", "https://app.example.com")
        .env("MAX_BODY_BYTES", 4)
}

/// Request line and headers, and the status of the response, which is sent before the body is read.
fn early() -> Vec<(&'static str, &'static [&'static str], u16)> {
    let preflight = &["Origin: https://app.example.com", "Access-Control-Request-Method: GET"];
    let token = &["Authorization: Bearer readers"];
    vec![
        ("POST /webhook/nope", &[], 404),
        ("POST /nothing", &[], 404),
        ("PUT /webhook", &[], 405),
        ("GET /webhook", &[], 405),
        ("DELETE /messages", &[], 405),
        ("GET /messages", &[], 401),
        ("POST /webhook", &["Content-Encoding: gzip"], 415),
        ("POST /webhook", &[], 413),
        ("GET /webhook/whatsapp?hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1", &[], 403),
        ("GET /webhook/whatsapp?hub.mode=subscribe&hub.verify_token=verify%20token&hub.challenge=1", &[], 200),
        ("GET /messages?limit=x", token, 422),
        ("GET /messages", token, 200),
        ("GET /health/live", &[], 200),
        ("GET /openapi.json", &[], 200),
        ("OPTIONS /messages", preflight, 204),
        ("OPTIONS /webhook", &[], 204),
    ]
}

/// A request whose body is sent only after the server has
/// read the head: it serves all connections on one thread,
/// and another client with a later request has its response.
fn send_in_two(server: &Server, head: &str, body: &[u8]) -> Client {
    let mut client = server.client();
    client.send_raw(head.as_bytes()).expect("the server takes it");
    assert_eq!(server.get("/health/live").status, 200);
    let _ = client.send_raw(body);
    client
}

fn closes(reply: &Reply) -> bool {
    reply.header("connection") == Some("close")
}

/// The next request gets a response on the same connection, or the previous response announced its end.
fn assert_goes_on_or_said_so(client: &mut Client, reply: &Reply, what: &str) {
    if closes(reply) {
        assert!(client.is_closed_by_server(), "{what}: it said so");
        return;
    }
    let next = client.request("GET", "/health/live", &[], b"");
    let next = next.unwrap_or_else(|error| panic!("{what}: closed without having said so: {error}"));
    assert_eq!(next.status, 200, "{what}");
}

#[test]
fn a_response_before_the_body_keeps_the_connection_or_says_that_it_ends() {
    let server = guarded().start();
    let in_chunks = super::chunked(UNWANTED);
    let length = format!("Content-Length: {}", UNWANTED.len());
    for (line, headers, expected) in early() {
        for (framing, body) in [(length.as_str(), UNWANTED), ("Transfer-Encoding: chunked", &in_chunks)] {
            let lines = [&["Host: test", framing], headers].concat().join("\r\n");
            let mut client = send_in_two(&server, &format!("{line} HTTP/1.1\r\n{lines}\r\n\r\n"), body);
            let what = format!("{line} with {framing}");
            let reply = client.receive().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(reply.status, expected, "{what}");
            assert!(!closes(&reply), "{what}: a small body is no reason to end a connection");
            assert_goes_on_or_said_so(&mut client, &reply, &what);
        }
    }
}

#[test]
fn a_reader_over_the_rate_keeps_its_connection() {
    let server = Setup::new().env("POSTROOM_SERVER_READS_PER_MINUTE", 1).start();
    assert_eq!(server.get("/messages").status, 200);
    let head = format!("GET /messages HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", UNWANTED.len());
    let mut client = send_in_two(&server, &head, UNWANTED);
    let reply = client.receive().expect("a response");
    assert_eq!((reply.status, closes(&reply)), (429, false));
    assert_goes_on_or_said_so(&mut client, &reply, "429");
}

#[test]
fn a_large_body_that_nobody_reads_ends_the_connection_and_the_response_says_so() {
    let server = guarded().start();
    let large = vec![b'x'; 200_000];
    let in_chunks: Vec<u8> = [b"30d40\r\n", large.as_slice(), b"\r\n0\r\n\r\n"].concat();
    for (line, headers, expected) in early() {
        for (framing, body) in [("Content-Length: 200000", &large), ("Transfer-Encoding: chunked", &in_chunks)] {
            let lines = [&["Host: test", framing], headers].concat().join("\r\n");
            let mut client = send_in_two(&server, &format!("{line} HTTP/1.1\r\n{lines}\r\n\r\n"), body);
            let what = format!("{line} with {framing}");
            let reply = client.receive().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((reply.status, closes(&reply)), (expected, true), "{what}");
        }
    }
}

#[test]
fn a_body_that_never_comes_delays_a_response_a_little_and_the_response_says_that_the_connection_ends() {
    // Only the timeout for such bodies ends this wait.
    let server =
        Setup::new().env("POSTROOM_SERVER_BODY_SECONDS", 600).env("POSTROOM_SERVER_REQUEST_SECONDS", 600).start();
    for sent in ["", "GET"] {
        let head = format!("POST /webhook/nope HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n{sent}");
        let responses = Raw::sending(&server, head.as_bytes()).read_to_close();
        assert_eq!(statuses(&responses), [404], "{responses}");
        assert!(responses.contains("\r\nconnection: close\r\n"), "{responses}");
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_not_asked_for_one_that_nobody_reads() {
    let server = Server::start();
    let head = "POST /webhook/nope HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";
    let mut raw = Raw::sending(&server, head.as_bytes());
    let response = raw.read_until("}");
    assert_eq!(statuses(&response), [404], "{response}");
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
}

#[test]
fn what_is_read_of_a_request_after_its_refusal_is_bounded_in_bytes() {
    let server = Server::start();
    for line in ["POST /webhook", "POST /nothing", "nonsense"] {
        let head = format!("{line} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000000\r\n\r\n");
        let mut raw = Raw::sending(&server, head.as_bytes());
        let piece = vec![b'x'; 1 << 20];
        let mut swallowed = 0;
        while swallowed <= SWALLOWED_BYTES_MAX && raw.0.write_all(&piece).is_ok() {
            swallowed += piece.len();
        }
        assert!(swallowed <= SWALLOWED_BYTES_MAX, "{line}: {swallowed} bytes were taken after the refusal");
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_client_that_reads_only_after_sending_has_its_413() {
    let server = Server::start();
    let body = vec![b'x'; 4 << 20];
    let mut raw = Raw::sending(&server, &post_with(&[&format!("Content-Length: {}", body.len())], b"", &body));
    let responses = raw.read_to_close();
    assert_eq!(statuses(&responses), [413], "{responses}");
    assert!(responses.contains("\r\nconnection: close\r\n"), "{responses}");
}
