//! Unauthorized clients behind the proxies that operators use, together with
//! signed senders; and clients in other languages with persistent connections.
//! An unauthorized request never costs another client a response.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::front::{Front, Kind, has_runtime};
use crate::harness::server::Setup;
use crate::harness::{Client, Server, body, message, sign, wait_until};

const SENDERS: usize = 4;
const STRANGERS: usize = 3;
const MESSAGES_EACH: usize = 60;

/// Posts unwanted bodies until `stop`; each in two parts, like clients that stream.
fn be_a_stranger(front: SocketAddr, stop: &AtomicBool, refused: &AtomicUsize) {
    let mut client = Client::connect(front);
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // Small bodies, and bodies that end the connection.
        let body = vec![b'x'; if number % 4 == 3 { 40_000 } else { 400 }];
        let target = ["/webhook/nope", "/webhook/nope/", "/webhook"][number % 3];
        let method = if target == "/webhook" { "PUT" } else { "POST" };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        let sent = client.send_raw(head.as_bytes()).and_then(|()| client.send_raw(&body));
        let reply = sent.and_then(|()| client.receive());
        match reply {
            Ok(reply) => {
                assert!([404, 405, 502].contains(&reply.status), "{}", reply.status);
                refused.fetch_add(1, Ordering::SeqCst);
                if reply.header("connection") == Some("close") {
                    client = Client::connect(front);
                }
            }
            // A proxy may change a response that is sent before the body, as long as no other client is affected.
            Err(_) => client = Client::connect(front),
        }
    }
}

/// Every signed message gets 200 at the first attempt, despite the unauthorized requests.
fn strangers_cost_senders_nothing(kind: Kind) {
    let server = Server::start();
    let Some(front) = Front::start(kind, server.address) else { return };
    let address = front.address;
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let strangers: Vec<_> = (0..STRANGERS)
        .map(|_| {
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            std::thread::spawn(move || be_a_stranger(address, &stop, &refused))
        })
        .collect();
    wait_until("strangers are refused", || (refused.load(Ordering::SeqCst) > 20).then_some(()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut failed = Vec::new();
                for number in 0..MESSAGES_EACH {
                    let bytes = body(&message(&format!("s{sender}-{number}")));
                    let signature = sign(&bytes);
                    match client.request("POST", "/webhook", &[("X-Signature", &signature)], &bytes) {
                        Ok(reply) if reply.status == 200 => {}
                        Ok(reply) => failed.push(reply.status.to_string()),
                        Err(error) => {
                            failed.push(error.to_string());
                            client = Client::connect(address);
                        }
                    }
                }
                failed
            })
        })
        .collect();
    let failed: Vec<String> = senders.into_iter().flat_map(|sender| sender.join().expect("it ends")).collect();
    stop.store(true, Ordering::SeqCst);
    strangers.into_iter().for_each(|stranger| stranger.join().expect("it ends"));
    println!("{} strangers were refused meanwhile", refused.load(Ordering::SeqCst));
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}\n{}", failed.len(), SENDERS * MESSAGES_EACH, front.log());
    assert_eq!(server.rows(), (SENDERS * MESSAGES_EACH) as i64);
}

#[test]
fn strangers_behind_caddy_cost_senders_nothing() {
    strangers_cost_senders_nothing(Kind::Caddy);
}

#[test]
fn strangers_behind_nginx_cost_senders_nothing() {
    strangers_cost_senders_nothing(Kind::Nginx);
}

#[test]
fn strangers_behind_haproxy_cost_senders_nothing() {
    strangers_cost_senders_nothing(Kind::HaProxy);
}

/// Runs a client in another language, which never repeats a request.
fn run_client(mut command: Command, port: u16) {
    const ROUNDS: usize = 50;
    let bytes = String::from_utf8(body(&message("again and again"))).expect("it is text");
    let arguments = [port.to_string(), ROUNDS.to_string(), sign(bytes.as_bytes()), bytes];
    let output = command.args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim(), ROUNDS.to_string(), "{said} {errors}");
}

fn client_file(name: &str) -> std::path::PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("testdata/clients").join(name)
}

#[test]
fn nodes_agent_keeps_its_connection_after_a_refusal() {
    if !has_runtime("node", "--version") {
        return;
    }
    let server = Server::start();
    let mut command = Command::new("node");
    command.arg(client_file("keepalive.js"));
    run_client(command, server.address.port());
}

#[test]
fn gos_default_client_keeps_its_connection_after_a_refusal() {
    if !has_runtime("go", "version") {
        return;
    }
    let server = Server::start();
    let mut command = Command::new("go");
    command.env("GOPROXY", "off").env("GOFLAGS", "").arg("run").arg(client_file("keepalive.go"));
    run_client(command, server.address.port());
}

#[test]
fn the_check_that_haproxy_makes_by_default_finds_the_server_healthy() {
    let server = Setup::new().start();
    let Some(front) = Front::start(Kind::HaProxyDefaultCheck, server.address) else { return };
    let state = || {
        // The statistics page has no length.
        let mut stream = TcpStream::connect(front.address).expect("it listens");
        stream.write_all(b"GET /haproxy;csv HTTP/1.0\r\n\r\n").expect("it is sent");
        let mut table = String::new();
        stream.read_to_string(&mut table).expect("a page");
        let line = table.lines().find(|line| line.starts_with("postroom,postroom,"))?.to_owned();
        Some(line).filter(|line| line.contains(",L7"))
    };
    let line = wait_until("HAProxy has checked", state);
    assert!(line.contains(",UP,") && line.contains(",L7OK,204,"), "{line}");
}
