//! `POST /webhook`: authentication, and storing each message exactly once.

mod fields;

use serde_json::{Value, json};

use crate::harness::{Client, Reply, SECRET, Server, Setup, body, message, sign};

const STORED: (u16, &str) = (200, r#"{"status":"ok"}"#);
const UNSIGNED: (u16, &str) = (401, r#"{"detail":"invalid signature"}"#);

/// Status and body of a response, for comparing both at once.
fn said(reply: &Reply) -> (u16, &str) {
    (reply.status, std::str::from_utf8(&reply.body).expect("the body is UTF-8"))
}

/// A valid message with one field replaced.
fn with(field: &str, value: Value) -> Value {
    let mut message = message("m1");
    message[field] = value;
    message
}

#[test]
fn a_signed_message_is_stored_field_by_field() {
    let server = Server::start();
    let reply = server.post(&body(&message("m1")));
    assert_eq!(said(&reply), STORED);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let sql = "SELECT message_id, from_msisdn, to_msisdn, ts, text, created_at FROM messages";
    let rows = server.stored().rows(sql);
    let row: Vec<&str> = rows[0].split('|').collect();
    assert_eq!(row[..5], ["m1", "+919876543210", "+14155550100", "2025-01-15T10:00:00Z", "Hello"]);
    let form: String =
        row[5].chars().map(|character| if character.is_ascii_digit() { '9' } else { character }).collect();
    assert_eq!(form, "9999-99-99T99:99:99.999999Z", "created_at is ISO-8601 in UTC");
}

#[test]
fn any_content_type_and_any_framing_is_taken_as_the_signature_is_over_the_bytes() {
    let server = Server::start();
    let mut client = server.client();
    for (at, content_type) in
        ["application/json", "text/plain", "", "application/xml; charset=utf-16"].iter().enumerate()
    {
        let body = body(&message(&format!("{at}")));
        let headers = [("X-Signature", sign(&body)), ("Content-Type", content_type.to_string())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(said(&client.request("POST", "/webhook", &headers, &body).unwrap()), STORED, "{content_type}");
    }
    let body = body(&message("in pieces"));
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-SIGNATURE: {}  \r\n\r\n",
        sign(&body)
    );
    client.send_raw(head.as_bytes()).unwrap();
    for piece in body.chunks(7) {
        client.send_raw(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).unwrap();
    }
    client.send_raw(b"0\r\n\r\n").unwrap();
    assert_eq!(said(&client.receive().unwrap()), STORED, "blanks around a header's value are no part of it");
    assert_eq!(server.rows(), 5);
}

#[test]
fn a_body_over_the_limit_is_413_whatever_it_declares() {
    let setup = Setup::new();
    let server = setup.env("MAX_BODY_BYTES", 2_000).start();
    let padded = |bytes: usize| {
        let mut message = message("padded").to_string();
        message.insert_str(1, &" ".repeat(bytes - message.len()));
        message.into_bytes()
    };
    assert_eq!(said(&server.post(&padded(2_000))), STORED);
    let too_large = (413, r#"{"detail":"Payload Too Large"}"#);
    assert_eq!(said(&server.post(&padded(2_001))), too_large);
    let mut client = server.client();
    let chunk = [b"7d1\r\n".as_slice(), &padded(2_001), b"\r\n0\r\n\r\n"].concat();
    client.send_raw(b"POST /webhook HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    client.send_raw(&chunk).unwrap();
    assert_eq!(said(&client.receive().unwrap()), too_large);
    assert_eq!(server.rows(), 1);
}

#[test]
fn without_the_right_signature_every_body_is_401_and_an_error_in_the_log() {
    let server = Server::start();
    let good = body(&message("m1"));
    let right = sign(&good);
    let other = sign(b"other bytes");
    let wrong: [Vec<&str>; 12] = [
        vec![],
        vec![""],
        vec!["123"],
        vec![&other],
        vec![&right[..63]],
        vec!["0", &right],
        vec![&right, &right],
        vec![&right, ""],
        vec!["ÿé"],
        vec!["sha256="],
        vec![SECRET],
        vec!["0000000000000000000000000000000000000000000000000000000000000000"],
    ];
    let upper = right.to_uppercase();
    let prefixed = format!("sha256={right}");
    let quoted = format!("\"{right}\"");
    let wrong = wrong.into_iter().chain([vec![upper.as_str()], vec![prefixed.as_str()], vec![quoted.as_str()]]);
    for signatures in wrong {
        let headers: Vec<_> = signatures.iter().map(|signature| ("X-Signature", *signature)).collect();
        for body in [&good[..], b"{nope", b"", b"\xff", &[b'['; 200_000]] {
            let reply = server.client().request("POST", "/webhook", &headers, body).unwrap();
            assert_eq!(said(&reply), UNSIGNED, "{signatures:?}");
        }
    }
    let mut client = server.client();
    let mut high = b"POST /webhook HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-Signature: ".to_vec();
    high.extend([0x80, 0xe9, 0xff, 0xfe]);
    client.send_raw(&[&high[..], b"\r\n\r\n"].concat()).unwrap();
    assert_eq!(said(&client.receive().unwrap()), UNSIGNED, "bytes beyond ASCII are no reason for a 500");
    assert_eq!(server.rows(), 0);
    assert_eq!(server.metric(r#"webhook_requests_total{result="invalid_signature"}"#), Some(76.0));
    let line = server.wait_for_line(|line| line["status"] == 401);
    assert_eq!(
        (&line["level"], &line["dup"], &line["result"]),
        (&json!("ERROR"), &json!(false), &json!("invalid_signature"))
    );
}

#[test]
fn the_same_id_again_is_answered_as_before_and_keeps_the_first_row() {
    let server = Server::start();
    let filed =
        |outcome: &str| server.metric(&format!(r#"postroom_messages_total{{source="postroom",outcome="{outcome}"}}"#));
    let mut ignored = message("m1");
    ignored["other"] = json!("new");
    for (copies, message) in [message("m1"), message("m1"), ignored].iter().enumerate() {
        server.store(message);
        assert_eq!(
            (filed("created"), filed("duplicate"), filed("conflict")),
            (Some(1.0), Some(copies as f64), Some(0.0))
        );
    }
    let changes = [
        ("from", json!("+1")),
        ("to", json!("+1")),
        ("ts", json!("2025-01-15T10:00:01Z")),
        ("text", json!("hello")),
        ("text", json!(null)),
    ];
    for (conflicts, (field, value)) in changes.into_iter().enumerate() {
        server.store(&with(field, value));
        assert_eq!((filed("duplicate"), filed("conflict")), (Some(2.0), Some(conflicts as f64 + 1.0)), "{field}");
    }
    assert_eq!(server.get("/messages").json()["data"], json!([message("m1")]));
    assert_eq!(server.metric(r#"webhook_requests_total{result="duplicate"}"#), Some(7.0));
    let (_, lines, _) = server.stop();
    let told = |name| lines.iter().filter(|line| line[name] == true).count();
    assert_eq!((told("dup"), told("conflict")), (7, 5));
}

#[test]
fn fifty_copies_at_once_make_one_row_and_49_duplicates() {
    let server = Server::start();
    let body = body(&message("m1"));
    let mut clients: Vec<Client> = (0..50).map(|_| server.client()).collect();
    let signature = sign(&body);
    for client in &mut clients {
        client.send("POST", "/webhook", &[("X-Signature", &signature)], &body).unwrap();
    }
    for client in &mut clients {
        assert_eq!(said(&client.receive().unwrap()), STORED);
    }
    assert_eq!(server.rows(), 1);
    let counted = |result: &str| server.metric(&format!(r#"webhook_requests_total{{result="{result}"}}"#));
    assert_eq!((counted("created"), counted("duplicate")), (Some(1.0), Some(49.0)));
    let (_, lines, _) = server.stop();
    let told = |dup: bool| lines.iter().filter(|line| line["message_id"] == "m1" && line["dup"] == dup).count();
    assert_eq!((told(false), told(true)), (1, 49));
}

#[test]
fn slashes_in_front_of_the_path_are_one_at_the_sources_and_nowhere_else() {
    let server = Setup::new().env("WHATSAPP_APP_SECRET", "s").env("WHATSAPP_VERIFY_TOKEN", "t").start();
    let ask = |method: &str, target: &str, body: &[u8]| {
        server.client().request(method, target, &[("X-Signature", &sign(body))], body).expect("an answer").status
    };
    for (at, target) in ["//webhook", "///webhook", "//webhook/", "//webhook?x=y"].into_iter().enumerate() {
        assert_eq!(ask("POST", target, &body(&message(&format!("m{at}")))), 200, "{target}");
    }
    assert_eq!(ask("GET", "//webhook/whatsapp?hub.mode=subscribe&hub.challenge=1&hub.verify_token=t", b""), 200);
    assert_eq!((ask("POST", "//webhook/whatsapp", b"{}"), ask("POST", "//webhook/nobody", b"{}")), (401, 404));
    assert_eq!(server.metric(r#"http_requests_total{path="/webhook",status="200"}"#), Some(4.0));
    // A proxy's rule about /messages must not be bypassed by an additional slash.
    for target in ["//messages", "//stats", "//metrics", "//docs", "//messages/m0", "/webhook//", "/x//webhook"] {
        assert_eq!(ask("GET", target, b""), 404, "{target}");
    }
}
