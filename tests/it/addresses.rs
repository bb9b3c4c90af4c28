//! Every setting with an address, a host or an origin, and every such header of a proxy.

use std::net::{Ipv6Addr, TcpListener};

use hyper::header::{HeaderName, HeaderValue};

use crate::harness::test_source::now;
use crate::harness::{Client, Server, Setup, TestSource, body, message, sign};

const CORS: &str = "POSTROOM_SERVER_CORS_ORIGINS";

/// Whether an origin may read, for servers with configured origins.
fn allowed(server: &Server, origin: &str) -> bool {
    let reply = server.client().request("GET", "/stats", &[("Origin", origin)], b"").expect("an answer");
    assert_eq!(reply.status, 200, "{origin}");
    reply.header("access-control-allow-origin") == Some(origin)
}

#[test]
fn origins_match_as_browsers_send_them_however_they_were_written() {
    let written = [
        ("https://App.Example.COM", "https://app.example.com"),
        ("HTTPS://slash.example/", "https://slash.example"),
        ("https://port.example:443", "https://port.example"),
        ("http://port.example:80/", "http://port.example"),
        ("http://port.example:08080", "http://port.example:8080"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
    ];
    let list: Vec<&str> = written.iter().map(|(written, _)| *written).collect();
    let server = Setup::new().env(CORS, list.join(" , ")).start();
    for (written, sent) in written {
        assert!(allowed(&server, sent), "{written} is {sent}");
    }
    for other in ["https://app.example.com:8443", "http://app.example.com", "https://app.example.com.evil", "null"] {
        assert!(!allowed(&server, other), "{other}");
    }
    let line = server.wait_for_line(|line| line["address"].is_string());
    let told = line["cors_origins"].as_str().expect("the start says what holds");
    assert!(told.starts_with("https://app.example.com, https://slash.example, "), "{told}");
    assert!(allowed(&Setup::new().env(CORS, "*").start(), "https://anybody.example"));
}

#[test]
fn origins_that_no_browser_sends_are_refused_with_the_reason() {
    let cases = [
        ("http://localhost:*", "pattern"),
        ("https://*.example.com", "pattern"),
        ("https://a.example, *.example.com", "scheme"),
        ("app.example.com", "scheme"),
        ("localhost:3000", "scheme"),
        ("//app.example.com", "scheme"),
        ("https//app.example.com", "scheme"),
        ("https://a.example/app", "path"),
        ("https://a.example//", "path"),
        ("https://a.example?x", "path"),
        ("https://a.example/#x", "path"),
        ("https://user@a.example", "user"),
        ("null", "null"),
        ("file://", "file"),
        ("file:///srv/app", "file"),
        ("https://", "host"),
        ("https://:443", "host"),
        ("https://a b.example", "blank"),
        ("https://a..example", "host"),
        ("https://münchen.example", "xn--"),
        ("https://a.example:https", "port"),
        ("https://a.example:65536", "port"),
        ("https://a.example:-1", "port"),
        ("https://a:1:2", "port"),
        ("https://::1", "bracket"),
        ("https://[::1", "bracket"),
        ("https://[::g]", "IPv6"),
        ("https://[fe80::1%eth0]", "IPv6"),
        ("https://127.1", "IPv4"),
        ("https://10.0.0.256", "IPv4"),
        ("https://0x7f.0.0.1", "IPv4"),
        ("\"https://a.example\"", "quot"),
        ("https://a.example;https://b.example", "comma"),
        ("https://a.example https://b.example", "comma"),
        ("wss://a.example", "wss"),
    ];
    for (value, reason) in cases {
        let (status, _, stderr) = Setup::new().env(CORS, value).run();
        assert_eq!(status.code(), Some(2), "{value} is taken: {stderr}");
        assert!(stderr.contains(CORS) && stderr.contains(reason), "{value}, {reason}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// Whether the machine has this loopback address.
fn has(host: &str) -> bool {
    let can = TcpListener::bind((host, 0)).is_ok();
    if !can {
        println!("skipped: this machine has no address {host}");
    }
    can
}

#[test]
fn hosts_are_bound_with_and_without_brackets() {
    for (host, bound) in [("[::1]", "::1"), ("::1", "::1"), ("[::]", "::"), ("::", "::"), (" [::1] ", "::1")] {
        if !has(bound) {
            return;
        }
        let server = Setup::new().env("HOST", host).env("POSTROOM_SERVER_READ_HOST", host).start();
        assert_eq!(server.address.ip(), bound.parse::<Ipv6Addr>().unwrap(), "{host}");
        let body = body(&message("m1"));
        let mut client = Client::connect((Ipv6Addr::LOCALHOST, server.address.port()).into());
        assert_eq!(client.request("POST", "/webhook", &[("X-Signature", &sign(&body))], &body).unwrap().status, 200);
        let port = server.address.port();
        let (status, stdout, stderr) = Setup::new().env("HOST", host).env("PORT", port).arg("health").run();
        assert!(status.success() && stdout.contains("ready"), "health for HOST={host}: {stdout}{stderr}");
    }
    let server = Setup::new().env("POSTROOM_SERVER_READ_PORT", 0).env("POSTROOM_SERVER_READ_HOST", "[::1]").start();
    let line = server.wait_for_line(|line| line["read_address"].is_string());
    assert!(line["read_address"].as_str().unwrap().starts_with("[::1]:"), "{line}");
}

#[test]
fn hosts_that_are_none_are_refused_in_words() {
    let cases = [
        ("0.0.0.0:8000", "PORT"),
        ("[::1]:8000", "PORT"),
        ("localhost:8000", "PORT"),
        ("http://0.0.0.0", "URL"),
        ("*", "0.0.0.0"),
        ("[::g]", "IPv6"),
        ("[127.0.0.1]", "IPv6"),
        ("[::1", "bracket"),
        ("a b", "host"),
        ("10.0.0.0/8", "host"),
        ("127.0.0.1,::1", "host"),
    ];
    for (host, reason) in cases {
        for name in ["HOST", "POSTROOM_SERVER_READ_HOST"] {
            let setup = Setup::new().env("POSTROOM_SERVER_READ_PORT", 0).env(name, host);
            let (status, _, stderr) = setup.run();
            assert_eq!(status.code(), Some(2), "{name}={host}: {stderr}");
            assert!(stderr.contains(name) && stderr.contains(reason), "{name}={host}, {reason}: {stderr}");
        }
    }
}

#[test]
fn base_urls_and_proxies_that_can_never_match_are_refused() {
    let cases = [
        ("PUBLIC_BASE_URL", "https://:8000"),
        ("PUBLIC_BASE_URL", "https://a.example:99999"),
        ("PUBLIC_BASE_URL", "https://a.example:port"),
        ("PUBLIC_BASE_URL", "https://*.example.com"),
        ("PUBLIC_BASE_URL", "https://[::1"),
        ("PUBLIC_BASE_URL", "hooks.example.com"),
        ("POSTROOM_SERVER_TRUSTED_PROXIES", "*"),
        ("POSTROOM_SERVER_TRUSTED_PROXIES", "10.0.0.1:8000"),
        ("POSTROOM_SERVER_TRUSTED_PROXIES", "::ffff:10.0.0.0/8"),
        ("POSTROOM_SERVER_TRUSTED_PROXIES", "proxy.internal"),
    ];
    for (name, value) in cases {
        let (status, _, stderr) = Setup::new().env(name, value).run();
        assert_eq!(status.code(), Some(2), "{name}={value}: {stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
}

/// The status of a request that Twilio signed for
/// `https://hooks.example.com`, sent with these headers
/// by 127.0.0.1. `host` is the value of its own Host.
fn twilio(setup: Setup, host: &str, extra: &[(&'static str, &str)]) -> u16 {
    let bytes = b"MessageSid=SM1&AccountSid=AC1&From=%2B1&To=%2B2&Body=x";
    let source = TestSource::of(&crate::harness::test_source::all_sources(Setup::new()), "twilio");
    let mut headers = source.headers(bytes, "1", now());
    for (name, value) in extra {
        headers.append(HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap());
    }
    let fields: String =
        headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap())).collect();
    let length = bytes.len();
    let head = format!("POST {} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}\r\n", source.path);
    let server = setup.env("TWILIO_AUTH_TOKEN", "12345").start();
    let mut client = server.client();
    client.send_raw(&[head.as_bytes(), bytes].concat()).unwrap();
    client.receive().expect("an answer").status
}

#[test]
fn what_a_trusted_proxy_says_of_the_url_is_understood() {
    let trusting = |proxies: &str| Setup::new().env("POSTROOM_SERVER_TRUSTED_PROXIES", proxies);
    let ours = "hooks.example.com";
    let proto = |value| ("x-forwarded-proto", value);
    let host = |value| ("x-forwarded-host", value);
    // Several proxies: each appends the scheme of its own request, the outermost first.
    for (value, status) in [
        ("https", 200),
        ("HTTPS", 200),
        ("https,http", 200),
        ("https, http, http", 200),
        (" https ,http", 200),
        ("http,https", 403),
        ("wss,https", 403),
        ("", 403),
        (",https", 403),
    ] {
        assert_eq!(twilio(trusting("127.0.0.1"), "inner:8000", &[proto(value), host(ours)]), status, "{value:?}");
    }
    let lines = [proto("https"), proto("http"), host(ours)];
    assert_eq!(twilio(trusting("127.0.0.1"), "inner:8000", &lines), 200, "a list in two lines");
    // Without X-Forwarded-Host, the Host is used, which such a proxy passes on.
    assert_eq!(twilio(trusting("127.0.0.0/8"), ours, &[proto("https")]), 200);
    assert_eq!(twilio(trusting("127.0.0.0/8"), ours, &[proto("https"), host("")]), 200);
    assert_eq!(twilio(trusting("127.0.0.0/8"), "inner:8000", &[proto("https")]), 403);
    assert_eq!(twilio(trusting("127.0.0.0/8"), ours, &[proto("https"), host("evil.example")]), 403);
    assert_eq!(twilio(trusting("127.0.0.0/8"), ours, &[]), 403, "nobody said the scheme");
    for odd in ["hooks.example.com/x", "user@hooks.example.com", "hooks.example.com:x", "*"] {
        assert_eq!(twilio(trusting("127.0.0.0/8"), ours, &[proto("https"), host(odd)]), 403, "{odd}");
    }
    // If the hosts differ, it is unknown which one is the proxy's.
    assert_eq!(twilio(trusting("127.0.0.1"), ours, &[proto("https"), host("hooks.example.com, inner")]), 403);
    // Only a listed proxy is trusted, in whatever form it is listed.
    for listed in ["::ffff:127.0.0.1", "::ffff:127.0.0.0/104", "[::1], 127.0.0.1"] {
        assert_eq!(twilio(trusting(listed), ours, &[proto("https")]), 200, "{listed}");
    }
    for other in ["10.0.0.0/8", "::1"] {
        assert_eq!(twilio(trusting(other), ours, &[proto("https")]), 403, "{other}");
    }
}
