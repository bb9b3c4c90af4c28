//! Access control: who may read, how often and from where, and the CORS headers for browsers.

use sha2::{Digest, Sha256};

use crate::harness::{Client, Reply, Server, Setup, body, message, sign};

fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    server.client().request(method, path, headers, b"").unwrap()
}

#[test]
fn a_token_may_be_given_as_its_digest() {
    let digest: String = Sha256::digest("hidden-token").iter().map(|byte| format!("{byte:02x}")).collect();
    let server = Setup::new().env("API_TOKEN", format!("plain-token,sha256:{digest}")).start();
    let status =
        |token: &str| ask(&server, "GET", "/messages", &[("Authorization", &format!("Bearer {token}"))]).status;
    assert_eq!((status("plain-token"), status("hidden-token")), (200, 200));
    assert_eq!(status(&format!("sha256:{digest}")), 401, "the digest is no token");
    for path in [
        "/messages",
        "/messages/x",
        "/messages/x/statuses",
        "/events",
        "/events/1",
        "/stats",
        "/stats?by=status",
        "/metrics",
    ] {
        assert_eq!(ask(&server, "GET", path, &[]).status, 401, "{path}");
    }
    let none = ask(&server, "GET", "/messages", &[]);
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let wrong = ask(&server, "GET", "/messages", &[("Authorization", "Bearer x")]);
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    let (status, _, stderr) = Setup::new().env("API_TOKEN", "sha256:abc").run();
    assert!(!status.success() && stderr.contains("API_TOKEN"), "{stderr}");
}

#[test]
fn tokens_of_higher_scopes_read_too_and_either_header_is_taken() {
    let server = Setup::new()
        .env("API_TOKEN", "reader")
        .env("POSTROOM_API_OPERATOR_TOKEN", "first-operator, second-operator")
        .env("POSTROOM_API_ADMIN_TOKEN", "administrator")
        .start();
    for token in ["reader", "first-operator", "second-operator", "administrator"] {
        for header in [("Authorization", format!("Bearer {token}")), ("X-Postroom-Token", token.to_owned())] {
            for path in ["/messages", "/stats", "/metrics"] {
                let reply = ask(&server, "GET", path, &[(header.0, &header.1)]);
                assert_eq!(reply.status, 200, "{path} with {header:?}");
            }
        }
    }
    for wrong in ["nobody", "Bearer reader", "reader,administrator", "first-operator, second-operator"] {
        let reply = ask(&server, "GET", "/messages", &[("X-Postroom-Token", wrong)]);
        assert_eq!(reply.status, 401, "{wrong}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let password = ("Authorization", "Basic eDp5");
    let behind_a_proxy = |own| ask(&server, "GET", "/messages", &[password, ("X-Postroom-Token", own)]).status;
    assert_eq!((behind_a_proxy("reader"), behind_a_proxy("nobody")), (200, 401));
    let own = ("X-Postroom-Token", "nobody");
    let both = ask(&server, "GET", "/messages", &[own, ("Authorization", "Bearer reader")]);
    assert_eq!(both.status, 401, "the header of our own goes first");
    let bytes = body(&message("m1"));
    let post = server.client().request("POST", "/webhook", &[("X-Postroom-Token", "administrator")], &bytes).unwrap();
    assert_eq!(post.status, 401, "no token stores a message");
}

#[test]
fn only_tokens_for_reading_close_reading() {
    let server = Setup::new()
        .env("POSTROOM_API_OPERATOR_TOKEN", "operator")
        .env("POSTROOM_API_ADMIN_TOKEN", "administrator")
        .start();
    for headers in [&[][..], &[("X-Postroom-Token", "operator")], &[("X-Postroom-Token", "nobody")]] {
        for path in ["/messages", "/metrics"] {
            assert_eq!(ask(&server, "GET", path, headers).status, 200, "{path} with {headers:?}");
        }
    }
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("open to everyone")));
}

#[test]
fn the_start_warns_of_open_reading_and_says_that_web_pages_may_read_too() {
    let warned = |server: &Server| {
        let names =
            |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.contains("DNS rebinding"));
        server.lines().iter().any(|line| line["level"] == "WARNING" && names(line))
    };
    let open = Server::start();
    open.wait_for_line(|line| line["level"] == "WARNING");
    assert!(warned(&open));
    let guarded = Setup::new().env("API_TOKEN", "token").start();
    guarded.get("/health/live");
    guarded.wait_for_line(|line| line["path"] == "/health/live");
    assert!(!warned(&guarded), "{:?}", guarded.lines());
}

#[test]
fn reading_can_have_a_port_of_its_own() {
    let server = Setup::new().env("POSTROOM_SERVER_READ_PORT", 0).start();
    let line = server.wait_for_line(|line| line["read_address"].is_string());
    let address = line["read_address"].as_str().unwrap().parse().unwrap();
    server.store(&message("m1"));
    let at_sources = ["/", "/messages", "/messages/m1", "/events", "/stats", "/metrics", "/docs", "/openapi.json"];
    for path in at_sources {
        assert_eq!(server.get(path).status, 404, "{path} at the sources");
        assert_eq!(Client::connect(address).get(path).status, 200, "{path} at its own port");
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!((server.get(path).status, Client::connect(address).get(path).status), (200, 200), "{path}");
    }
    let body = body(&message("m2"));
    let post = Client::connect(address).request("POST", "/webhook", &[("X-Signature", &sign(&body))], &body).unwrap();
    assert_eq!(post.status, 404, "no source there");
    assert!(server.stop().0.success());
}

#[test]
fn other_origins_may_read_only_if_the_operator_says_so() {
    let closed = Server::start();
    let reply = ask(&closed, "GET", "/messages", &[("Origin", "https://app.example.com")]);
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
    let open =
        Setup::new().env("POSTROOM_SERVER_CORS_ORIGINS", "https://app.example.com, http://localhost:3000").start();
    let origin = ("Origin", "https://app.example.com");
    let reply = ask(&open, "GET", "/messages", &[origin]);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(reply.header("vary"), Some("origin"));
    assert_eq!(
        ask(&open, "GET", "/messages", &[("Origin", "https://evil.example")]).header("access-control-allow-origin"),
        None
    );
    let preflight =
        [origin, ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "authorization")];
    let reply = ask(&open, "OPTIONS", "/messages", &preflight);
    assert_eq!((reply.status, reply.header("access-control-allow-methods")), (204, Some("GET")));
    let headers = reply.header("access-control-allow-headers");
    assert_eq!(headers, Some("authorization, x-postroom-token, x-request-id"));
    let reply = ask(&open, "OPTIONS", "/webhook", &preflight);
    assert!(reply.status == 204 && reply.header("access-control-allow-methods").is_none(), "never at the sources");
    let reply = ask(&open, "OPTIONS", "/messages", &[]);
    assert!(reply.status == 204 && reply.header("access-control-allow-methods").is_none(), "no preflight");
    let (status, _, stderr) = Setup::new().env("POSTROOM_SERVER_CORS_ORIGINS", "app.example.com").run();
    assert!(!status.success() && stderr.contains("POSTROOM_SERVER_CORS_ORIGINS"), "{stderr}");
}

#[test]
fn browsers_are_told_not_to_guess_frame_or_keep() {
    let server = Setup::new().env("WHATSAPP_APP_SECRET", "s").env("WHATSAPP_VERIFY_TOKEN", "t").start();
    let check = |reply: &Reply, what: &str| {
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{what}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{what}");
        let policy = Some("default-src 'none'; frame-ancestors 'none'");
        assert_eq!(reply.header("content-security-policy"), policy, "{what}");
    };
    for path in ["/messages", "/stats", "/events", "/metrics", "/nowhere", "/health/ready", "/messages/none"] {
        check(&server.get(path), path);
    }
    check(&server.post(&body(&message("m1"))), "a stored message");
    check(&server.post(b"{"), "a refused one");
    let unsigned = server.client().request("POST", "/webhook", &[], b"{}").unwrap();
    check(&unsigned, "one that nobody signed");
    check(&server.get("/webhook"), "a browser at the source");
    let question = "hub.mode=subscribe&hub.challenge=%3Cscript%3E&hub.verify_token=t";
    check(&server.get(&format!("/webhook/whatsapp?{question}")), "a challenge said back");
    check(&server.get("/webhook/whatsapp"), "a handshake refused");
}

#[test]
fn nobody_guesses_at_what_the_sources_answer() {
    let server = Server::start();
    let good = body(&message("m1"));
    let sniffable = [
        ask(&server, "POST", "/webhook", &[]),
        ask(&server, "GET", "/webhook", &[]),
        ask(&server, "POST", "/webhook/none", &[]),
        server.post(&good),
        server.post(b"{}"),
    ];
    let statuses: Vec<u16> = sniffable.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [401, 405, 404, 200, 422]);
    for reply in sniffable {
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{}", reply.status);
    }
}

#[test]
fn reads_are_limited_by_address_if_asked_and_sources_are_not_touched() {
    let server = Setup::new().env("POSTROOM_SERVER_READS_PER_MINUTE", 3).start();
    let statuses: Vec<u16> = (0..5).map(|_| server.get("/messages").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = server.get("/messages");
    assert_eq!(refused.text(), r#"{"detail":"Too Many Requests"}"#);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(server.get("/health/ready").status, 200);
    for at in 0..10 {
        server.store(&message(&format!("m{at}")));
    }
}

#[test]
fn what_can_be_limited_is_documented_as_such() {
    let document = Server::start().get("/openapi.json").json();
    let limited = |path: &str, method: &str| document["paths"][path][method]["responses"]["429"].is_object();
    for path in
        ["/messages", "/messages/{id}", "/messages/{id}/statuses", "/events", "/events/{id}", "/stats", "/metrics"]
    {
        assert!(limited(path, "get"), "{path}");
    }
    assert!(limited("/webhook", "post") && limited("/webhook/{source}", "post"));
    assert!(!limited("/health/ready", "get"));
}

#[test]
fn a_sources_limit_counts_only_what_was_believed() {
    let server = Setup::new().env("POSTROOM_SOURCES_POSTS_PER_SECOND", 1).start();
    for _ in 0..20 {
        assert_eq!(ask(&server, "POST", "/webhook", &[]).status, 401, "without the secret nothing is used up");
    }
    let statuses: Vec<u16> = (0..20).map(|at| server.post(&body(&message(&format!("m{at}")))).status).collect();
    assert_eq!(statuses[0], 200, "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let refused = server.metric(r#"postroom_refused_total{reason="too_many"}"#).unwrap();
    assert_eq!(refused as usize, statuses.iter().filter(|status| **status == 429).count());
}
