//! `GET /metrics`: the counters, with the names and labels that dashboards and alerts use.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Server, assert_snapshot, body, message, on_a_file, wait_until};

/// A sample's name, its labels and its value.
type Sample = (String, Vec<(String, String)>, f64);

/// Parses an exposition strictly: each line is a comment, or a sample of a family that was declared before.
fn samples(text: &str) -> Vec<Sample> {
    let mut kinds = BTreeMap::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is declared twice");
        } else if !line.starts_with("# HELP ") {
            let sample = sample(line);
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.0.strip_suffix(end));
            assert!(kinds.contains_key(&sample.0) || family.is_some_and(|family| kinds.contains_key(family)), "{line}");
            samples.push(sample);
        }
    }
    let distinct: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
    assert_eq!(distinct.len(), samples.len(), "no series twice");
    samples
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("labels do not end: {line}"));
    let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// Sends these requests and closes the connection; the responses do not matter here.
fn ask(server: &Server, requests: &[(&str, &str)]) {
    for (method, target) in requests {
        server.client().request(method, target, &[], b"").expect("an answer");
    }
}

/// The value of `http_requests_total` for a path and status.
fn requests(server: &Server, path: &str, status: u16) -> f64 {
    server.metric(&format!(r#"http_requests_total{{path="{path}",status="{status}"}}"#)).unwrap_or(0.0)
}

#[test]
fn the_first_scrape_has_every_family_and_every_result() {
    let server = Server::start();
    let reply = server.get("/metrics");
    assert_eq!(reply.status, 200);
    let media_type = reply.header("content-type").unwrap();
    assert!(media_type.starts_with("text/plain; version=0.0.4"), "{media_type}");
    let text = reply.text();
    assert!(text.ends_with('\n'), "the last line ends too");
    for result in ["created", "duplicate", "invalid_signature", "validation_error"] {
        assert!(text.contains(&format!("\nwebhook_requests_total{{result=\"{result}\"}} 0\n")), "{result}");
    }
    let begins =
        ["http_requests_total{", "webhook_requests_total{", "request_latency_ms_sum ", "request_latency_ms_count 0"];
    for start in begins {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start}");
    }
    for quantile in ["0.5", "0.9", "0.99"] {
        assert!(
            text.contains(&format!("\nrequest_latency_ms{{quantile=\"{quantile}\"}} NaN\n")),
            "nothing was measured yet"
        );
    }
    for declared in [
        "http_requests_total counter",
        "webhook_requests_total counter",
        "request_latency_ms summary",
        "http_request_duration_seconds histogram",
    ] {
        assert!(text.contains(&format!("# TYPE {declared}\n")), "{declared}");
    }
}

#[test]
fn every_answer_is_counted_by_path_and_status() {
    let server = Server::start();
    server.store(&message("m1"));
    server.store(&message("m1"));
    server.post(b"{nope");
    server.post(b"{}");
    ask(&server, &[("POST", "/webhook"), ("GET", "/webhook"), ("POST", "/messages"), ("GET", "/messages?limit=0")]);
    ask(&server, &[("GET", "/messages"), ("GET", "/messages/?limit=1"), ("GET", "/nowhere"), ("GET", "/metrics")]);
    let expected = [
        ("/webhook", 200, 2.0),
        ("/webhook", 422, 2.0),
        ("/webhook", 401, 1.0),
        ("/webhook", 405, 1.0),
        ("/messages", 405, 1.0),
        ("/messages", 422, 1.0),
        ("/messages", 200, 2.0),
        ("unknown", 404, 1.0),
    ];
    for (path, status, count) in expected {
        assert_eq!(requests(&server, path, status), count, "{path} {status}");
    }
    for (result, count) in [("created", 1.0), ("duplicate", 1.0), ("invalid_signature", 1.0), ("validation_error", 2.0)]
    {
        assert_eq!(server.metric(&format!(r#"webhook_requests_total{{result="{result}"}}"#)), Some(count), "{result}");
    }
    server.stored().execute("DROP TABLE messages");
    ask(&server, &[("GET", "/messages"), ("GET", "/health/ready")]);
    assert_eq!((requests(&server, "/messages", 503), requests(&server, "/health/ready", 503)), (1.0, 1.0));
}

#[test]
fn the_distributions_count_the_same_answers() {
    let server = Server::start();
    server.store(&message("m1"));
    server.post(b"{}");
    ask(&server, &[("GET", "/stats"), ("PUT", "/stats"), ("GET", "/x")]);
    let samples = samples(&server.get("/metrics").text());
    let sum = |name: &str, wanted: &[(&str, &str)]| -> f64 {
        let fits = |labels: &[(String, String)]| {
            wanted.iter().all(|(name, value)| labels.iter().any(|(known, is)| known == name && is == value))
        };
        samples.iter().filter(|(is, labels, _)| is == name && fits(labels)).map(|(_, _, value)| value).sum()
    };
    assert_eq!(sum("http_requests_total", &[]), 5.0);
    assert_eq!(sum("request_latency_ms_count", &[]), 5.0);
    assert_eq!(sum("http_request_duration_seconds_count", &[]), 5.0);
    assert_eq!(sum("http_request_duration_seconds_bucket", &[("le", "+Inf")]), 5.0);
    let webhook = [("path", "/webhook"), ("method", "POST"), ("status", "4xx")];
    assert_eq!(sum("http_request_duration_seconds_count", &webhook), 1.0);
    assert_eq!(sum("http_request_duration_seconds_count", &[("path", "/stats"), ("method", "other")]), 1.0);
    assert!(sum("request_latency_ms_sum", &[]) > 0.0);
    let quantiles = ["0.5", "0.9", "0.99"].map(|quantile| sum("request_latency_ms", &[("quantile", quantile)]));
    assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{quantiles:?}");
    let seconds = sum("http_request_duration_seconds_sum", &[]);
    let difference = (sum("request_latency_ms_sum", &[]) / 1e3 - seconds).abs();
    assert!(difference < 1e-4, "one latency, in milliseconds and in seconds: they differ by {difference} s");
}

#[test]
fn hostile_paths_and_methods_neither_add_series_nor_break_the_exposition() {
    let server = Server::start();
    let series = |server: &Server| {
        let samples = samples(&server.get("/metrics").text());
        samples.into_iter().map(|(name, labels, _)| (name, labels)).collect::<BTreeSet<_>>()
    };
    ask(&server, &[("GET", "/nowhere"), ("BREW", "/nowhere"), ("GET", "/docs/nothing"), ("GET", "/metrics")]);
    let before = series(&server);
    for number in 0..100 {
        let target = format!("/{number}\"}}%0a%22\\#{{le=\"1\"}}");
        let mut client = server.client();
        client.send_raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        client.receive().expect("an answer, whatever it is");
        ask(&server, &[("GET", &format!("/docs/{number}")), (&format!("BREW{number}"), &format!("/x/{number}/"))]);
    }
    let added: Vec<_> = series(&server).difference(&before).cloned().collect();
    assert!(
        added.iter().all(|(name, labels)| name.starts_with("http_request") && labels[0].1 == "unknown"),
        "{added:?}"
    );
    let paths: BTreeSet<String> = series(&server)
        .iter()
        .flat_map(|(_, labels)| labels.iter().filter(|(name, _)| name == "path").map(|(_, path)| path.clone()))
        .collect();
    let known = [
        "/",
        "/docs",
        "/events",
        "/events/{id}",
        "/health/live",
        "/health/ready",
        "/messages",
        "/messages/{id}",
        "/messages/{id}/statuses",
        "/metrics",
        "/openapi.json",
        "/stats",
        "/webhook",
        "/webhook/{source}",
        "unknown",
    ];
    assert_eq!(paths.iter().map(String::as_str).collect::<Vec<_>>(), known);
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let server = Server::start();
    let clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    wait_until("all are counted, and the one that asks", || {
        (server.metric("postroom_connections") == Some(4.0)).then_some(())
    });
    drop(clients);
    wait_until("none is but the one that asks", || (server.metric("postroom_connections") == Some(1.0)).then_some(()));
}

/// One line per family of series: its name, and
/// every label with all of its values. Values that
/// differ between builds and machines are left out.
fn outline(text: &str) -> String {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("# "))
        .map(|line| line.trim_start_matches("# ").to_owned())
        .collect();
    let mut labels: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (name, pairs, _) in samples(text) {
        let known = labels.entry(name).or_default();
        for (label, value) in pairs {
            let value = if ["version", "sqlite"].contains(&label.as_str()) { "*".to_owned() } else { value };
            known.entry(label).or_default().insert(value);
        }
    }
    for (name, labels) in labels {
        let labels = labels.into_iter().map(|(label, values)| {
            let mut values: Vec<String> = values.into_iter().collect();
            values.sort_by(|a, b| a.parse::<f64>().unwrap_or(0.0).total_cmp(&b.parse().unwrap_or(0.0)).then(a.cmp(b)));
            format!("\n    {label}: {}", values.join(" "))
        });
        lines.push(format!("{name}{}", labels.collect::<String>()));
    }
    lines.join("\n") + "\n"
}

#[test]
fn names_and_labels_are_those_of_the_snapshot() {
    let server = Server::start();
    server.post(&body(&message("m1")));
    server.post(b"{}");
    ask(&server, &[("POST", "/webhook"), ("GET", "/nowhere"), ("DELETE", "/stats"), ("GET", "/messages")]);
    let path = if on_a_file("names are those of another snapshot") { "metrics.txt" } else { "metrics-postgres.txt" };
    assert_snapshot(&format!("testdata/{path}"), &outline(&server.get("/metrics").text()));
}
