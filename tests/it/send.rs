//! `postroom send`, `sign`, `health`, `check` and `completions`, as used at a terminal.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::harness::server::Setup;
use crate::harness::{SECRET, Server, body, message, on_a_file, sign};

/// Runs a subcommand with the tests' secret, and `input` on its standard input.
fn postroom(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postroom"))
        .args(arguments)
        .env_clear()
        .env("WEBHOOK_SECRET", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("piped").write_all(input).expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

/// Messages `m0`, `m1`, …, one per line, with an empty line and a line end of another system among them.
fn lines(count: usize) -> Vec<u8> {
    let mut lines = b"\n".to_vec();
    for at in 0..count {
        lines.extend(body(&message(&format!("m{at}"))));
        lines.extend(if at % 2 == 0 { "\n".as_bytes() } else { "\r\n".as_bytes() });
    }
    lines
}

fn send(server: &Server, file: &str, more: &[&str], input: &[u8]) -> Output {
    let url = format!("http://{}", server.address);
    postroom(&[&["send", file, "--url", &url], more].concat(), input)
}

#[test]
fn sign_prints_the_signature_of_exactly_these_bytes() {
    for bytes in ["{}", "{}\n", "", "é"] {
        let output = postroom(&["sign", "-"], bytes.as_bytes());
        assert_eq!(stdout(&output), format!("{}\n", sign(bytes.as_bytes())), "{bytes:?}");
    }
    let without = Command::new(env!("CARGO_BIN_EXE_postroom")).arg("sign").env_clear().stdin(Stdio::null()).output();
    let without = without.expect("the program runs");
    assert!(!without.status.success() && String::from_utf8_lossy(&without.stderr).contains("WEBHOOK_SECRET"));
}

#[test]
fn send_posts_every_line_of_a_file_however_it_is_packed() {
    let server = Server::start();
    let folder = server.folder();
    let plain = lines(30);
    let packed = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    for (name, bytes) in [("a.ndjson", &plain), ("a.ndjson.gz", &packed), ("a.ndjson.zst", &zstd)] {
        let path: PathBuf = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let output = send(&server, path.to_str().unwrap(), &["--concurrency", "4"], b"");
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(stdout(&output).contains("answer 200  30\n"), "{name}: {}", stdout(&output));
    }
    let output = send(&server, "-", &["--rate", "1000", "--json"], &plain);
    assert!(stdout(&output).contains("\"sent\":30"), "{output:?}");
    assert_eq!(server.get("/stats").json()["total_messages"], 30);
}

#[test]
fn send_reads_every_frame_of_a_zstd_file_and_says_where_one_breaks_off() {
    let server = Server::start();
    let path = server.folder().path().join("a.ndjson.zst");
    let compress = |id: &str| {
        let line = [body(&message(id)), b"\n".to_vec()].concat();
        ruzstd::encoding::compress_to_vec(line.as_slice(), ruzstd::encoding::CompressionLevel::Fastest)
    };
    // A skippable frame between two frames, as parallel compressors write it.
    let passed_over = [&0x184D_2A50u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc"].concat();
    let whole = [compress("a"), passed_over.clone(), compress("b"), passed_over].concat();
    std::fs::write(&path, &whole).unwrap();
    let output = send(&server, path.to_str().unwrap(), &[], b"");
    assert!(output.status.success() && stdout(&output).contains("answer 200  2\n"), "{output:?}");
    assert_eq!(server.rows(), 2);

    for (cut, sent) in [(whole.len() - 1, "sent        2 "), (whole.len() - 20, "sent        1 ")] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let output = send(&server, path.to_str().unwrap(), &[], b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stdout(&output).starts_with(sent) && told.contains("stopped early"), "{cut}: {output:?}");
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    }
}

#[test]
fn what_nobody_takes_of_the_output_is_no_crash() {
    let server = Server::start();
    let (port, url) = (server.address.port().to_string(), format!("sqlite:///{}", server.database().display()));
    let run = |arguments: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command.args(arguments).env_clear().env("WEBHOOK_SECRET", SECRET).env("DATABASE_URL", &url).env("PORT", &port);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().expect("the program runs");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").expect("Linux"));
    for arguments in
        [&["sign"][..], &["health"], &["check"], &["send", "-"], &["send", "-", "--json"], &["completions", "bash"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(arguments, writer.into(), Stdio::piped()), (Some(1), String::new()), "{arguments:?}");
        let (code, told) = run(arguments, full(), Stdio::piped());
        assert_eq!((code, told.lines().count()), (Some(1), 1), "{arguments:?}: {told}");
        assert!(told.starts_with("postroom: cannot write to stdout"), "{arguments:?}: {told}");
    }
    assert_eq!(run(&["send", "absent"], Stdio::null(), full()).0, Some(1));
}

#[test]
fn send_goes_to_the_port_of_the_settings_where_no_url_is_given() {
    let setup = Setup::new().env("WHATSAPP_APP_SECRET", SECRET);
    let folder = setup.path().to_owned();
    let server = setup.start();
    std::fs::write(folder.join("lines"), lines(2)).unwrap();
    for arguments in [&["send", "lines"][..], &["send", "--as", "whatsapp"]] {
        let mut command = Setup::in_folder(server.folder()).env("WHATSAPP_APP_SECRET", SECRET).command();
        let output = command.env("PORT", server.address.port().to_string()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    assert_eq!(server.rows(), 3);
}

#[test]
fn send_says_what_was_refused_and_exits_with_1() {
    let server = Server::start();
    let output = send(&server, "-", &[], b"{\"message_id\":\"\"}\nnonsense\n");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("line 1: 422 ") && told.contains("line 2: 422 "), "{told}");
    assert!(stdout(&output).contains("answer 422  2\n"));
}

#[test]
fn send_outlives_a_service_that_comes_back() {
    // A loopback address that only this test uses, so no other test takes the port while it is free.
    const HOST: &str = "127.0.78.1";
    let first = Setup::new().env("HOST", HOST).start();
    let address = first.address;
    let folder = first.folder();
    let sender = std::thread::spawn(move || {
        let url = format!("http://{address}/webhook");
        postroom(&["send", "-", "--url", &url, "--rate", "200", "--tries", "100", "--json"], &lines(200))
    });
    first.wait_for_line(|line| line["result"] == "created");
    first.kill();
    let second = Setup::in_folder(folder).env("HOST", HOST).env("PORT", address.port()).start();
    let output = sender.join().expect("the sender ends");
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("\"200\":200"), "{}", stdout(&output));
    assert_eq!(second.get("/stats").json()["total_messages"], 200);
}

#[test]
fn send_tries_again_what_a_proxy_could_not_hand_on() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", proxy.local_addr().expect("it is bound"));
    let sender = std::thread::spawn(move || postroom(&["send", "-", "--json", "--url", &url], &lines(1)));
    for status in ["502 Bad Gateway", "504 Gateway Timeout", "200 OK"] {
        let mut stream = proxy.accept().expect("it is tried again").0;
        let mut request = Vec::new();
        let mut piece = [0; 4_096];
        while !request.ends_with(b"}") {
            let read = std::io::Read::read(&mut stream, &mut piece).expect("a request");
            request.extend_from_slice(&piece[..read]);
        }
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}").expect("it reads");
    }
    let output = sender.join().expect("it ends");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!((&summary["statuses"]["200"], &summary["retries"]), (&1.into(), &2.into()), "{output:?}");
}

#[test]
fn send_that_is_stopped_tells_what_was_answered() {
    let server = Server::start();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let url = format!("http://{}", server.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command.args(["send", "-", "--json", "--url", &url]).env_clear().env("WEBHOOK_SECRET", SECRET);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        // Its input stays open: it would wait for more forever.
        let mut input = child.stdin.take().expect("piped");
        (0..5).for_each(|at| writeln!(input, "{}", message(&format!("{name}{at}"))).expect("it reads"));
        let last = format!("{name}4");
        server.wait_for_line(|line| line["message_id"] == last);
        crate::harness::server::signal(child.id(), name);
        let output = child.wait_with_output().expect("it ends");
        drop(input);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a summary");
        // The response to the last message may be lost.
        assert!(summary["statuses"]["200"].as_u64() >= Some(4) && summary["failed"] == 0, "{summary}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(&format!("stopped by SIG{name}")), "{told}");
    }
    assert_eq!(server.rows(), 10);
}

#[test]
fn what_cannot_be_sent_is_told_in_a_line() {
    for arguments in [
        &["send", "absent.ndjson"][..],
        &["send", "-", "--url", "https://example.com"],
        &["send", "-", "--url", "nonsense"],
        &["send", "-", "--url", "http://localhost:65536"],
        &["send", "-", "--rate", "0"],
        &["send", "-", "--rate", "1e-300"],
    ] {
        let output = postroom(arguments, b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{arguments:?}: {told}");
    }
}

#[test]
fn health_exits_0_only_for_a_service_that_is_ready() {
    let server = Server::start();
    let url = format!("http://{}", server.address);
    let output = postroom(&["health", "--url", &url], b"");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "{\"status\":\"ready\"}\n"));
    server.stored().execute("DROP TABLE messages");
    let output = postroom(&["health", "--url", &url], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("database not ready"));
    server.kill();
    assert_eq!(postroom(&["health", "--url", &url], b"").status.code(), Some(1));
}

#[test]
fn check_finds_what_is_wrong_with_settings_and_data() {
    if !on_a_file("it damages the file and its index; postgres/ has what is wrong there") {
        return;
    }
    let server = Server::start();
    ["a", "B"].iter().for_each(|id| server.store(&message(id)));
    let folder = server.folder();
    let run = |more: &[&str]| {
        let mut setup = Setup::in_folder(folder.clone()).arg("check");
        for argument in more {
            setup = setup.arg(argument);
        }
        let (status, stdout, stderr) = setup.run();
        (status.code(), stdout, stderr)
    };
    let (code, told, _) = run(&["--data"]);
    assert!(code == Some(0) && told.contains("2 messages") && told.contains("integrity ok"), "{told}");
    let (code, _, told) = run(&["--database-url", "sqlite:////tmp"]);
    assert!(code == Some(1) && told.contains("/tmp is a folder"), "{told}");
    let (code, _, told) = run(&["--port", "99999"]);
    assert!(code == Some(2) && told.starts_with("postroom: --port must be"), "{told}");
    let other = rusqlite::Connection::open(server.database()).unwrap();
    // This edit of the schema makes the key's order wrong.
    let wrong = "PRAGMA writable_schema = 1; UPDATE sqlite_master SET
        sql = replace(sql, 'message_id TEXT', 'message_id TEXT COLLATE NOCASE') WHERE name = 'messages'";
    other.execute_batch(wrong).unwrap();
    let (code, told, _) = run(&["--data"]);
    assert!(code == Some(1) && told.contains("missing from index"), "{told}");
    // `check` leaves no files behind, and `reindex` repairs the file.
    drop(other);
    assert_eq!(server.stop().0.code(), Some(0));
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    assert_eq!(run(&["--data"]).0, Some(1));
    assert_eq!(names(), before);
    let (status, told, _) = Setup::in_folder(folder.clone()).arg("reindex").run();
    assert!(status.success() && told.contains("rebuilt for 2 messages"), "{told}");
    let (code, told, _) = run(&["--data"]);
    assert!(code == Some(0) && told.contains("index          covers 2 messages"), "{told}");
    // A changed byte of the index is found in any part.
    let part = std::fs::read_dir(folder.path().join("app.db-index"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "part"))
        .expect("it has a file");
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (code, told, _) = run(&["--data"]);
    assert!(code == Some(1) && told.contains("`postroom reindex` rebuilds"), "{told}");
    let (status, told, _) = Setup::in_folder(folder.clone()).arg("reindex").run();
    assert!(status.success(), "{told}");
    assert_eq!(run(&["--data"]).0, Some(0));
}

#[test]
fn help_version_and_completions_are_there() {
    for subcommand in ["serve", "sign", "send", "health", "check", "reindex", "completions"] {
        let output = postroom(&[subcommand, "--help"], b"");
        assert!(output.status.success() && stdout(&output).contains("Usage: postroom"), "{subcommand}");
    }
    assert!(stdout(&postroom(&["--version"], b"")).contains(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&postroom(&["completions", shell], b"")).contains("postroom"), "{shell}");
    }
    assert_eq!(postroom(&["nonsense"], b"").status.code(), Some(2));
}
