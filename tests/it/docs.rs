//! The HTML pages: `GET /` and `GET /docs`, which load nothing from other servers.

use crate::harness::client::resolve;
use crate::harness::{Reply, Server};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// All values of an attribute in a page.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    page.split(&format!(" {name}=\"")).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn greet(server: &Server, accept: Option<&str>) -> Reply {
    let headers: Vec<_> = accept.map(|accept| ("Accept", accept)).into_iter().collect();
    server.client().request("GET", "/", &headers, b"").expect("an answer")
}

fn assert_guarded(reply: &Reply, what: &str) {
    assert_eq!(reply.header("content-security-policy"), Some(POLICY), "{what}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{what}");
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{what}");
}

#[test]
fn the_root_answers_json_to_programs_and_a_page_to_browsers() {
    let server = Server::start();
    for accept in [None, Some("*/*"), Some("application/json"), Some("text/plain"), Some("")] {
        let reply = greet(&server, accept);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{accept:?}");
        let index = reply.json();
        assert_eq!((index["name"].as_str(), index["docs"].as_str()), (Some("postroom"), Some("docs")));
        for endpoint in index["endpoints"].as_array().unwrap() {
            let (method, path) = endpoint.as_str().unwrap().split_once(' ').unwrap();
            // The caller chooses the part in braces.
            if path.contains('{') {
                continue;
            }
            let status = server.client().request(method, path, &[], b"").unwrap().status;
            assert!(status == 200 || (method == "POST" && status == 401), "{endpoint} answers {status}");
        }
    }
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    let reply = greet(&server, Some(browser));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(reply.text().starts_with("<!doctype html>"));
    assert_guarded(&reply, "/");
}

#[test]
fn the_pages_load_only_files_of_our_own_origin_and_all_of_them_are_there() {
    let server = Server::start();
    let pages =
        [("/", greet(&server, Some("text/html"))), ("/docs", server.get("/docs")), ("/docs/", server.get("/docs/"))];
    for (at, page) in pages {
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_guarded(&page, "a page");
        let page = page.text();
        let targets = [attributes(&page, "src"), attributes(&page, "href")].concat();
        assert!(targets.len() > 3, "{targets:?}");
        for target in targets {
            assert!(!target.starts_with('/') && !target.contains(':'), "{target} leads out of the service");
            let target = resolve(at, target);
            let reply = server.get(&target);
            assert_eq!(reply.status, 200, "{target}");
            let media_type = reply.header("content-type").unwrap();
            let expected = match target.rsplit('.').next().unwrap() {
                "css" => "text/css",
                "js" => "text/javascript",
                "png" => "image/png",
                _ => continue,
            };
            assert!(media_type.starts_with(expected), "{target}: {media_type}");
            assert_guarded(&reply, &target);
            assert!(reply.body.len() > 100, "{target}");
        }
    }
}

#[test]
fn nothing_on_the_pages_needs_what_their_policy_forbids() {
    let server = Server::start();
    for page in [greet(&server, Some("text/html")).text(), server.get("/docs").text()] {
        assert_eq!(page.matches("<script").count(), attributes(&page, "src").len(), "every script is a file");
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:", "<iframe", "<form"] {
            assert!(!page.contains(inline), "{inline}");
        }
    }
    for file in ["/docs/docs.js", "/docs/docs.css"] {
        let text = server.get(file).text();
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("//cdn"), "{file}");
    }
    let script = server.get("/docs/docs.js").text();
    for store in ["localStorage", "sessionStorage", "document.cookie", "eval("] {
        assert!(!script.contains(store), "the secret is kept nowhere: {store}");
    }
    assert!(script.contains("X-Signature") && script.contains("openapi.json"));
}

#[test]
fn every_tag_of_an_address_is_documented() {
    let page = include_str!("../../docs/providers/README.md");
    for tag in domain::address::TAGS {
        assert!(page.contains(&format!("`{tag}:`")), "docs/providers/README.md does not say whose {tag}: is");
    }
}

#[test]
fn files_that_the_page_does_not_have_are_404() {
    let server = Server::start();
    let none = [
        "/docs/nothing.js",
        "/docs/index.html",
        "/docs/a/b",
        "/docs/..",
        "/docs/../Cargo.toml",
        "/docs/%2e%2e",
        "/docs//docs.css",
    ];
    for target in none {
        let reply = server.get(target);
        assert_eq!((reply.status, reply.text().as_str()), (404, r#"{"detail":"Not Found"}"#), "{target}");
    }
}
