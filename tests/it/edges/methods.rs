//! HEAD and OPTIONS, which proxies, balancers and registrations of senders use.

use super::{Raw, post_with, statuses};
use crate::harness::server::Setup;
use crate::harness::{Reply, Server, body, message};

const READ_PATHS: &[&str] = &[
    "/",
    "/messages",
    "/messages?limit=2&q=hello",
    "/messages/m1",
    "/messages/m1/statuses",
    "/messages/unknown",
    "/messages?limit=x",
    "/events",
    "/stats",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/docs.css",
    "/docs/docs.js",
    "/docs/swagger-ui.css",
    "/docs/swagger-ui-bundle.js",
    "/docs/favicon-32x32.png",
];

fn with_meta(setup: Setup) -> Setup {
    setup.env("WHATSAPP_APP_SECRET", "app secret").env("WHATSAPP_VERIFY_TOKEN", "verify")
}

/// The response to HEAD on a persistent connection: any bytes after it would be taken for the next response.
fn head(server: &Server, target: &str, headers: &[(&str, &str)]) -> Reply {
    let mut client = server.client();
    client.send("HEAD", target, headers, b"").expect("it is sent");
    let reply = client.receive_head().expect("a response");
    assert_eq!(client.get("/health/live").text(), r#"{"status":"ok"}"#, "HEAD {target} has no body");
    reply
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let server = Server::start();
    server.store(&message("m1"));
    // Headers that differ between any two responses.
    let own = ["x-request-id", "date"];
    for target in READ_PATHS {
        let (get, head) = (server.get(target), head(&server, target, &[]));
        assert_eq!(head.status, get.status, "{target}");
        let fields = |reply: &Reply| -> Vec<(String, String)> {
            // The numbers of /metrics grow from one request to the next, and so does its length.
            let left_out = |name: &str| own.contains(&name) || (*target == "/metrics" && name == "content-length");
            reply.headers.iter().filter(|(name, _)| !left_out(name)).cloned().collect()
        };
        assert_eq!(fields(&head), fields(&get), "{target}");
    }
}

#[test]
fn head_at_a_source_is_200_without_a_body_and_stores_nothing() {
    let server = with_meta(Setup::new()).start();
    for target in ["/webhook", "/webhook/", "/webhook/whatsapp", "/webhook/whatsapp/"] {
        let reply = head(&server, target, &[]);
        assert_eq!((reply.status, reply.header("content-length").unwrap_or("0")), (200, "0"), "{target}");
    }
    assert_eq!(head(&server, "/webhook/nope", &[]).status, 404);
    assert_eq!(server.get("/webhook").status, 405, "a GET without a handshake is refused");
    assert_eq!(server.get("/webhook/whatsapp").status, 403, "and so is one with a wrong one");
    assert_eq!(server.rows(), 0);
}

#[test]
fn head_needs_what_get_needs() {
    let server = Setup::new().env("API_TOKEN", "readers").start();
    server.store(&message("m1"));
    let guarded = [
        ("/messages", 200),
        ("/messages/m1", 200),
        ("/messages/m1/statuses", 404),
        ("/events", 200),
        ("/stats", 200),
        ("/metrics", 200),
    ];
    for (target, with_token) in guarded {
        for (headers, expected) in [
            (&[][..], 401),
            (&[("Authorization", "Bearer no")], 401),
            (&[("Authorization", "Bearer readers")], with_token),
        ] {
            assert_eq!(head(&server, target, headers).status, expected, "HEAD {target} {headers:?}");
        }
    }
    for open in ["/", "/docs", "/openapi.json", "/health/live", "/health/ready"] {
        assert_eq!(head(&server, open, &[]).status, 200, "{open}");
    }
    let limited = Setup::new().env("POSTROOM_SERVER_READS_PER_MINUTE", 1).start();
    assert_eq!(head(&limited, "/messages", &[]).status, 200);
    assert_eq!(head(&limited, "/messages", &[]).status, 429, "HEAD counts as a read");
}

#[test]
fn options_says_what_a_path_takes_and_so_does_405() {
    let server = with_meta(Setup::new()).env("API_TOKEN", "readers").start();
    let ask = |method: &str, target: &str| server.client().request(method, target, &[], b"").expect("a response");
    let reads = READ_PATHS.iter().map(|target| (*target, "GET, HEAD, OPTIONS"));
    let sources = [
        ("/webhook", "POST, HEAD, OPTIONS"),
        ("/webhook/", "POST, HEAD, OPTIONS"),
        ("/webhook/whatsapp", "GET, POST, HEAD, OPTIONS"),
    ];
    for (target, allowed) in reads.chain(sources) {
        let reply = ask("OPTIONS", target);
        assert_eq!((reply.status, reply.header("allow")), (204, Some(allowed)), "OPTIONS {target}");
        assert_eq!((reply.header("content-length"), reply.body.len()), (None, 0), "a 204 has no body");
        let reply = ask("DELETE", target);
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)), "DELETE {target}");
    }
    for unknown in ["/nothing", "/webhook/nope", "/health"] {
        assert_eq!(ask("OPTIONS", unknown).status, 404, "{unknown}");
    }
    // Apache's balancer sends no path.
    assert_eq!(ask("OPTIONS", "*").status, 204);
    assert_eq!(ask("GET", "*").status, 404);
}

#[test]
fn the_check_that_haproxy_makes_by_default_is_answered_in_http_1_0() {
    let server = Server::start();
    for request in ["OPTIONS / HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.0\r\n\r\n"] {
        let response = Raw::sending(&server, request.as_bytes()).read_to_close();
        let expected = if request.starts_with("HEAD") { 200 } else { 204 };
        assert_eq!(statuses(&response), [expected], "{request:?}: {response}");
        assert!(response.ends_with("\r\n\r\n"), "no body: {response}");
    }
}

#[test]
fn encodings_that_change_nothing_are_no_encoding() {
    let server = Server::start();
    let bytes = body(&message("plain"));
    let length = format!("Content-Length: {}", bytes.len());
    let post = |encoding: &str| {
        let line = format!("Content-Encoding:{encoding}");
        statuses(&Raw::sending(&server, &post_with(&[&line, &length], &bytes, &bytes)).read_until("}"))
    };
    for nothing in ["", " ", " identity", " utf-8", " UTF-8", " utf8", " none", " None", " identity, utf-8", " ,"] {
        assert_eq!(post(nothing), [200], "{nothing:?}");
    }
    for something in
        [" gzip", " br", " deflate", " identity, gzip", " gzip, identity", " utf-16", " nonesuch", " \u{e9}"]
    {
        assert_eq!(post(something), [415], "{something:?}");
    }
    assert_eq!(server.rows(), 1);
}
