//! `postroom bench` on a tiny inbox: its
//! output, its correct counts, and no remaining
//! processes. Measured times are not checked.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::cluster::{self, sql};
use crate::harness::{Client, SECRET, body, message, sign, wait_until};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
    command.arg("bench").args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs the smallest measurement, in a folder.
fn measure(folder: &Path, more: &[&str]) -> Output {
    let mut command = command(&[
        "--rows",
        "300",
        "--rounds",
        "1",
        "--messages",
        "20",
        "--requests",
        "2",
        "--seconds",
        "1",
        "--rates",
        "50,200",
    ]);
    command.arg("--folder").arg(folder).args(more).output().expect("the program runs")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("names are text"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_section_is_measured_and_told_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = measure(folder.path(), &["--connections", "1,64", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON value");
    assert_eq!(report["plan"]["rows"], 300);
    assert!(report["machine"]["filesystem"].is_string());

    let startup = &report["startup"];
    assert!(startup["dataset_rows_per_second"].is_number() && startup["again_ready_ms"]["median"].is_number());
    let rows = report["ingest"].as_array().unwrap();
    let cases: Vec<_> =
        rows.iter().map(|row| (row["case"].as_str().unwrap(), &row["connections"], &row["requests"])).collect();
    let expected = [
        ("floor", 1, 3),
        ("empty", 1, 3),
        ("floor", 64, 20),
        ("empty", 64, 20),
        ("filled", 64, 20),
        ("duplicates", 64, 20),
        ("bad_signatures", 64, 20),
        ("floor_bad_signatures", 64, 20),
    ];
    assert!(
        cases
            .iter()
            .map(|(case, connections, requests)| (*case, connections.as_i64().unwrap(), requests.as_i64().unwrap()))
            .eq(expected),
        "{cases:?}"
    );
    for row in rows {
        // Counts unexpected statuses: 401 is expected for bad signatures, also from the floor, and 200 otherwise.
        assert_eq!(row["unexpected"], 0, "{row}");
        let stores = !row["case"].as_str().unwrap().starts_with("floor");
        assert_eq!(row["ratio"].is_object() && row["ratio_caught_up"].is_object(), stores, "{row}");
        assert_eq!(row["file_bytes"].is_object(), row["case"] == "empty", "{row}");
        assert_eq!(row["ratio_to_empty"].is_object(), row["case"] == "filled", "{row}");
    }

    let latency = report["latency"].as_array().unwrap();
    let rates: Vec<_> =
        latency.iter().map(|row| (row["filled"].as_bool().unwrap(), row["answered"].as_i64().unwrap())).collect();
    assert_eq!(rates, [(false, 50), (false, 200), (true, 50), (true, 200)]);
    assert!(latency.iter().all(|row| row["unexpected"] == 0 && row["statuses"]["200"] == row["answered"]));

    let kinds = report["reads"]["kinds"].as_array().unwrap();
    assert!(kinds.len() > 20);
    assert!(kinds.iter().all(|kind| kind["requests"].as_i64().unwrap() > 0 && kind["unexpected"] == 0), "{kinds:?}");
    assert_eq!(report["reads"]["arrivals"]["statuses"]["200"], report["reads"]["arrivals"]["answered"]);
    assert!(report["memory"]["idle_mib"].as_f64().unwrap() > 0.0);
    assert_eq!(names(folder.path()), ["dataset-300-v1.db"], "only the dataset is kept");
}

#[test]
fn the_dataset_is_kept_and_is_the_same_in_every_folder() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dump = |folder: &TempDir| -> Vec<(String, String, Option<String>)> {
        let output = measure(folder.path(), &["--only", "startup"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let connection = rusqlite::Connection::open(folder.path().join("dataset-300-v1.db")).unwrap();
        let mut statement = connection
            .prepare("SELECT message_id, ts || from_msisdn || created_at, text FROM messages ORDER BY rowid")
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let rows = dump(&one);
    assert_eq!(rows.len(), 300);
    assert_eq!(rows, dump(&other));
    let holding = |word: &str| {
        rows.iter().filter(|(_, _, text)| text.as_ref().is_some_and(|text| text.to_lowercase().contains(word))).count()
    };
    assert_eq!([holding("quokka"), holding("zanzibar"), holding("refund"), holding("please")], [0, 10, 1, 100]);
    assert_eq!([holding("蜃楼"), holding("退款")], [10, 1]);

    let again = measure(one.path(), &["--only", "startup"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("was there"), "{again:?}");
}

#[test]
fn replicas_on_postgresql_are_measured_and_their_databases_dropped() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let run = |more: &[&str]| {
        let mut command = command(&["--rows", "300", "--rounds", "1", "--messages", "20", "--requests", "2"]);
        command.args(["--seconds", "1", "--connections", "4", "--replicas", "1,2", "--json", "--database-url"]);
        command.arg(&url).args(more);
        // For pgbench.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.output().expect("the program runs")
    };
    let output = run(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON value");
    let shared = &report["shared"];
    let cases: Vec<_> = shared["ingest"].as_array().unwrap().iter().map(|row| row["case"].to_string()).collect();
    let expected = [r#""pgbench_bare""#, r#""pgbench_whole""#, r#""sqlite""#, r#"{"replicas":1}"#, r#"{"replicas":2}"#];
    let has_pgbench = shared["has_pgbench"] == true;
    assert_eq!(cases, expected[if has_pgbench { 0 } else { 2 }..]);
    for row in shared["ingest"].as_array().unwrap() {
        assert!(row["per_second"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["times_bare"].is_object(), has_pgbench, "{row}");
    }
    let kinds = shared["reads"]["kinds"].as_array().unwrap();
    assert!(kinds.len() > 20 && kinds.iter().all(|kind| kind["unexpected"] == 0), "{kinds:?}");
    assert!(shared["bytes_per_message"].as_f64().unwrap() > 100.0);
    let left = sql(&url, "SELECT count(*) FROM pg_database WHERE datname LIKE 'postroom_bench_%'");
    assert_eq!(left, "0", "none is left");
    let output = command(&["--database-url", "sqlite:///x.db"]).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("--database-url must be a PostgreSQL URL"), "{told}");
}

/// A floor, started like in the benchmark.
struct Floor {
    child: Child,
    address: SocketAddr,
    note: String,
}

impl Floor {
    fn start() -> Self {
        let mut child = command(&["floor"])
            .env("WEBHOOK_SECRET", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it tells its address");
        let told: Value = serde_json::from_str(&line).expect("in JSON");
        let address = told["address"].as_str().and_then(|address| address.parse().ok()).expect("an address");
        Self { child, address, note: told["note"].to_string() }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_floor_verifies_and_parses_stores_nothing_and_ends_with_its_input() {
    let mut floor = Floor::start();
    assert!(floor.address.ip().is_loopback() && floor.note.contains("STORES NOTHING"));
    let mut client = Client::connect(floor.address);
    let mut post = |signature: &str, bytes: &[u8]| {
        let reply = client.request("POST", "/webhook", &[("X-Signature", signature)], bytes).expect("an answer");
        (reply.status, reply.text())
    };
    let good = body(&message("m1"));
    assert_eq!(post(&sign(&good), &good), (200, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(post(&sign(b"other"), &good), (401, r#"{"detail":"invalid signature"}"#.to_owned()));
    assert_eq!(post("123", &good).0, 401);
    assert_eq!(post(&sign(b"{}"), b"{}").0, 422);
    assert_eq!(client.request("GET", "/messages", &[], b"").unwrap().status, 404);
    drop(floor.child.stdin.take());
    let status = wait_until("the floor ends", || floor.child.try_wait().expect("it can be asked"));
    assert!(status.success());
}

#[test]
fn the_service_has_no_way_to_the_floor() {
    for arguments in [["serve", "floor"], ["serve", "--no-store"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_postroom")).args(arguments).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let help = command(&["--help"]).output().unwrap();
    assert!(help.status.success() && !String::from_utf8_lossy(&help.stdout).contains("floor  "));
}

#[test]
fn a_signal_leaves_neither_servers_nor_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(&["--rows", "300", "--only", "memory", "--seconds", "3600", "--folder"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let server = wait_until("the service runs", || {
        let running = folder.path().join(format!("postroom-bench-{}/filled/app.db-wal", child.id())).exists();
        let children = std::fs::read_to_string(&children).ok()?;
        children.trim().parse::<u32>().ok().filter(|_| running)
    });
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let status = wait_until("the benchmark ends", || child.try_wait().expect("it can be asked"));
    assert_eq!(status.code(), Some(130));
    assert!(!Path::new(&format!("/proc/{server}/exe")).exists(), "the service was ended");
    assert_eq!(names(folder.path()), ["dataset-300-v1.db"]);
}

#[test]
fn overload_is_measured_where_it_is_asked_for_and_every_answer_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let output = measure(folder.path(), &["--only", "overload", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON value");
    let overload = &report["overload"];
    let count = |status: &str| overload["statuses"][status].as_i64().unwrap_or_default();
    assert!(count("200") > 0 && overload["unexpected"] == 0, "{overload}");
    assert_eq!(overload["refused"], count("503"));
    assert_eq!(overload["answered"], count("200") + count("503"));
    assert!(report["startup"].is_null() && report["latency"].is_null(), "nothing else is measured");
}

#[test]
fn what_cannot_be_measured_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    for (place, server, told) in [
        (folder.path(), "/nowhere/postroom", "cannot find /nowhere/postroom"),
        (folder.path(), "/bin/false", "/bin/false did not start"),
        (Path::new("/proc/nowhere"), "/bin/false", "cannot make /proc/nowhere"),
    ] {
        let output = measure(place, &["--only", "ingest-empty", "--server", server]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().last().unwrap_or_default();
        assert!(!output.status.success() && last.starts_with("postroom: ") && last.contains(told), "{stderr}");
    }
    assert!(names(folder.path()).is_empty());
}
