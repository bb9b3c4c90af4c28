//! Invalid HTTP: one response, then the connection is closed, and nothing is stored.

use super::{Raw, assert_healthy_with, chunked, good_post, post_with, statuses};
use crate::harness::server::Setup;
use crate::harness::{Server, body, message};

/// Heads and bodies that a proxy might parse differently from us, or that are invalid.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let body = body(&message("smuggled"));
    let length = format!("Content-Length: {}", body.len());
    let chunks = chunked(&body);
    let post = |lines: &[&str], sent: &[u8]| post_with(lines, &body, sent);
    let with_line = |line: &str| post(&[line, &length], &body);
    let replaced = |from: &str, to: &str| {
        let request = String::from_utf8(post(&[&length], &body)).expect("it is text");
        assert!(request.contains(from));
        request.replacen(from, to, 1).into_bytes()
    };
    vec![
        ("two lengths that differ", post(&[&length, "Content-Length: 1"], &body)),
        ("the same length twice", post(&[&length, &length], &body)),
        ("a list of lengths", post(&[&format!("{length}, {}", body.len())], &body)),
        ("a length with a sign", post(&["Content-Length: +5"], &body)),
        ("a negative length", post(&["Content-Length: -1"], &body)),
        ("a hexadecimal length", post(&["Content-Length: 0x10"], &body)),
        ("an empty length", post(&["Content-Length:"], &body)),
        ("a length beyond 64 bits", post(&["Content-Length: 99999999999999999999"], &body)),
        ("a length, then chunks", post(&[&length, "Transfer-Encoding: chunked"], &chunks)),
        ("chunks, then a length", post(&["Transfer-Encoding: chunked", &length], &chunks)),
        ("chunks, then a length, in odd case", post(&["tRANSFER-eNCODING: chunked", "CONTENT-length: 3"], &chunks)),
        ("chunked twice", post(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], &chunks)),
        ("chunked, but not last", post(&["Transfer-Encoding: chunked, identity"], &chunks)),
        ("an unknown encoding", post(&["Transfer-Encoding: xchunked"], &chunks)),
        ("a folded line", post(&["X-Folded: a\r\n b", &length], &body)),
        ("a folded length", post(&["Content-Length:\r\n 5"], &body)),
        ("a space before the colon", post(&[&length.replace(':', " :")], &body)),
        ("a header without a colon", with_line("nonsense")),
        ("a header without a name", with_line(": value")),
        ("a NUL in a header", with_line("X-Nul: a\0b")),
        ("a lone CR in a header", with_line("X-Return: a\rContent-Length: 1")),
        ("no Host", replaced("Host: test\r\n", "")),
        ("two Hosts", with_line("Host: test")),
        ("two different Hosts", with_line("Host: other")),
        ("a head in lines that end in LF", replaced("Host: test\r\n", "Host: test\n")),
        ("a head that ends in LF LF", replaced("\r\n\r\n", "\n\n")),
        ("a chunk size that is none", post(&["Transfer-Encoding: chunked"], b"zz\r\nab\r\n0\r\n\r\n")),
        ("a negative chunk size", post(&["Transfer-Encoding: chunked"], b"-2\r\nab\r\n0\r\n\r\n")),
        ("a chunk size beyond 64 bits", post(&["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\nab\r\n0\r\n\r\n")),
        ("a chunk longer than its size", post(&["Transfer-Encoding: chunked"], b"1\r\nab\r\n0\r\n\r\n")),
        ("no request line", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n".to_vec()),
        ("an unknown version", replaced("HTTP/1.1", "HTTP/1.7")),
        ("no version", replaced(" HTTP/1.1", "")),
        ("a method with a space", replaced("POST", "PO ST")),
    ]
}

#[test]
fn what_is_not_http_is_400_once_and_the_connection_ends() {
    let server = Server::start();
    for (what, bytes) in malformed() {
        // A complete request after it must never be parsed as a request.
        let answers = Raw::sending(&server, &[bytes, good_post("behind")].concat()).read_to_close();
        assert_eq!(statuses(&answers), [400], "{what}: {answers}");
    }
    assert_healthy_with(&server, 0);
}

/// Valid requests with bodies of every kind, which look like heads if that is possible.
fn fronts() -> Vec<(&'static str, Vec<u8>)> {
    let mut message = message("front");
    message["ignored"] = "\r\n\r\nGET / HTTP/1.1\r\n".into();
    let bytes = [body(&message), b"\n\n\r\n\r\n  ".to_vec()].concat();
    let in_chunks = chunked(&bytes);
    let data = &in_chunks[..in_chunks.len() - 5];
    let dressed =
        [b"1;a=\"0\";b\r\n \r\n".as_slice(), data, b"0\r\nX-Trailer: 5\r\nContent-Length: 7\r\n\r\n"].concat();
    let spaced = [b" ".as_slice(), &bytes].concat();
    let post = |line: &str, signed: &[u8], sent: &[u8]| post_with(&[line], signed, sent);
    let chunks = "Transfer-Encoding: chunked";
    vec![
        ("no body", b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("a length", post(&format!("Content-Length: {}", bytes.len()), &bytes, &bytes)),
        (
            "a body that nobody reads",
            b"GET /health/live HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n\r\n\r\n".to_vec(),
        ),
        ("chunks", post(chunks, &bytes, &in_chunks)),
        ("chunks with extensions and trailers", post(chunks, &spaced, &dressed)),
    ]
}

/// A server with a short timeout for data that a lenient parser would still expect.
fn impatient() -> Server {
    let waits = ["HEADER", "BODY", "IDLE"].map(|what| format!("POSTROOM_SERVER_{what}_SECONDS"));
    waits.iter().fold(Setup::new(), |setup, name| setup.env(name, 1)).start()
}

#[test]
fn what_is_not_http_is_400_behind_a_good_request_too() {
    let server = impatient();
    let mut taken = Vec::new();
    for (front, good) in fronts() {
        for (what, bytes) in malformed() {
            let answers = Raw::sending(&server, &[good.as_slice(), &bytes].concat()).read_to_close();
            if statuses(&answers) != [200, 400] {
                taken.push((front, what, statuses(&answers)));
            }
        }
    }
    assert_eq!(taken, [], "taken, because they came in one piece with the request before");
    assert_healthy_with(&server, 1);
}

#[test]
fn a_chunked_body_that_ends_differently_for_different_readers_hides_nothing() {
    let server = impatient();
    let bytes = body(&message("front"));
    let in_chunks = chunked(&bytes);
    let data = &in_chunks[..in_chunks.len() - 5];
    let hidden = "GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n";
    let ends = [
        format!("0\r\nX-Trailer: a\n\n{hidden}"),
        format!("0\r\n\n{hidden}"),
        format!("0\n\n{hidden}"),
        format!("0\r\nX-Trailer: a\n\r\n{hidden}"),
        format!("0\r\nX-Trailer: a\r\n\n{hidden}"),
        format!("0;\n\r\n{hidden}"),
        format!("0 \r\n\r\n{hidden}"),
        format!("+0\r\n\r\n{hidden}"),
        format!("1\n \r\n0\r\n\r\n{hidden}"),
        format!("1\r\n \n0\r\n\r\n{hidden}"),
        format!("00000000000000000000\r\n\r\n{hidden}"),
    ];
    let mut taken = Vec::new();
    for end in ends {
        let front = post_with(&["Transfer-Encoding: chunked"], &bytes, &[data, end.as_bytes()].concat());
        for (what, behind) in malformed() {
            let answers = Raw::sending(&server, &[front.as_slice(), &behind].concat()).read_to_close();
            // For any parsing of the end: the last head is refused, or never reached.
            let statuses = statuses(&answers);
            let limit = if statuses.last() == Some(&400) { 3 } else { 1 };
            if statuses.len() > limit {
                taken.push((end.clone(), what, statuses));
            }
        }
    }
    assert_eq!(taken, []);
}

#[test]
fn http_2_is_not_spoken() {
    let server = Server::start();
    let answers = Raw::sending(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").read_to_close();
    assert!([vec![], vec![400]].contains(&statuses(&answers)), "{answers}");
    assert_healthy_with(&server, 0);
}

#[test]
fn what_is_not_http_is_400_however_it_is_cut_into_pieces() {
    let server = Server::start();
    for (what, bytes) in malformed().into_iter().step_by(3) {
        let mut raw = Raw::connect(&server);
        for piece in bytes.chunks(11) {
            if std::io::Write::write_all(&mut raw.0, piece).is_err() {
                break;
            }
        }
        assert_eq!(statuses(&raw.read_to_close()), [400], "{what}");
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_head_that_is_too_large_is_431_and_the_connection_ends() {
    let server = Server::start();
    let body = body(&message("large"));
    let length = format!("Content-Length: {}", body.len());
    let long_line = format!("X-Long: {}", "a".repeat(17 << 10));
    let many: Vec<String> = (0..65).map(|at| format!("X-{at}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain([length.as_str()]).collect();
    let long_path = format!("GET /messages?q={} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(17 << 10)).into_bytes();
    let cases = [
        ("one long line", post_with(&[&long_line, &length], &body, &body)),
        ("many lines", post_with(&many, &body, &body)),
        ("a long path", long_path),
        (
            "no end of the head",
            format!("GET / HTTP/1.1\r\nHost: test\r\nX-Long: {}", "a".repeat(100 << 10)).into_bytes(),
        ),
    ];
    for (what, bytes) in cases {
        let answers = Raw::sending(&server, &bytes).read_to_close();
        assert_eq!(statuses(&answers), [431], "{what}: {answers}");
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_body_that_breaks_off_is_not_stored() {
    let server = Server::start();
    let body = body(&message("half"));
    let length = format!("Content-Length: {}", body.len() + 1);
    for bytes in
        [post_with(&[&length], &body, &body), post_with(&["Transfer-Encoding: chunked"], &body, &chunked(&body)[..40])]
    {
        let mut client = server.client();
        client.send_raw(&bytes).expect("it is sent");
        client.finish_sending();
        if let Ok(reply) = client.receive() {
            assert_eq!(reply.status, 400, "{}", reply.text());
        }
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_chunked_message_is_stored_like_any_other() {
    let server = Server::start();
    let bytes = body(&message("chunked"));
    for lines in [["Transfer-Encoding: chunked"], ["transfer-encoding: Chunked"]] {
        let mut raw = Raw::sending(&server, &post_with(&lines, &bytes, &chunked(&bytes)));
        assert_eq!(statuses(&raw.read_until("}")), [200]);
    }
    // With chunk extensions, trailers, and one byte per chunk.
    let dressed: Vec<u8> = bytes.iter().flat_map(|byte| [b"1;a=b\r\n", &[*byte][..], b"\r\n"].concat()).collect();
    let dressed = [dressed, b"0\r\nX-Trailer: a\r\n\r\n".to_vec()].concat();
    let mut raw = Raw::sending(&server, &post_with(&["Transfer-Encoding: chunked"], &bytes, &dressed));
    assert_eq!(statuses(&raw.read_until("}")), [200]);
    assert_healthy_with(&server, 1);
}
