//! The log: JSON lines on stdout, one per request, without any confidential data.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::harness::{Client, Running, SECRET, Server, Setup, body, message, sign, wait_until};

/// The names of a line's fields, in order.
fn names(line: &Value) -> Vec<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The lines about requests.
fn requests(lines: Vec<Value>) -> Vec<Value> {
    lines.into_iter().filter(|line| line["method"].is_string()).collect()
}

/// Sends a request with a given request id and returns its log line.
fn line_of(server: &Server, id: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
    let headers = [headers, &[("X-Request-ID", id)]].concat();
    let reply = server.client().request(method, target, &headers, body).expect("an answer");
    assert_eq!(reply.header("x-request-id"), Some(id));
    server.wait_for_line(|line| line["request_id"] == id)
}

const COMMON: [&str; 8] = ["ts", "level", "message", "request_id", "method", "path", "status", "latency_ms"];

#[test]
fn a_stored_message_leaves_the_line_of_the_contract() {
    let server = Server::start();
    let body = body(&message("m1"));
    let signature = sign(&body);
    for (id, dup, result) in [("first", false, "created"), ("second", true, "duplicate")] {
        let line = line_of(&server, id, "POST", "/webhook?x=y", &[("X-Signature", &signature)], &body);
        assert_eq!(names(&line), [&COMMON[..], &["message_id", "dup", "result"]].concat());
        let told =
            ["level", "message", "method", "path", "status", "message_id", "dup", "result"].map(|name| &line[name]);
        let expected = json!(["INFO", "POST /webhook 200", "POST", "/webhook", 200, "m1", dup, result]);
        assert_eq!(json!(told), expected);
        let ts = line["ts"].as_str().unwrap();
        let form: String =
            ts.chars().map(|character| if character.is_ascii_digit() { '9' } else { character }).collect();
        assert_eq!(form, "9999-99-99T99:99:99.999Z", "{ts}");
        assert!(line["latency_ms"].as_f64().is_some_and(|latency| latency >= 0.0));
    }
}

#[test]
fn every_request_leaves_one_line_and_refusals_at_the_source_say_why() {
    let server = Server::start();
    let bad_field = r#"{"message_id":"m2","from":"x","to":"+1","ts":"2025-01-15T10:00:00Z"}"#;
    let (nope, field) = (sign(b"{nope"), sign(bad_field.as_bytes()));
    // Method, target, signature, body; then level, status, result, message id.
    let cases = [
        ("POST", "/webhook", "", "{}", "ERROR", 401, json!("invalid_signature"), json!(null)),
        ("POST", "/webhook", "123", "{}", "ERROR", 401, json!("invalid_signature"), json!(null)),
        ("POST", "/webhook", &nope, "{nope", "WARNING", 422, json!("validation_error"), json!(null)),
        ("POST", "/webhook", &field, bad_field, "WARNING", 422, json!("validation_error"), json!("m2")),
        ("GET", "/webhook", "", "", "WARNING", 405, json!(null), json!(null)),
        ("GET", "/messages?q=secret+words", "", "", "INFO", 200, json!(null), json!(null)),
        ("GET", "/messages?limit=0", "", "", "WARNING", 422, json!(null), json!(null)),
        ("GET", "/stats/", "", "", "INFO", 200, json!(null), json!(null)),
        ("GET", "/health/live", "", "", "INFO", 200, json!(null), json!(null)),
        ("GET", "/nowhere", "", "", "WARNING", 404, json!(null), json!(null)),
        ("BREW", "/metrics", "", "", "WARNING", 405, json!(null), json!(null)),
    ];
    for (at, (method, target, signature, body, level, status, result, message_id)) in cases.iter().enumerate() {
        let headers: Vec<_> =
            Some(("X-Signature", *signature)).filter(|(_, value)| !value.is_empty()).into_iter().collect();
        let line = line_of(&server, &format!("case-{at}"), method, target, &headers, body.as_bytes());
        let path = target.split('?').next().unwrap();
        let told = ["level", "message", "method", "path", "status", "result", "message_id"].map(|name| &line[name]);
        assert_eq!(
            json!(told),
            json!([level, format!("{method} {path} {status}"), method, path, status, result, message_id])
        );
        assert_eq!(names(&line)[..8], COMMON);
        assert_eq!(line["dup"], if path == "/webhook" { json!(false) } else { json!(null) });
    }
    let (status, lines, stderr) = server.stop();
    assert!(status.success());
    assert_eq!(stderr, "");
    assert_eq!(requests(lines).len(), cases.len());
}

#[test]
fn a_copy_with_other_content_is_marked_as_a_conflict() {
    let server = Server::start();
    server.store(&message("m1"));
    let mut other = message("m1");
    other["text"] = json!("something else");
    let body = body(&other);
    let line = line_of(&server, "copy", "POST", "/webhook", &[("X-Signature", &sign(&body))], &body);
    assert_eq!(json!([line["dup"], line["result"], line["conflict"]]), json!([true, "duplicate", true]));
}

#[test]
fn a_sane_request_id_is_kept_and_every_other_request_gets_a_unique_one() {
    let server = Server::start();
    let answered = |headers: &[u8]| {
        let mut client = server.client();
        client.send_raw(&[b"GET /nowhere HTTP/1.1\r\nHost: a\r\n", headers, b"\r\n"].concat()).unwrap();
        client.receive().unwrap().header("x-request-id").expect("every answer has one").to_owned()
    };
    let longest = "a".repeat(128);
    for sane in ["1", "550e8400-e29b-41d4-a716-446655440000", "req_1.2:3/4+5=6@7", &longest] {
        assert_eq!(answered(format!("X-Request-ID: {sane}\r\n").as_bytes()), sane);
    }
    let odd: [Vec<u8>; 9] = [
        vec![],
        b"X-Request-ID:\r\n".into(),
        b"X-Request-ID: a b\r\n".into(),
        b"X-Request-ID: a\"b\r\n".into(),
        b"X-Request-ID: a\\nb\r\n".into(),
        b"X-Request-ID: \xff\xfe\r\n".into(),
        b"X-Request-ID: <script>\r\n".into(),
        b"X-Request-ID: {}\r\n".into(),
        format!("X-Request-ID: {longest}a\r\n").into(),
    ];
    let mut made: Vec<String> = odd.iter().map(|headers| answered(headers)).collect();
    for id in &made {
        assert!(id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{id}");
        server.wait_for_line(|line| line["request_id"] == id.as_str());
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), odd.len(), "each is unique");
}

/// Asserts that bytes get this status with a request id, and that the log line has the same id.
fn assert_told_under_an_id(server: &Server, bytes: &[u8], status: u16) {
    let mut client = server.client();
    client.send_raw(bytes).unwrap();
    let reply = client.receive().unwrap();
    assert_eq!(reply.status, status);
    let id = reply.header("x-request-id").unwrap_or_else(|| panic!("the answer {status} has no X-Request-ID"));
    let line = server.wait_for_line(|line| line["request_id"] == id);
    assert_eq!((&line["status"], &line["level"]), (&json!(status), &json!("WARNING")));
}

#[test]
fn a_request_with_a_bad_head_is_answered_and_logged_under_an_id() {
    let server = Server::start();
    assert_told_under_an_id(&server, b"GET / HTTP/1.1\r\n\r\n", 400);
    let twice = b"POST /webhook HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    assert_told_under_an_id(&server, twice, 400);
}

#[test]
fn what_is_no_request_at_all_is_answered_and_logged_under_an_id_too() {
    let server = Server::start();
    assert_told_under_an_id(&server, b"GARBAGE\r\n\r\n", 400);
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_told_under_an_id(&server, large.as_bytes(), 431);
}

#[test]
fn nothing_confided_is_in_any_line() {
    let setup = Setup::new()
        .env("LOG_LEVEL", "DEBUG")
        .env("API_TOKEN", "token-of-the-reader")
        .env("POSTROOM_API_OPERATOR_TOKEN", "token-of-the-operator")
        .env("POSTROOM_API_ADMIN_TOKEN", "token-of-the-administrator");
    let server = setup.start();
    let mut secretive = message("m1");
    secretive["text"] = json!("the text of the message");
    let body = body(&secretive);
    let right = sign(&body);
    server.post(&body);
    server.post(&[&body[..], b"}"].concat());
    let mut long = secretive.clone();
    long["text"] = json!("the text of the message".repeat(1000));
    long["ts"] = json!("the text of the message");
    server.post(long.to_string().as_bytes());
    let wrong = format!("{}0", &right[..63]);
    server.client().request("POST", "/webhook", &[("X-Signature", &wrong)], &body).unwrap();
    let query = "/messages?q=the+text+of+the+message";
    for token in ["Bearer token-of-the-reader", "Bearer wrong-token"] {
        server.client().request("GET", query, &[("Authorization", token)], b"").unwrap();
    }
    for token in ["token-of-the-operator", "token-of-the-administrator", "wrong-token"] {
        server.client().request("GET", query, &[("X-Postroom-Token", token)], b"").unwrap();
    }
    let (_, lines, stderr) = server.stop();
    assert_eq!((requests(lines.clone()).len(), stderr.as_str()), (9, ""));
    for line in lines {
        let line = line.to_string();
        for confided in [SECRET, &right[..16], "the text", "the+text", "token-of-the", "wrong-token"] {
            assert!(!line.contains(confided), "{confided} is in {line}");
        }
    }
}

#[test]
fn what_clients_send_cannot_forge_a_line_or_a_field() {
    let server = Server::start();
    let forged = "m\",\"dup\":true}\n{\"level\":\"CRITICAL\",\"message\":\"forged\u{1}\u{2028}\\";
    server.store(&message(forged));
    for target in ["/a\",\"status\":200,\"x\":\"", "/%0a{\"level\":\"CRITICAL\"}", "/\\u0022", "/{}"] {
        let mut client = server.client();
        client.send_raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        client.receive().expect("an answer");
    }
    let (_, lines, _) = server.stop();
    assert!(lines.iter().all(|line| line["level"] != "CRITICAL" && line["message"] != "forged"));
    let stored = lines.iter().find(|line| line["result"] == "created").unwrap();
    assert_eq!(json!([stored["message_id"], stored["dup"]]), json!([forged, false]));
    assert!(lines.iter().filter(|line| line["method"] == "GET").all(|line| line["status"] == 404));
}

/// All characters that a terminal, an editor or a log viewer interprets,
/// or shows as nothing: both sets of control characters, Unicode line
/// separators, directional marks, and zero-width characters.
fn unprintable() -> impl Iterator<Item = char> {
    let ranges = [
        ('\u{1}', '\u{1f}'),
        ('\u{7f}', '\u{9f}'),
        ('\u{ad}', '\u{ad}'),
        ('\u{34f}', '\u{34f}'),
        ('\u{61c}', '\u{61c}'),
        ('\u{180b}', '\u{180f}'),
        ('\u{200b}', '\u{200f}'),
        ('\u{2028}', '\u{202e}'),
        ('\u{2060}', '\u{206f}'),
        ('\u{feff}', '\u{feff}'),
        ('\u{fff9}', '\u{fffb}'),
        ('\u{1d173}', '\u{1d17a}'),
        ('\u{e0001}', '\u{e007f}'),
    ];
    ranges.into_iter().flat_map(|(first, last)| first..=last)
}

#[test]
fn no_client_writes_a_control_into_the_log() {
    let server = Server::start();
    let all: String = unprintable().collect();
    // In the path of an unsigned request; hyper accepts no ASCII control characters there.
    let odd: String = unprintable().filter(|character| !character.is_ascii()).collect();
    let printable = "/é😀👨‍👩‍👧 مرحبا";
    for path in [format!("/{odd}"), format!("/webhook/{odd}"), format!("/messages/{odd}"), printable.replace(' ', "")] {
        let mut client = server.client();
        client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        client.receive().expect("an answer");
        let line = server.wait_for_line(|line| line["path"] == path.as_str());
        assert!(line["message"].as_str().unwrap().contains(&path), "escaped, and the same text: {line}");
    }
    // In a field of a signed message.
    server.store(&message(&format!("id {all}")));
    server.wait_for_line(|line| line["message_id"] == format!("id {all}").as_str());
    for line in server.raw_lines() {
        let bare: Vec<char> = line.chars().filter(|character| unprintable().any(|odd| odd == *character)).collect();
        assert!(bare.is_empty(), "{bare:?} in {line:?}");
    }
}

#[test]
fn no_client_writes_a_control_into_the_quarantine() {
    let setup = Setup::new();
    let folder = setup.path().join("quarantine");
    std::fs::create_dir(&folder).unwrap();
    let server = setup.env("POSTROOM_QUARANTINE_FOLDER", folder.display()).start();
    let odd: String = unprintable().filter(|character| !character.is_ascii()).collect();
    let request = format!("POST /webhook?{odd} HTTP/1.1\r\nHost: a\r\nX-Odd: a{odd}b\r\nContent-Length: 2\r\n\r\n{{}}");
    let mut client = server.client();
    client.send_raw(request.as_bytes()).unwrap();
    assert_eq!(client.receive().expect("an answer").status, 401);
    let text = wait_until("the request is kept", || {
        std::fs::read_to_string(folder.join("00000.json")).ok().filter(|text| text.ends_with('}'))
    });
    assert!(!text.contains(|character| unprintable().any(|hidden| hidden == character)), "{text:?}");
    let kept: Value = serde_json::from_str(&text).expect("it is still JSON");
    assert_eq!(kept["target"], format!("/webhook?{odd}"));
    assert_eq!(kept["headers"]["x-odd"], format!("a{odd}b"));
    let (_, stdout, _) = Setup::in_folder(server.folder())
        .env("POSTROOM_QUARANTINE_FOLDER", folder.display())
        .arg("verify")
        .arg("--quarantine")
        .run();
    assert!(stdout.contains("missing_header"), "{stdout}");
    assert!(
        !stdout.replace('\n', "").contains(|character| unprintable().any(|hidden| hidden == character)),
        "{stdout:?}"
    );
}

#[test]
fn what_is_long_is_cut_once() {
    let server = Server::start();
    let long = format!("/{}é", "x".repeat(15_000));
    let line = line_of(&server, "long-path", "GET", &long, &[], b"");
    let shown = line["path"].as_str().unwrap();
    assert!(long.starts_with(&shown[..1_024]) && shown.len() < 1_100, "{shown}");
    assert!(shown[1_024..].contains("15003 bytes"), "it says what is missing: {shown}");
    assert_eq!(line["message"], format!("GET {shown} 404"), "cut in the same way, with the status behind it");
    let method = "M".repeat(10_000);
    let line = line_of(&server, "long-method", &method, "/", &[], b"");
    assert!(line["method"].as_str().unwrap().len() < 1_100 && line["status"] == 405, "{line}");
    assert!(line["message"].as_str().unwrap().ends_with(" / 405"), "{line}");
    // Complete up to the limit, and never cut within a character.
    for (path, cut) in [(format!("/{}", "x".repeat(1_023)), false), (format!("/{}", "é".repeat(600)), true)] {
        let line = line_of(&server, &format!("path-{cut}"), "GET", &path, &[], b"");
        assert_eq!(line["path"] == path.as_str(), !cut, "{line}");
    }
    let id = "i".repeat(1_024);
    server.store(&message(&id));
    server.wait_for_line(|line| line["message_id"] == id.as_str());
    let longest = server.raw_lines().iter().map(String::len).max().unwrap();
    assert!(longest < 4_000, "{longest}");
}

#[test]
fn the_latency_is_a_float_in_every_line() {
    let server = Server::start();
    server.get("/health/live");
    assert_told_under_an_id(&server, b"GARBAGE\r\n\r\n", 400);
    server.wait_for_line(|line| line["status"] == 200);
    let lines: Vec<String> = server.raw_lines().into_iter().filter(|line| line.contains("\"status\"")).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let latency = line.split("\"latency_ms\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        assert!(latency.contains('.') && latency.parse::<f64>().is_ok(), "{latency}");
    }
}

/// A running program whose stdout the test reads only up to the address.
struct Unread {
    program: Running,
    stdout: Option<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Unread {
    fn start(setup: &Setup) -> Self {
        let mut command = setup.command();
        let mut program = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stdout = BufReader::new(program.stdout());
        let address = stdout.by_ref().lines().find_map(|line| {
            let line: Value = serde_json::from_str(&line.expect("a line")).expect("a line is JSON");
            line["address"].as_str()?.parse().ok()
        });
        let address = address.expect("it tells its address");
        Self { program, stdout: Some(stdout), address }
    }

    /// Produces more lines than the pipe and the program's buffer can hold.
    fn flood(&self) {
        let mut client = Client::connect(self.address);
        let target = format!("/{}", "x".repeat(1_000));
        for _ in 0..4_000 {
            assert_eq!(client.get(&target).status, 404);
        }
    }

    fn dropped(&self) -> f64 {
        let text = Client::connect(self.address).get("/metrics").text();
        let line =
            text.lines().find_map(|line| line.strip_prefix("postroom_log_dropped_total ")).expect("it is counted");
        line.parse().expect("a number")
    }

    /// Stores a message, stops the program and returns its stderr.
    fn finish(mut self) -> String {
        let reply = Client::connect(self.address).post(&body(&message("m1")));
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"status":"ok"}"#));
        let status = self.program.stop();
        assert!(status.success(), "{status}");
        std::io::read_to_string(self.program.stderr()).expect("stderr is text")
    }
}

#[test]
fn a_stdout_that_nobody_reads_drops_lines_and_stops_nothing_else() {
    let setup = Setup::new();
    let server = Unread::start(&setup);
    assert_eq!(server.dropped(), 0.0);
    server.flood();
    assert!(server.dropped() > 0.0);
    assert!(server.stdout.is_some(), "it is open, and full");
    assert_eq!(server.finish(), "");
}

#[test]
fn a_stdout_that_was_closed_drops_lines_and_stops_nothing_else() {
    let setup = Setup::new();
    let mut server = Unread::start(&setup);
    // The reader closes, like a log shipper that ends; further writes of the program fail.
    drop(server.stdout.take());
    wait_until("lines are dropped", || (server.dropped() > 0.0).then_some(()));
    server.flood();
    assert_eq!(server.finish(), "");
}

#[test]
fn a_client_that_does_not_wait_for_its_answer_leaves_a_line_too() {
    let server = Server::start();
    let other = server.stored().lock();
    let bytes = body(&message("m1"));
    let mut client = server.client();
    client.send("POST", "/webhook", &[("X-Signature", &sign(&bytes))], &bytes).unwrap();
    // Answered after the whole first request was read, on the single thread of all connections.
    assert_eq!(server.get("/health/live").status, 200);
    // The writer has the message, and waits for the other program's lock.
    drop(client);
    let line = server.wait_for_line(|line| line["status"] == 499);
    assert_eq!((&line["message_id"], &line["reason"]), (&json!("m1"), &json!("unanswered")));
    assert_eq!(server.metric("postroom_refused_total{reason=\"unanswered\"}"), Some(1.0));
    other.release();
    wait_until("it is stored all the same", || (server.get("/stats").json()["total_messages"] == 1).then_some(()));
}
