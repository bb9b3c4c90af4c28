//! The program as a process: its requirements, refused starts, and its stop.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use domain::Secret;
use providers::SigningKey;
use serde_json::{Value, json};

use crate::harness::{Client, Running, SECRET, Server, Setup, body, message, sign, wait_until};

/// Starts a program that must refuse. Returns its output: one JSON line on stderr, and nothing on stdout.
fn refusal(setup: &Setup) -> String {
    let mut program = Running::spawn(setup.command().stdout(Stdio::piped()).stderr(Stdio::piped()));
    let status = program.wait();
    let stdout = std::io::read_to_string(program.stdout()).unwrap();
    let stderr = std::io::read_to_string(program.stderr()).unwrap();
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.len() < 400, "short: {stderr}");
    let line: Value = serde_json::from_str(&stderr).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!(line["level"], "CRITICAL");
    line["message"].as_str().expect("a message").to_owned()
}

/// Asserts that the refusal contains this text.
fn assert_refused(setup: &Setup, names: &str) -> String {
    let message = refusal(setup);
    assert!(message.contains(names), "{names} is not named: {message}");
    message
}

/// The names of all files in a folder.
fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The log line with the effective configuration.
fn start_line(server: &Server) -> Value {
    server.wait_for_line(|line| line["address"].is_string())
}

#[test]
fn without_a_secret_it_does_not_start() {
    assert_refused(&Setup::new().without("WEBHOOK_SECRET"), "WEBHOOK_SECRET");
    assert_refused(&Setup::new().env("WEBHOOK_SECRET", ""), "WEBHOOK_SECRET");
    let setup = Setup::new().without("WEBHOOK_SECRET").arg("serve");
    assert_refused(&setup, "WEBHOOK_SECRET");
    assert_eq!(names_in(setup.path()), [""; 0], "nothing is left behind");
}

#[test]
fn the_key_is_the_exact_bytes_of_the_secret() {
    let long = "k".repeat(200);
    for secret in ["x", " blanks around ", "пароль 🔑", "\"$`\\", "line\n", &long] {
        let server = Setup::new().env("WEBHOOK_SECRET", secret).start();
        let body = body(&message("m1"));
        let post = |secret: &str| {
            let signature = SigningKey::new(&Secret::new(secret).unwrap()).sign(&body);
            server.client().request("POST", "/webhook", &[("X-Signature", &signature)], &body).unwrap().status
        };
        assert_eq!((post(&format!("{secret} ")), post(SECRET), post(secret)), (401, 401, 200), "{secret:?}");
    }
}

#[test]
fn secrets_may_come_from_files() {
    let setup = Setup::new();
    let write = |name: &str, text: &str| {
        let path = setup.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (secret, empty, token) = (write("secret", "testsecret\n"), write("empty", "\n"), write("token", "reader\n"));
    let none = setup.path().join("none").display().to_string();
    let with = |path: &str| Setup::new().without("WEBHOOK_SECRET").env("WEBHOOK_SECRET_FILE", path);
    assert_refused(&with(&none), "WEBHOOK_SECRET_FILE");
    assert_refused(&with(&empty), "WEBHOOK_SECRET");
    assert_refused(&with(&secret).env("WEBHOOK_SECRET", SECRET), "WEBHOOK_SECRET");
    assert_refused(&Setup::new().env("API_TOKEN_FILE", &none), "API_TOKEN_FILE");
    assert_refused(&Setup::new().env("API_TOKEN", ""), "API_TOKEN");
    let server = with(&secret).env("API_TOKEN_FILE", &token).start();
    server.store(&message("m1"));
    assert_eq!(server.get("/messages").status, 401);
    let reply = server.client().request("GET", "/messages", &[("Authorization", "Bearer reader")], b"").unwrap();
    assert_eq!(reply.json()["total"], 1);
}

#[test]
fn tokens_of_higher_scopes_are_settings_like_the_one_for_reading() {
    for (name, shared) in
        [("POSTROOM_API_OPERATOR_TOKEN", "API_TOKEN"), ("POSTROOM_API_ADMIN_TOKEN", "POSTROOM_API_OPERATOR_TOKEN")]
    {
        for bad in ["", "a,,b", "sha256:abc"] {
            assert_refused(&Setup::new().env(name, bad), name);
        }
        let setup = Setup::new();
        let file = setup.path().join("token");
        fs::write(&file, "from-a-file\n").unwrap();
        let file_variable = format!("{name}_FILE");
        assert_refused(&Setup::new().env(&file_variable, "/none"), &file_variable);
        assert_refused(&Setup::new().env(name, "x").env(&file_variable, file.display()), name);
        let server = setup.env("API_TOKEN", "reader").env(&file_variable, file.display()).start();
        let reply = server.client().request("GET", "/messages", &[("X-Postroom-Token", "from-a-file")], b"").unwrap();
        assert_eq!(reply.status, 200, "{name}");

        let (status, stdout, _) =
            Setup::new().env(name, "good-token").env("API_TOKEN", "other-token").arg("check").run();
        assert!(status.success() && !stdout.contains("caution        ") && !stdout.contains("good-token"), "{stdout}");
        let twice = Setup::new().env(name, "same-token").env(shared, "other-token, same-token");
        let (status, stdout, _) = twice.arg("check").run();
        let caution = format!("caution        {name} has a token that {shared} has too");
        assert!(status.success() && stdout.contains(&caution) && !stdout.contains("same-token"), "{stdout}");
    }
    let misspelt = Setup::new().env("POSTROOM_API_OPERATER_TOKEN", "x");
    assert_refused(&misspelt, "did you mean POSTROOM_API_OPERATOR_TOKEN?");
    let (status, _, stderr) = Setup::new().arg("serve").arg("--api-operator-token=x").run();
    assert!(status.code() == Some(2) && stderr.contains("unexpected argument"), "no flag has a secret: {stderr}");
}

#[test]
fn database_urls_that_are_not_supported_leave_nothing_behind() {
    let urls = [
        "postgres://user:hunter2@db:port/x",
        "postgresql://user:hunter2@db/x?sslmode=maybe",
        "postgresql:user:hunter2@db/x",
        "mysql://root:hunter2@db",
        "mongodb://x",
        "file:app.db",
        "app.db",
        "/data/app.db",
        "sqlite:app.db",
        "sqlite://app.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "SQLITE:///x",
        " sqlite:///x.db",
    ];
    for url in urls {
        let setup = Setup::new().env("DATABASE_URL", url);
        let message = assert_refused(&setup, "DATABASE_URL");
        assert!(!message.contains("hunter2"), "{message}");
        assert_eq!(names_in(setup.path()), [""; 0], "{url}");
    }
}

#[test]
fn the_path_of_a_database_url_is_taken_as_it_stands_and_its_folders_are_made() {
    let setup = Setup::new();
    let absolute = setup.path().join("abs/deep/a%20b?.db").display().to_string();
    let cases = [
        ("sqlite:///rel.db".to_owned(), "rel.db"),
        ("sqlite:///new/folder/r%41l #1.db".to_owned(), "new/folder/r%41l #1.db"),
        (format!("sqlite:///{absolute}"), &absolute),
    ];
    for (url, path) in cases {
        let setup = Setup::new().env("DATABASE_URL", &url);
        let path = setup.path().join(path);
        let server = setup.start();
        let _folder = server.folder();
        server.store(&message("m1"));
        let (status, _, stderr) = server.stop();
        assert!(status.success() && stderr.is_empty(), "{url}: {status} {stderr}");
        let connection = rusqlite::Connection::open(path).unwrap();
        assert_eq!(connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)), Ok(1), "{url}");
    }
}

#[test]
fn a_file_that_is_no_database_of_ours_is_refused_and_left_as_it_was() {
    let header = [&b"SQLite format 3\0"[..], &[0xee; 5_000]].concat();
    let foreign = {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)").unwrap();
        drop(connection);
        fs::read(path).unwrap()
    };
    for content in [b"not a database, but somebody's letter\n".repeat(100), vec![0; 4_096], header, foreign] {
        let setup = Setup::new();
        fs::write(setup.database(), &content).unwrap();
        assert_refused(&setup, "DATABASE_URL");
        assert!(fs::read(setup.database()).unwrap() == content, "it is byte for byte as it was");
        assert_eq!(names_in(setup.path()), ["app.db"]);
    }
    let setup = Setup::new();
    fs::create_dir(setup.database()).unwrap();
    assert_refused(&setup, "DATABASE_URL");
}

#[test]
fn a_file_that_may_only_be_read_is_refused() {
    // Root may write everything, so the program runs as another user.
    let somebody = |command: &mut Command, folder: &Path| {
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65_534).gid(65_534);
            for path in [folder.to_owned(), folder.join("app.db")] {
                std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
            }
        }
    };
    let server = Server::start();
    let (database, folder) = (server.database(), server.folder());
    assert_eq!(server.stop().0.code(), Some(0));
    fs::remove_dir_all(folder.path().join("app.db-index")).unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o444)).unwrap();
    let mut version = Setup::new().arg("--version").command();
    somebody(&mut version, folder.path());
    if version.current_dir("/").output().is_err() {
        println!("skipped: the program cannot be run by another user");
        return;
    }
    let mut command = Setup::in_folder(folder.clone()).command();
    somebody(&mut command, folder.path());
    let mut program = Running::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let status = program.wait();
    let told = std::io::read_to_string(program.stderr()).unwrap();
    assert!(status.code() == Some(1) && told.contains("cannot be written by this user"), "{told}");
}

#[test]
fn an_address_that_cannot_be_bound_is_refused() {
    for port in ["99999", "65536", "-1", "abc", "80 80", "0x50", "1.5"] {
        let setup = Setup::new().env("PORT", port);
        assert_refused(&setup, "PORT");
        assert_eq!(names_in(setup.path()), [""; 0]);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new().env("PORT", taken.local_addr().unwrap().port());
    assert_refused(&setup, "PORT");
    assert_eq!(names_in(setup.path()), [""; 0], "a second start by mistake does not touch the database");
    assert_refused(&Setup::new().env("HOST", "no such host"), "HOST");
}

/// Starts the program with a log level, sends one request of
/// each kind, stops it and returns the levels of its log lines.
fn levels_logged_at(least: &str) -> Vec<String> {
    // With most levels the line with the address is not
    // logged, so the port is chosen here: it was free just
    // now, on a loopback address that no other test uses.
    let address: SocketAddr = TcpListener::bind("127.0.77.1:0").unwrap().local_addr().unwrap();
    let setup = Setup::new().env("LOG_LEVEL", least).env("HOST", "127.0.77.1").env("PORT", address.port());
    let log = setup.path().join("log");
    let mut program = Running::spawn(setup.command().stdout(fs::File::create(&log).unwrap()));
    let mut client = wait_until("it listens", || Client::try_connect(address).ok());
    let body = body(&message("m1"));
    let statuses = [
        client.post(&body).status,
        client.post(b"{}").status,
        client.request("POST", "/webhook", &[], &body).unwrap().status,
    ];
    assert_eq!(statuses, [200, 422, 401]);
    assert!(program.stop().success());
    let lines = fs::read_to_string(log).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut levels: Vec<String> = lines.map(|line| line["level"].as_str().unwrap().to_owned()).collect();
    levels.sort();
    levels.dedup();
    levels
}

#[test]
fn the_log_level_is_taken_in_either_case_and_cuts_off_what_is_below() {
    let cases: [(&str, &[&str]); 7] = [
        ("debug", &["ERROR", "INFO", "WARNING"]),
        ("INFO", &["ERROR", "INFO", "WARNING"]),
        ("info", &["ERROR", "INFO", "WARNING"]),
        ("Warning", &["ERROR", "WARNING"]),
        ("error", &["ERROR"]),
        ("CRITICAL", &[]),
        ("critical", &[]),
    ];
    for (level, expected) in cases {
        assert_eq!(levels_logged_at(level), expected, "{level}");
    }
    for wrong in ["loud", "warn ing", "10"] {
        assert_refused(&Setup::new().env("LOG_LEVEL", wrong), "LOG_LEVEL");
    }
}

#[test]
fn a_flag_counts_before_the_environment_before_the_file_before_the_default() {
    let setup = Setup::new();
    let file = setup.path().join("postroom.toml");
    fs::write(&file, "[server]\nmax_body_bytes = 1000\ngrace_seconds = 11\n[store]\nbatch_max = \"12\"\nreaders = 3\n")
        .unwrap();
    let named = file.display().to_string();
    let settings = |setup: Setup| {
        let line = start_line(&setup.env("POSTROOM_STORE_BATCH_MAX", 22).start());
        json!(["max_body_bytes", "grace_seconds", "batch_max", "readers", "queue_max"].map(|name| line[name].clone()))
    };
    assert_eq!(settings(Setup::new().env("POSTROOM_CONFIG", &named)), json!([1000, 11, 22, 3, 1024]));
    assert_eq!(settings(Setup::new().arg("serve").arg("--config").arg(&named)), json!([1000, 11, 22, 3, 1024]));
    let flags = Setup::new().arg("serve").arg("--store-batch-max=32").arg("--max-body-bytes").arg("33");
    assert_eq!(settings(flags.env("POSTROOM_CONFIG", &named)), json!([33, 11, 32, 3, 1024]));
    assert_eq!(settings(Setup::new()), json!([1 << 20, 10, 22, 2, 1024]));
}

#[test]
fn what_no_setting_has_is_refused_with_a_suggestion() {
    let with_file = |text: &str| {
        let setup = Setup::new();
        fs::write(setup.path().join("postroom.toml"), text).unwrap();
        setup.env("POSTROOM_CONFIG", "postroom.toml")
    };
    for (text, names) in [
        ("[server]\nprot = 1\n", "server.port"),
        ("[sever]\nport = 1\n", "server.port"),
        ("port = 1\n", "port"),
        ("[server]\nport = [1]\n", "server.port"),
        ("[server]\nmax_body_bytes = \"many\"\n", "server.max_body_bytes"),
        ("[server\n", "postroom.toml"),
        ("[webhook]\nsecret = \"in clear\"\n", "webhook.secret_file"),
    ] {
        let message = assert_refused(&with_file(text), names);
        assert!(message.contains("postroom.toml") && !message.contains("in clear"), "{message}");
    }
    assert_refused(&Setup::new().env("POSTROOM_CONFIG", "nowhere.toml"), "nowhere.toml");
    for setting in ["POSTS_PER_SECOND", "BODY_BYTES_MAX"] {
        let old = Setup::new().env(&format!("POSTROOM_DOORS_{setting}"), 5);
        assert_refused(&old, &format!("did you mean POSTROOM_SOURCES_{setting}?"));
    }
    let misspelt = Setup::new().env("POSTROOM_SERVER_IDLE_SECOND", 5);
    assert_refused(&misspelt, "POSTROOM_SERVER_IDLE_SECONDS");
    let (status, _, stderr) = Setup::new().arg("serve").arg("--store-batchmax=1").run();
    assert!(!status.success() && stderr.contains("--store-batch-max"), "{stderr}");
}

#[test]
fn a_signal_ends_it_with_0_and_one_complete_file_though_connections_are_open() {
    for signal in ["TERM", "INT"] {
        let server = Server::start();
        let mut resting = server.client();
        resting.post(&body(&message("m1")));
        let _untouched = server.client();
        let mut half = server.client();
        half.send_raw(b"POST /webhook HTTP/1.1\r\nHost:").unwrap();
        wait_until("all are accepted", || server.metric("postroom_connections").filter(|open| *open >= 4.0));
        let folder = server.folder();
        server.signal(signal);
        let (status, lines, stderr) = server.wait();
        assert!(status.success() && stderr.is_empty(), "SIG{signal}: {status} {stderr}");
        assert_eq!(lines.last().unwrap()["message"], "stopped");
        assert_eq!(
            names_in(folder.path()),
            ["app.db", "app.db-index"],
            "no log beside it, only what can be built anew"
        );
        let copy = folder.path().join("copy.db");
        fs::copy(folder.path().join("app.db"), &copy).unwrap();
        let connection = rusqlite::Connection::open(copy).unwrap();
        assert_eq!(connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)), Ok(1));
    }
}

#[test]
fn a_request_under_way_is_finished_before_the_stop_and_a_second_signal_does_not_wait_for_it() {
    let patient = || {
        ["GRACE", "BODY", "REQUEST"]
            .into_iter()
            .fold(Setup::new(), |setup, name| setup.env(&format!("POSTROOM_SERVER_{name}_SECONDS"), 3_600))
    };
    let body = body(&message("m1"));
    // The server requests the body only while it processes the request.
    let begin = |server: &Server| {
        let mut client = server.client();
        let head = format!("Expect: 100-continue\r\nX-Signature: {}\r\nContent-Length: {}", sign(&body), body.len());
        client.send_raw(format!("POST /webhook HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(client.receive().unwrap().status, 100);
        server.signal("TERM");
        server.wait_for_line(|line| line["reason"] == "SIGTERM");
        client
    };
    let server = patient().start();
    let mut client = begin(&server);
    client.send_raw(&body).unwrap();
    assert_eq!(client.receive().unwrap().status, 200);
    assert!(server.wait().0.success());

    let server = patient().start();
    server.store(&message("m0"));
    let mut client = begin(&server);
    server.signal("INT");
    let folder = server.folder();
    let (status, _, stderr) = server.wait();
    assert!(!status.success(), "{status}");
    assert_eq!(serde_json::from_str::<Value>(&stderr).unwrap()["message"], "stopped at once");
    assert!(client.receive().is_err());
    let server = Setup::in_folder(folder).start();
    assert_eq!(server.get("/messages").json()["total"], 1, "what was acknowledged is there");
}

/// Common mistakes in setting the secret, and the word that identifies each.
const DOUBTFUL: [(&str, &str); 6] = [
    ("\"testsecret\"", "quotation mark"),
    ("'testsecret'", "quotation mark"),
    (" testsecret", "white space"),
    ("test\nsecret", "line break"),
    ("\u{feff}testsecret", "byte order mark"),
    ("s", "fewer than 8 bytes"),
];

#[test]
fn a_secret_that_is_probably_a_mistake_is_named_by_the_start_and_by_check() {
    for (secret, part) in DOUBTFUL {
        let caution = |line: &str| line.starts_with("WEBHOOK_SECRET ") && line.contains(part);
        let setup = || Setup::new().env("WEBHOOK_SECRET", secret);
        let (status, stdout, stderr) = setup().arg("check").run();
        assert!(status.success(), "{stdout}{stderr}");
        let named = stdout.lines().any(|line| line.strip_prefix("caution        ").is_some_and(caution));
        assert!(named && !stdout.contains("testsecret"), "{secret:?}: {stdout}");
        let server = setup().start();
        let line = server.wait_for_line(|line| line["message"].as_str().is_some_and(caution));
        assert_eq!(line["level"], "WARNING");
        // It is still the secret, byte for byte.
        let body = body(&message("m1"));
        let signature = SigningKey::new(&Secret::new(secret).unwrap()).sign(&body);
        let reply = server.client().request("POST", "/webhook", &[("X-Signature", signature.as_str())], &body);
        assert_eq!(reply.unwrap().status, 200, "{secret:?}");
    }
}

#[test]
fn tokens_verify_tokens_and_files_of_secrets_are_looked_at_alike_and_good_ones_pass() {
    let setup = Setup::new();
    let file = setup.path().join("token");
    fs::write(&file, "\u{feff}a-good-token\r\n").unwrap();
    let setup = setup
        .env("API_TOKEN_FILE", file.display())
        .env("WHATSAPP_APP_SECRET", "'app-secret'")
        .env("WHATSAPP_VERIFY_TOKEN", "verify-token ")
        .env("POSTROOM_SERVER_TRUSTED_PROXIES", "10.0.0.1, 0.0.0.0/0");
    let (status, stdout, stderr) = setup.arg("check").run();
    assert!(status.success(), "{stderr}");
    let cautions: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("caution        ")).collect();
    for name in ["API_TOKEN ", "WHATSAPP_APP_SECRET ", "WHATSAPP_VERIFY_TOKEN ", "POSTROOM_SERVER_TRUSTED_PROXIES "] {
        assert_eq!(cautions.iter().filter(|caution| caution.starts_with(name)).count(), 1, "{name}: {stdout}");
    }
    assert_eq!(cautions.len(), 4, "{stdout}");
    let good = Setup::new().env("API_TOKEN", "first-token, second-token").env("TELEGRAM_SECRET_TOKEN", "a token 'x' y");
    let (_, stdout, _) = good.env("POSTROOM_SERVER_TRUSTED_PROXIES", "10.0.0.0/8").arg("check").run();
    assert!(!stdout.contains("caution        "), "{stdout}");
}

#[test]
fn the_words_of_other_loggers_for_levels_are_understood() {
    assert_eq!(levels_logged_at("WARN"), levels_logged_at("WARNING"));
    assert_eq!(levels_logged_at("fatal"), levels_logged_at("CRITICAL"));
}

#[test]
fn check_finds_what_this_user_cannot_write_where_the_service_would_fail() {
    let setup = Setup::new();
    let folder = setup.path().join("data");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(setup.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |argument: &str, file: &str| {
        let mut command = Setup::new().arg(argument).command();
        command.current_dir("/").env("DATABASE_URL", format!("sqlite:///{}", folder.join(file).display()));
        // Root may write everything, so the program runs as another user.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65_534).gid(65_534);
        }
        command.output().map(|output| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        })
    };
    if run("--version", "app.db").is_err() {
        return println!("skipped: the program cannot be run by another user");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    for file in ["app.db", "made/when/needed/app.db"] {
        let (status, stdout, _) = run("check", file).unwrap();
        let (served, ..) = run("serve", file).unwrap();
        assert_eq!((status, served), (Some(1), Some(1)), "{file}: {stdout}");
        let problem = format!("problem        {} cannot be written to", folder.display());
        assert!(stdout.contains(&problem) && !stdout.contains("creates it"), "{file}: {stdout}");
    }
    fs::write(folder.join("file"), "").unwrap();
    let (status, stdout, _) = run("check", "file/app.db").unwrap();
    assert!(status == Some(1) && stdout.contains("file is not a folder"), "{stdout}");
    assert_eq!(run("serve", "file/app.db").unwrap().0, Some(1));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let (status, stdout, _) = run("check", "app.db").unwrap();
    assert!(status == Some(0) && stdout.contains("the first start creates it"), "{stdout}");
    assert!(!folder.join("app.db").exists(), "nothing is made to find out");
    // A log of another user next to it.
    fs::write(folder.join("app.db-wal"), "").unwrap();
    fs::set_permissions(folder.join("app.db-wal"), fs::Permissions::from_mode(0o400)).unwrap();
    let (status, stdout, _) = run("check", "app.db").unwrap();
    assert!(status == Some(1) && stdout.contains("app.db-wal cannot be read and written"), "{stdout}");
}
