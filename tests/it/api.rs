//! The HTTP surface as a whole: paths and methods, tokens, and responses that match the OpenAPI document.

pub mod random;

use std::collections::BTreeSet;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};

use self::random::{any_body, any_query, runner};
use crate::harness::{Client, Reply, Server, Setup, assert_snapshot, body, message, sign, wait_until};

const READ_PATHS: [&str; 8] =
    ["/", "/messages", "/stats", "/metrics", "/health/live", "/health/ready", "/openapi.json", "/docs"];

fn said(reply: &Reply) -> (u16, String) {
    (reply.status, reply.text())
}

fn detail(status: u16, text: &str) -> (u16, String) {
    (status, format!(r#"{{"detail":"{text}"}}"#))
}

#[test]
fn paths_that_do_not_exist_are_404() {
    let server = Server::start();
    let none = [
        "/nowhere",
        "/webhook/x",
        "/webhook//",
        "//messages",
        "//health/live",
        "/Messages",
        "/messages.json",
        "/health",
        "/health/",
        "/stats%2F",
        "/webhook;x",
        "/%77ebhook/",
        "/docs/docs.txt",
        "/openapi",
        "/../stats",
        "*",
    ];
    for path in none {
        for method in ["GET", "POST"] {
            let reply = server.client().request(method, path, &[], b"").unwrap();
            assert_eq!(said(&reply), detail(404, "Not Found"), "{method} {path}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
    }
}

#[test]
fn other_methods_are_405_and_told_the_right_one() {
    let server = Server::start();
    let reading = READ_PATHS.into_iter().flat_map(|path| [(path, "POST"), (path, "PUT"), (path, "DELETE")]);
    let posting = ["GET", "PUT", "PATCH", "DELETE", "BREW"].map(|method| ("/webhook", method));
    for (path, method) in reading.chain(posting) {
        let reply = server.client().request(method, path, &[], b"").unwrap();
        assert_eq!(said(&reply), detail(405, "Method Not Allowed"), "{method} {path}");
        let allowed = if path == "/webhook" { "POST, HEAD, OPTIONS" } else { "GET, HEAD, OPTIONS" };
        assert_eq!(reply.header("allow"), Some(allowed), "{path}");
    }
    for path in READ_PATHS.into_iter().chain(["/webhook"]) {
        let mut client = server.client();
        client
            .send_raw(
                format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                    .as_bytes(),
            )
            .unwrap();
        let head = client.receive_head().unwrap();
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(client.receive().unwrap().text(), r#"{"status":"ok"}"#, "an answer to HEAD has no body");
    }
}

#[test]
fn one_trailing_slash_is_as_good_as_none() {
    let server = Server::start();
    let body = body(&message("m1"));
    let reply = server.client().request("POST", "/webhook/", &[("X-Signature", &sign(&body))], &body).unwrap();
    assert_eq!(said(&reply), (200, r#"{"status":"ok"}"#.to_owned()));
    // The links of /docs are relative, so they differ; `docs.rs` follows them.
    for path in READ_PATHS.into_iter().filter(|path| !["/", "/metrics", "/docs"].contains(path)) {
        assert_eq!(said(&server.get(&format!("{path}/"))), said(&server.get(path)), "{path}");
    }
    assert_eq!(server.get("/messages/?limit=1").json()["total"], 1);
    assert_eq!(server.get("/metrics/").status, 200);
}

#[test]
fn of_several_faults_the_first_in_the_order_of_the_contract_is_told() {
    let server = Setup::new().env("MAX_BODY_BYTES", 10).start();
    let (encoded, long): ((&str, &str), &[u8]) = (("Content-Encoding", "gzip"), b"longer than ten bytes");
    let signed = sign(b"{nope");
    let (identity, signature) = (("Content-Encoding", "identity"), ("X-Signature", signed.as_str()));
    let cases = [
        ("PUT", "/nowhere", encoded, long, 404),
        ("PUT", "/webhook", encoded, long, 405),
        ("POST", "/webhook", encoded, long, 415),
        ("POST", "/webhook", identity, long, 413),
        ("POST", "/webhook", identity, b"{nope", 401),
        ("POST", "/webhook", signature, b"{nope", 422),
    ];
    for (method, path, header, body, status) in cases {
        let reply = server.client().request(method, path, &[header], body).unwrap();
        assert_eq!(reply.status, status, "{method} {path}");
    }
}

#[test]
fn with_tokens_reading_wants_one_of_them() {
    let server = Setup::new().env("API_TOKEN", "first-token, second/token=").start();
    let ask = |path: &str, authorization: Option<&str>| {
        let headers: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
        server.client().request("GET", path, &headers, b"").unwrap()
    };
    server.store(&message("m1"));
    let wrong = [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer first-toke"),
        Some("Bearer first-token2"),
        Some("first-token"),
        Some("Bearer first-token, second/token="),
        Some("Basic first-token"),
        Some("Bearer FIRST-TOKEN"),
        Some("Bearer ÿ"),
    ];
    for path in ["/messages", "/stats", "/metrics", "/messages?limit=0", "/messages/"] {
        for authorization in wrong {
            let reply = ask(path, authorization);
            assert_eq!(said(&reply), detail(401, "Not authenticated"), "{path} {authorization:?}");
            assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
    }
    for authorization in ["Bearer first-token", "bearer first-token", "Bearer second/token="] {
        for path in ["/messages", "/stats", "/metrics"] {
            assert_eq!(ask(path, Some(authorization)).status, 200, "{path} {authorization}");
        }
    }
    for open in ["/", "/docs", "/openapi.json", "/health/live", "/health/ready"] {
        assert_eq!(ask(open, None).status, 200, "{open}");
    }
    let body = body(&message("m2"));
    let reply = server.client().request("POST", "/webhook", &[("Authorization", "Bearer first-token")], &body).unwrap();
    assert_eq!(said(&reply), detail(401, "invalid signature"), "a token opens no source");
    assert_eq!(
        server.client().request("POST", "/stats", &[], b"").unwrap().status,
        405,
        "the method is looked at first"
    );
}

#[test]
fn metrics_may_be_public_while_reading_is_not() {
    for (public, status) in [("true", 200), ("TRUE", 200), ("false", 401)] {
        let server = Setup::new().env("API_TOKEN", "token").env("POSTROOM_METRICS_PUBLIC", public).start();
        assert_eq!((server.get("/metrics").status, server.get("/messages").status), (status, 401), "{public}");
    }
    assert_eq!(Server::start().get("/metrics").status, 200, "without tokens everything is open");
}

#[test]
fn the_document_is_that_of_the_repository_and_is_served_as_it_is() {
    let document = server::http::openapi::document();
    assert_snapshot("docs/openapi.json", &document);
    let reply = Server::start().get("/openapi.json");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.text(), document);
}

/// The OpenAPI document, for the validation of responses.
struct Document(Value);

impl Document {
    fn new() -> Self {
        Self(serde_json::from_str(&server::http::openapi::document()).expect("the document is JSON"))
    }

    /// A validator of a schema of this document. With `closed`, an object may only have the described properties.
    fn validator(&self, schema: &Value, closed: bool) -> Validator {
        let mut components = self.0["components"].clone();
        if closed {
            for (_, schema) in components["schemas"].as_object_mut().unwrap() {
                if schema["properties"].is_object() {
                    schema["additionalProperties"] = json!(false);
                }
            }
        }
        let mut schema = schema.clone();
        schema["components"] = components;
        jsonschema::draft202012::new(&schema).expect("the schema is one")
    }

    /// Asserts that a response has a documented status, media type and schema.
    fn assert_describes(&self, method: &str, path: &str, reply: &Reply) {
        let answer = &self.0["paths"][path][method.to_ascii_lowercase()]["responses"][reply.status.to_string()];
        assert!(answer.is_object(), "{method} {path} answers {}, which is not documented", reply.status);
        let media_type = reply.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default();
        let schema = &answer["content"][media_type]["schema"];
        assert!(schema.is_object(), "{method} {path} {} answers {media_type:?}", reply.status);
        let value = if media_type == "application/json" { reply.json() } else { json!(reply.text()) };
        let errors: Vec<String> =
            self.validator(schema, true).iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{method} {path} {}: {errors:?} in {value}", reply.status);
    }
}

#[test]
fn every_documented_operation_answers_as_documented() {
    let document = Document::new();
    let open = Server::start();
    open.store(&message("m1"));
    let guarded = Setup::new().env("API_TOKEN", "token").start();
    let paths = document.0["paths"].as_object().unwrap();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>().len(), READ_PATHS.len() + 6);
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()) {
            for server in [&open, &guarded] {
                let reply = server.client().request(&method, path, &[], b"").unwrap();
                document.assert_describes(&method, path, &reply);
            }
        }
    }
    open.stored().execute("DROP TABLE messages");
    for path in ["/messages", "/stats", "/health/ready"] {
        document.assert_describes("GET", path, &wait_until("it fails", || Some(open.get(path))));
    }
    document.assert_describes("POST", "/webhook", &open.post(&body(&message("m2"))));
}

#[test]
fn whatever_is_posted_is_answered_as_documented_and_what_the_schema_refuses_is_refused() {
    let (document, server) = (Document::new(), Server::start());
    let schema = document.validator(&json!({"$ref": "#/components/schemas/NewMessage"}), false);
    let mut client: Client = server.client();
    let mut seen = BTreeSet::new();
    let signature = prop_oneof![9 => Just(None), 1 => "[0-9a-f]{64}|[0-9a-zA-Z=]{0,70}".prop_map(Some)];
    let requests = (any_body(), signature);
    let mut tree_runner = runner(500);
    for _ in 0..500 {
        let (body, signature) = requests.new_tree(&mut tree_runner).expect("a request").current();
        let signed = signature.is_none();
        let signature = signature.unwrap_or_else(|| sign(&body));
        let reply = client.request("POST", "/webhook", &[("X-Signature", &signature)], &body).expect("an answer");
        document.assert_describes("POST", "/webhook", &reply);
        let conforms = serde_json::from_slice(&body).is_ok_and(|value: Value| schema.is_valid(&value));
        let expected: &[u16] = if !signed {
            &[401]
        } else if conforms {
            &[200, 422]
        } else {
            &[422]
        };
        assert!(expected.contains(&reply.status), "{}: {}", reply.status, String::from_utf8_lossy(&body));
        seen.insert((reply.status, conforms));
    }
    let all = [(200, true), (401, false), (401, true), (422, false), (422, true)];
    assert_eq!(seen, all.into(), "the generator reaches every kind of answer, and nothing fails");
    document.assert_describes("GET", "/messages", &server.get("/messages?limit=100"));
    assert_eq!(server.get("/messages").json()["total"], json!(server.rows()));
}

#[test]
fn whatever_is_asked_is_answered_as_documented() {
    let (document, server) = (Document::new(), Server::start());
    for number in 0..30 {
        let mut message = message(&format!("m{number}"));
        (message["from"], message["text"]) =
            (json!(format!("+{}", number % 12)), json!(["a é %", "B_", "null"].get(number % 4)));
        server.store(&message);
    }
    let mut client = server.client();
    let mut seen = BTreeSet::new();
    let (queries, mut tree_runner) = (any_query(), runner(500));
    for _ in 0..500 {
        let query = queries.new_tree(&mut tree_runner).expect("a query").current();
        let reply = client.get(&format!("/messages?{query}"));
        document.assert_describes("GET", "/messages", &reply);
        seen.insert(reply.status);
        if reply.status == 200 {
            let page = reply.json();
            let (rows, total) = (page["data"].as_array().unwrap().len() as u64, page["total"].as_u64().unwrap());
            let (limit, offset) = (page["limit"].as_u64().unwrap(), page["offset"].as_u64().unwrap());
            assert_eq!(rows, total.saturating_sub(offset).min(limit), "{query}: {page}");
        }
        document.assert_describes("GET", "/stats", &client.get(&format!("/stats?{query}")));
    }
    assert_eq!(seen, [200, 422].into());
}
