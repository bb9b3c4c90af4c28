//! Slow clients, single ones and thousands of them. No other client waits for them.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Raw, assert_healthy_with, good_post, post_with, statuses};
use crate::harness::server::{Setup, on_postgres};
use crate::harness::{Server, body, message, wait_until};

/// A server with the shortest timeouts.
fn impatient() -> Server {
    let waits = ["HEADER", "BODY", "IDLE"].map(|what| format!("POSTROOM_SERVER_{what}_SECONDS"));
    waits.iter().fold(Setup::new(), |setup, name| setup.env(name, 1)).start()
}

#[test]
fn a_head_that_does_not_end_in_time_closes_the_connection() {
    let server = impatient();
    for beginning in ["", "GET", "GET / HTTP/1.1\r\nHost: te", "POST /webhook HTTP/1.1\r\nHost: test\r\n"] {
        assert_eq!(Raw::sending(&server, beginning.as_bytes()).read_to_close(), "", "{beginning:?}");
    }
}

#[test]
fn a_head_that_comes_drop_by_drop_has_no_more_time_than_another() {
    let server = impatient();
    let mut raw = Raw::sending(&server, b"GET / HTTP/1.1\r\nHost: test\r\nX-Slow: ");
    // Each byte arrives within the timeout, but all of them take far longer.
    wait_until("it is closed", || {
        std::thread::sleep(Duration::from_millis(50));
        raw.0.write_all(b"a").is_err().then_some(())
    });
}

#[test]
fn a_body_that_does_not_come_in_time_is_408() {
    let server = impatient();
    let bytes = body(&message("slow"));
    let length = format!("Content-Length: {}", bytes.len());
    for request in [
        post_with(&[&length], &bytes, &bytes[..10]),
        post_with(&[&length], &bytes, b""),
        post_with(&["Transfer-Encoding: chunked"], &bytes, b"2\r\n{\""),
    ] {
        let answers = Raw::sending(&server, &request).read_to_close();
        assert_eq!(statuses(&answers), [408], "{answers}");
        assert!(answers.ends_with(r#"{"detail":"Request Timeout"}"#), "{answers}");
    }
    assert_healthy_with(&server, 0);
}

#[test]
fn a_connection_that_rests_too_long_is_closed() {
    let server = impatient();
    let mut raw = Raw::sending(&server, &good_post("then nothing"));
    let answers = raw.read_to_close();
    assert_eq!(statuses(&answers), [200], "one answer, and then the end");
}

#[test]
fn a_client_that_never_reads_its_answers_is_let_go_and_holds_nobody_up() {
    let server = Setup::new().env("POSTROOM_SERVER_IDLE_SECONDS", 1).start();
    let mut deaf = Raw::connect(&server);
    deaf.0.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
    let asking = b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
    let mut client = server.client();
    let mut answered = 0;
    wait_until("it is let go", || {
        // Other clients are served meanwhile.
        assert_eq!(client.get("/health/live").status, 200);
        answered += 1;
        match deaf.0.write_all(&asking) {
            Err(error) => (![ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())).then_some(()),
            Ok(_) => None,
        }
    });
    assert!(answered > 1);
    server.store(&message("afterwards"));
}

#[test]
fn large_pages_that_nobody_takes_fill_no_memory_and_hold_up_no_message() {
    let server = Server::start();
    let mut client = server.client();
    let text = "\u{1f600}".repeat(4_096);
    for number in 0..100 {
        let mut large = message(&format!("m{number}"));
        large["text"] = text.clone().into();
        assert_eq!(client.post(&body(&large)).status, 200);
    }
    // With a small receive buffer of the client.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connect = || {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small one");
        let stream = runtime.block_on(socket.connect(server.address)).expect("the server accepts");
        stream.into_std().expect("it is a socket")
    };
    let crowd: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"GET /messages?limit=100 HTTP/1.1\r\nHost: test\r\n\r\n").expect("it fits");
            // Sequentially, so that only one response is created at a time;
            // each connection receives the beginning of its own response.
            stream.set_nonblocking(false).expect("it can wait");
            stream.read_exact(&mut [0]).expect("an answer begins");
            stream
        })
        .collect();
    let peak = server.memory_peak_bytes() >> 20;
    assert!(peak < 250, "{peak} MiB, and 300 pages of 1.6 MiB were asked for");
    server.store(&message("meanwhile"));
    assert_eq!(server.get("/messages?limit=1").status, 200, "a small page takes no room");
    drop(crowd);
    let large = || server.get("/messages?limit=100");
    let large = wait_until("there is room again", || Some(large()).filter(|reply| reply.status == 200));
    assert_eq!(large.json()["data"].as_array().map(Vec::len), Some(100));
}

#[test]
fn a_crowd_that_reads_the_largest_pages_at_once_shares_the_room_for_answers() {
    // A page that reaches its deadline on a slow machine proves nothing about memory.
    let server = Setup::new().env("POSTROOM_STORE_QUERY_SECONDS", 60).start();
    // A provider's messages may be this large: 40 MB per page.
    let text = if on_postgres() { "repeat('0', 400000)" } else { "hex(zeroblob(200000))" };
    server.stored().execute(&format!(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100)
         SELECT 'm' || n, '+1', '+2', '2025-01-15T10:00:00Z', {text}, '2025-01-15T10:00:00Z' FROM numbers"
    ));
    let page = || server.get("/messages?limit=100");
    wait_until("they are listed", || (server.get("/messages?limit=1").json()["total"] == 100).then_some(()));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..20).map(|_| scope.spawn(|| page().status)).collect();
        crowd.into_iter().map(|reader| reader.join().expect("no panic")).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    let peak = server.memory_peak_bytes() >> 20;
    assert!(peak < 250, "{peak} MiB, where answers may have 64");
    let whole = wait_until("there is room again", || Some(page()).filter(|reply| reply.status == 200));
    assert_eq!(whole.json()["data"].as_array().map(Vec::len), Some(100));
    // A single page that is larger than the memory limit.
    server.stored().execute("UPDATE messages SET text = text || text");
    wait_until("the page is too large", || (page().status == 503).then_some(()));
    assert_eq!(server.get("/messages?limit=50").status, 200, "fewer fit");
}

/// The program's own memory in RAM, in MiB. Read from the system, as a request needs one more connection.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn when_a_crowd_has_gone_its_memory_is_given_back() {
    const CROWD: usize = 1_000;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    if limit.maximum.is_some_and(|files| files < 2_500) {
        return println!("skipped: a crowd needs more open files than the limit of {:?}", limit.maximum);
    }
    let server = Server::start();
    server.store(&message("before"));
    let before = resident(&server);
    let head = format!("GET /messages HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n", "x".repeat(12_000));
    let crowd: Vec<Raw> = (0..CROWD).map(|_| Raw::sending(&server, head.as_bytes())).collect();
    // On PostgreSQL some of these concurrent pages may reach their deadline, which also is a response.
    let answered = |status| server.metric(&format!(r#"http_requests_total{{path="/messages",status="{status}"}}"#));
    let all = || [200, 503].into_iter().filter_map(answered).sum::<f64>();
    wait_until("all are answered", || (all() >= CROWD as f64).then_some(()));
    let most = resident(&server);
    drop(crowd);
    wait_until("most of it is back", || (resident(&server) < before + (most - before) / 3).then_some(()));
}

#[test]
fn a_thousand_idle_and_slow_connections_do_not_stop_a_healthy_client() {
    const EACH: usize = 500;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    if limit.maximum.is_some_and(|files| files < 2_500) {
        println!("skipped: a thousand connections need more open files than the limit of {:?}", limit.maximum);
        return;
    }
    let server = Server::start();
    let bytes = body(&message("slow"));
    let half = post_with(&[&format!("Content-Length: {}", bytes.len())], &bytes, &bytes[..20]);
    let crowd: Vec<Raw> = (0..EACH)
        .flat_map(|number| {
            let beginning: &[u8] = if number % 2 == 0 { b"GET /messages HT" } else { &half };
            [Raw::connect(&server), Raw::sending(&server, beginning)]
        })
        .collect();
    let mut client = server.client();
    for number in 0..50 {
        assert_eq!(client.post(&body(&message(&format!("m{number}")))).status, 200);
    }
    assert_healthy_with(&server, 50);
    drop(crowd);
    assert_healthy_with(&server, 50);
}
