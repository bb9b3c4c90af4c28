//! Behind a proxy with a path prefix: every link keeps the prefix, and providers' signatures are valid.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::resolve;
use crate::harness::test_source::now;
use crate::harness::{Client, Reply, Running, Server, Setup, TestSource, body, message, sign, wait_until};

/// The documented configuration for nginx: the slash at the end of `proxy_pass` removes the prefix.
const CONFIGURATION: &str = "
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:NGINX;
        location /inbox/ {
            proxy_pass http://POSTROOM/;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto \"https,http\";
        }
    }
}
";

/// An nginx in front of a server.
struct Nginx {
    _program: Running,
    _folder: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// None if nginx is not installed.
    fn before(server: &Server) -> Option<Self> {
        let known = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", "/opt/homebrew/bin/nginx"];
        let Some(program) = known.iter().find(|path| Path::new(path).exists()) else {
            println!("skipped: nginx is not installed");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The port is free now; if another program takes it, nginx fails, and so does the test.
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port();
        let text = CONFIGURATION.replace("NGINX", &port.to_string()).replace("POSTROOM", &server.address.to_string());
        std::fs::write(folder.path().join("nginx.conf"), text).expect("the file can be written");
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        let program = Running::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_until("nginx listens", || Client::try_connect(address).ok());
        Some(Self { _program: program, _folder: folder, address })
    }

    fn get(&self, target: &str, accept: &str) -> Reply {
        let mut client = Client::connect(self.address);
        client.request("GET", target, &[("Accept", accept)], b"").expect("an answer")
    }
}

/// The values of `src` and `href` in a page.
fn references(page: &str) -> Vec<&str> {
    let of = |name: &str| {
        let start = format!(" {name}=\"");
        page.match_indices(&start)
            .map(|(at, _)| page[at + start.len()..].split('"').next().unwrap())
            .collect::<Vec<_>>()
    };
    [of("src"), of("href")].concat()
}

/// Asserts that every link of the pages, read at this path, keeps the prefix and is valid.
fn assert_links_hold(get: impl Fn(&str, &str) -> Reply, prefix: &str) {
    for page in ["/", "/docs", "/docs/"] {
        let at = format!("{prefix}{page}");
        let reply = get(&at, "text/html");
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")), "{at}");
        let page = reply.text();
        let links = references(&page);
        assert!(links.len() > 3, "{at}: {links:?}");
        for link in links {
            let target = resolve(&at, link);
            assert!(target.starts_with(&format!("{prefix}/")), "{link} of {at} leads out, to {target}");
            assert_eq!(get(&target, "*/*").status, 200, "{link} of {at} leads to {target}");
        }
    }
    let root = format!("{prefix}/");
    let index = get(&root, "application/json").json();
    for link in ["docs", "openapi"] {
        let target = resolve(&root, index[link].as_str().unwrap());
        assert_eq!((target.starts_with(&root), get(&target, "*/*").status), (true, 200), "{link}: {target}");
    }
    let at = resolve(&root, index["openapi"].as_str().unwrap());
    let server = get(&at, "*/*").json()["servers"][0]["url"].as_str().expect("the document names a server").to_owned();
    assert_eq!(resolve(&at, &format!("{server}/stats")), format!("{prefix}/stats"));
}

/// Asserts that the links of a listing lead from page to page to its end.
fn assert_pages_hold(get: impl Fn(&str, &str) -> Reply, first: &str, count: usize) {
    let (mut at, mut seen) = (first.to_owned(), 0);
    loop {
        let reply = get(&at, "*/*");
        assert_eq!(reply.status, 200, "{at}");
        seen += reply.json()["data"].as_array().unwrap().len();
        let Some(next) = reply.next_page(&at) else { break };
        at = next;
    }
    assert_eq!(seen, count, "all pages from {first}");
}

#[test]
fn links_hold_without_a_proxy() {
    let server = Server::start();
    (0..5).for_each(|at| server.store(&message(&format!("m{at}"))));
    let get = |target: &str, accept: &str| {
        server.client().request("GET", target, &[("Accept", accept)], b"").expect("an answer")
    };
    assert_links_hold(get, "");
    for first in ["/messages?cursor=&limit=2", "/messages/?cursor=&limit=2"] {
        assert_pages_hold(get, first, 5);
    }
}

#[test]
fn links_hold_below_a_path_of_nginx() {
    let server = Setup::new().start();
    let Some(nginx) = Nginx::before(&server) else { return };
    let mut client = Client::connect(nginx.address);
    for at in 0..5 {
        let body = body(&message(&format!("m{at}")));
        let reply = client.request("POST", "/inbox/webhook", &[("X-Signature", &sign(&body))], &body).unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"status":"ok"}"#));
    }
    let get = |target: &str, accept: &str| nginx.get(target, accept);
    assert_links_hold(get, "/inbox");
    for first in ["/inbox/messages?cursor=&limit=2", "/inbox/messages/?cursor=&limit=2"] {
        assert_pages_hold(get, first, 5);
    }
}

#[test]
fn what_is_signed_with_the_url_holds_below_a_path_of_nginx() {
    let bytes = b"MessageSid=SM1&AccountSid=AC1&From=%2B1&To=%2B2&Body=x";
    let setup = || Setup::new().env("TWILIO_AUTH_TOKEN", "12345");
    let signed = |base: &str| {
        let mut source = TestSource::of(&setup().env("PUBLIC_BASE_URL", base), "twilio");
        source.source.options.base_url = Some(base.to_owned());
        let headers = source.headers(bytes, "1", now());
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let post = |nginx: &Nginx, headers: &[(String, String)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Client::connect(nginx.address).request("POST", "/inbox/webhook/twilio", &headers, bytes).unwrap().status
    };
    let base = "https://hooks.example.com/inbox";
    let server = setup().env("PUBLIC_BASE_URL", format!("{base}/")).start();
    let Some(nginx) = Nginx::before(&server) else { return };
    assert_eq!(post(&nginx, &signed(base)), 200);
    assert_eq!(post(&nginx, &signed("https://hooks.example.com")), 403, "the path is signed too");
    // A proxy that sends scheme and host does not send the removed prefix; the setting has it.
    let (_, stdout, _) = setup().env("PUBLIC_BASE_URL", base).arg("check").run();
    assert!(stdout.contains("https://hooks.example.com/inbox/webhook/twilio"), "{stdout}");
}

/// Runs `docs.js` like a browser that loaded it from there, and returns its requests and signatures.
const BROWSER: &str = r#"
const fs = require("fs"), vm = require("vm");
const [, script, base] = process.argv;
const asked = {};
const context = {
  document: { getElementById: () => ({ value: "testsecret" }), currentScript: { src: base + "/docs/docs.js" } },
  location: { href: base + "/docs" }, URL, TextEncoder, Uint8Array, Array, JSON, console,
  crypto: require("crypto").webcrypto,
  SwaggerUIBundle: (settings) => { asked.settings = settings; },
};
context.window = context;
context.addEventListener = (_, run) => { asked.run = run; };
vm.runInNewContext(fs.readFileSync(script, "utf8"), context);
asked.run();
(async () => {
  const { url, requestInterceptor } = asked.settings;
  const post = async (path) => {
    const request = await requestInterceptor({ url: base + path, method: "POST", headers: {}, body: "{}" });
    return request.headers["X-Signature"] || null;
  };
  console.log(JSON.stringify({ url: new URL(url, context.location.href).href,
    signed: await post("/webhook"), source: await post("/webhook/twilio") }));
})();
"#;

#[test]
fn the_script_of_the_page_finds_its_document_and_signs_below_a_path() {
    if Command::new("node").arg("--version").output().is_err() {
        return println!("skipped: node is not installed");
    }
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("crates/server/src/http/assets/docs.js");
    for base in ["http://localhost:8000", "https://hooks.example.com/inbox"] {
        let output = Command::new("node").arg("-e").arg(BROWSER).arg(&script).arg(base).output().expect("node runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
        let expected = json!({ "url": format!("{base}/openapi.json"), "signed": sign(b"{}"), "source": null });
        assert_eq!(told, expected, "{base}");
    }
}
