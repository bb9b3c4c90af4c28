//! The edge to the network, with raw sockets:
//! invalid HTTP, exceeded limits, slow clients,
//! many connections, and a stop during requests.

mod drain;
mod early;
mod limits;
mod malformed;
mod methods;
mod pipelining;
mod places;
mod proxies;
mod slow;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::harness::server::{PATIENCE, Server};
use crate::harness::{body, message, sign};

/// A raw connection.
struct Raw(TcpStream);

impl Raw {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).expect("the server accepts");
        stream.set_nodelay(true).expect("it is a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self(stream)
    }

    /// A connection that has sent these bytes. The server may close before it has read all of them.
    fn sending(server: &Server, bytes: &[u8]) -> Self {
        let mut raw = Self::connect(server);
        let _ = raw.0.write_all(bytes);
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server takes it");
    }

    /// Reads until the server closes.
    fn read_to_close(&mut self) -> String {
        let mut all = Vec::new();
        match self.0.read_to_end(&mut all) {
            Ok(_) => {}
            // The bytes before a reset were read.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server does not close: {error}; {:?}", String::from_utf8_lossy(&all)),
        }
        String::from_utf8(all).expect("answers are text")
    }

    /// Reads up to and including `end`.
    fn read_until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        let mut byte = [0];
        while !all.ends_with(end.as_bytes()) {
            let read =
                self.0.read(&mut byte).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&all)));
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&all));
            all.push(byte[0]);
        }
        String::from_utf8(all).expect("answers are text")
    }
}

/// The statuses of all responses in these bytes.
fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.split("HTTP/1.").skip(1);
    lines.map(|line| line.get(2..5).and_then(|status| status.parse().ok()).expect("a status")).collect()
}

/// A valid request, as bytes.
fn good_post(id: &str) -> Vec<u8> {
    let body = body(&message(id));
    post_with(&[&format!("Content-Length: {}", body.len())], &body, &body)
}

/// A POST with these header lines in addition to `Host`, a signature of `signed`, and `sent` after its head.
fn post_with(lines: &[&str], signed: &[u8], sent: &[u8]) -> Vec<u8> {
    let mut request = format!("POST /webhook HTTP/1.1\r\nHost: test\r\nX-Signature: {}\r\n", sign(signed)).into_bytes();
    lines.iter().for_each(|line| request.extend_from_slice(format!("{line}\r\n").as_bytes()));
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(sent);
    request
}

/// A body in chunks of a few bytes.
fn chunked(body: &[u8]) -> Vec<u8> {
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let mut all: Vec<u8> = body.chunks(7).flat_map(chunk).collect();
    all.extend_from_slice(b"0\r\n\r\n");
    all
}

/// Exactly this many messages are stored, and a well-behaved client is served.
fn assert_healthy_with(server: &Server, messages: i64) {
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(server.get("/stats").json()["total_messages"], messages);
    assert_eq!(server.rows(), messages);
}
