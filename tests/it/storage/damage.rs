//! Bytes that changed on disk, in each file of the
//! service: damaged data is never returned as valid, the
//! damage is reported, and the rest stays available.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::load::message_of;
use crate::harness::server::{Server, Setup};
use crate::harness::{body, database, message, wait_until};

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn store(server: &Server, ids: std::ops::Range<u32>) {
    for id in ids {
        let mut one = message(&format!("m{id}"));
        one["from"] = json!(format!("+1000{}", id % 5));
        one["ts"] = json!(format!("2025-01-15T10:{:02}:{:02}Z", id / 60, id % 60));
        one["text"] = json!(format!("Number {id}."));
        server.store(&one);
    }
}

fn wait_until_indexed(server: &Server) {
    wait_until("the index covers all", || server.metric("postroom_index_lag_messages").filter(|lag| *lag == 0.0));
}

fn damage_total(server: &Server, kind: &str) -> f64 {
    server.metric(&format!("postroom_damage_total{{kind=\"{kind}\"}}")).expect("it is counted")
}

/// Changes bytes like a faulty disk: the file's times stay the same.
fn rot(path: &Path, from: &[u8], to: &[u8]) {
    change(path, from, to);
    let seal = beside(path, "-index").join("closed.json");
    let mut sealed: Value = serde_json::from_slice(&fs::read(&seal).expect("it was stopped cleanly")).unwrap();
    let file = fs::metadata(path).unwrap();
    sealed["modified"] = json!([file.mtime(), file.mtime_nsec()]);
    sealed["changed"] = json!([file.ctime(), file.ctime_nsec()]);
    fs::write(seal, sealed.to_string()).unwrap();
}

/// Replaces bytes that occur once in the file.
fn change(path: &Path, from: &[u8], to: &[u8]) {
    let bytes = fs::read(path).expect("it can be read");
    let places: Vec<usize> = memmem::find_iter(&bytes, from).collect();
    assert_eq!((places.len(), from.len()), (1, to.len()), "{}", String::from_utf8_lossy(from));
    let file = fs::File::options().write(true).open(path).expect("it can be written");
    file.write_all_at(to, places[0] as u64).expect("it is written");
}

fn check_data(folder: &Arc<TempDir>) -> (bool, String) {
    let (status, stdout, stderr) = Setup::in_folder(Arc::clone(folder)).arg("check").arg("--data").run();
    (status.success(), stdout + &stderr)
}

#[test]
fn a_changed_digit_of_the_manifest_neither_hides_a_message_nor_revives_one() {
    let server = Server::start();
    store(&server, 0..40);
    wait_until_indexed(&server);
    let folder = server.folder();
    assert!(server.stop().0.success());
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    server.sql().execute("DELETE FROM messages WHERE message_id = 'm23'", []).unwrap();
    // Together with the later messages, the deletion is in the index.
    store(&server, 40..41);
    wait_until_indexed(&server);
    let answers = |server: &Server| {
        ["/messages?limit=100", "/messages?q=number+2", "/stats"].map(|target| server.get(target).text())
    };
    let expected = answers(&server);
    assert!(server.stop().0.success());
    let manifest = folder.path().join("app.db-index/manifest.json");
    change(&manifest, b"\"dead\":[23]", b"\"dead\":[22]");
    let (is_well, told) = check_data(&folder);
    assert!(!is_well && told.contains("the index on disk is damaged"), "{told}");
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    server
        .wait_for_line(|line| line["level"] == "ERROR" && line["message"].as_str().unwrap().contains("index on disk"));
    wait_until_indexed(&server);
    assert_eq!(answers(&server), expected);
    assert_eq!(damage_total(&server, "index"), 1.0);
    assert!(server.stop().0.success());
    assert!(check_data(&folder).0, "it was built anew");
}

#[test]
fn a_changed_byte_of_a_row_is_503_told_with_both_values_and_never_taken_into_the_index() {
    let server = Server::start();
    store(&server, 0..200);
    wait_until_indexed(&server);
    let folder = server.folder();
    assert!(server.stop().0.success());
    let path = folder.path().join("app.db");
    // A letter in another case is equal for a search.
    rot(&path, b"Number 77.", b"NuMber 77.");
    let (is_well, told) = check_data(&folder);
    assert!(!is_well && told.contains("m77") && told.contains("text") && !told.contains("integrity ok"), "{told}");
    assert!(!told.contains("Number 77") && !told.contains("NuMber"), "no text is told: {told}");

    for _ in 0..2 {
        let server = Setup::in_folder(Arc::clone(&folder)).start();
        wait_until_indexed(&server);
        for target in ["/messages?limit=100", "/messages?q=77.", "/messages/m77", "/messages?order=arrival&limit=100"] {
            let reply = server.get(target);
            assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"detail":"Service Unavailable"}"#), "{target}");
        }
        for target in ["/messages?limit=70", "/messages?q=78.", "/messages/m78", "/stats"] {
            assert_eq!(server.get(target).status, 200, "{target}");
        }
        assert_eq!(server.get("/messages?limit=1").json()["total"], 200);
        assert_eq!(server.get("/health/ready").status, 200, "messages are stored, and all others read");
        let line = server.wait_for_line(|line| line["table_message_id"] == "m77");
        assert_eq!(
            (&line["level"], &line["row"], &line["differs"]),
            (&json!("ERROR"), &json!(78), &json!("text or created_at"))
        );
        assert_eq!((&line["table_from"], &line["index_from"]), (&json!("+10002"), &json!("+10002")));
        assert_ne!(line["table_digest"], line["index_digest"]);
        let all = server.lines();
        assert!(!all.iter().any(|line| line.to_string().contains("umber 77")), "no text is logged");
        assert_eq!(all.iter().filter(|line| line["table_message_id"] == "m77").count(), 1, "it is told once");
        assert_eq!(damage_total(&server, "row"), 4.0);
        assert_eq!(server.metric(r#"postroom_refused_total{reason="data_damaged"}"#), Some(4.0));
        assert_eq!(damage_total(&server, "index"), 0.0, "the index is kept");
        assert!(server.stop().0.success());
        assert!(!check_data(&folder).0, "a restart does not make it right");
    }
    // An operator who wants to keep the table's values runs `reindex`.
    let (status, stdout, stderr) = Setup::in_folder(Arc::clone(&folder)).arg("reindex").run();
    assert!(status.success(), "{stdout}{stderr}");
    assert!(check_data(&folder).0);
    assert_eq!(Setup::in_folder(folder).start().get("/messages/m77").json()["text"], "NuMber 77.");
}

/// A cleanly stopped file, with three messages whose addresses no other message has.
fn with_three_of_their_own() -> Arc<TempDir> {
    let server = Server::start();
    for (id, from, to) in
        [("a1", "+4911111111", "+4922222222"), ("b1", "+4933333333", "+4944444444"), ("c1", "+49555", "+49666")]
    {
        let mut one = message(id);
        (one["from"], one["to"], one["ts"]) = (json!(from), json!(to), json!("2025-03-04T05:06:07Z"));
        server.store(&one);
    }
    store(&server, 0..20);
    wait_until_indexed(&server);
    let folder = server.folder();
    assert!(server.stop().0.success());
    folder
}

#[test]
fn a_changed_sender_recipient_or_time_is_told_by_name() {
    let folder = with_three_of_their_own();
    let path = folder.path().join("app.db");
    rot(&path, b"+4911111111", b"+4911111119");
    rot(&path, b"+4944444444", b"+4944444449");
    let (_, told) = check_data(&folder);
    assert!(
        told.contains("(from)") && told.contains("from +4911111119") && told.contains("from +4911111111"),
        "{told}"
    );
    assert!(told.contains("(to)") && told.contains("to +4944444449") && told.contains("to +4944444444"), "{told}");
    let server = Setup::in_folder(folder).start();
    wait_until_indexed(&server);
    assert_eq!(server.get("/messages?from=%2B4911111111").status, 503, "the index knows whose it was");
    assert_eq!(server.get("/messages?from=%2B4911111119").json()["total"], 0);
    assert_eq!(server.get("/messages?from=%2B49555").json()["total"], 1);
}

#[test]
fn what_differs_in_a_file_that_somebody_touched_is_logged_with_both_values_before_the_table_counts() {
    let folder = with_three_of_their_own();
    change(&folder.path().join("app.db"), b"+4911111111", b"+4911111119");
    let server = Setup::in_folder(folder).start();
    let line = server.wait_for_line(|line| line["index_from"] == "+4911111111");
    assert_eq!((&line["level"], &line["table_from"]), (&json!("ERROR"), &json!("+4911111119")));
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("is rebuilt")));
    wait_until_indexed(&server);
    assert_eq!(server.get("/messages?from=%2B4911111119").json()["total"], 1);
    assert_eq!(server.get("/messages?from=%2B4911111111").json()["total"], 0);
}

/// 300 acknowledged messages, most of them only in the log, after `kill -9`.
fn killed_with_a_log() -> Arc<TempDir> {
    let server = Setup::new().env("POSTROOM_STORE_CHECKPOINT_PAGES", 100_000).start();
    (0..300).for_each(|id| server.store(&message_of(&format!("{id}."))));
    server.kill()
}

fn change_log(folder: &Arc<TempDir>, at: impl Fn(u64) -> u64) -> Vec<u8> {
    let log = beside(&folder.path().join("app.db"), "-wal");
    let file = fs::File::options().read(true).write(true).open(&log).expect("there is a log");
    let at = at(file.metadata().unwrap().len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    fs::read(log).unwrap()
}

fn copies(folder: &Arc<TempDir>) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_str().unwrap().contains("-wal.damaged-")).collect()
}

#[test]
fn a_changed_byte_of_the_log_is_told_counted_and_a_copy_is_kept() {
    fn frame(number: u64) -> u64 {
        32 + (number - 1) * (24 + 4096)
    }
    /// A position, computed from the length of the log.
    type Place = fn(u64) -> u64;
    // In a page, a salt, a checksum, the header, its checksum; and in the very last frame, which the `-shm` file
    // still counts.
    let places: [(&str, Place, bool); 7] = [
        ("a page", |_| frame(60) + 1_000, true),
        ("a salt", |_| frame(60) + 9, false),
        ("a checksum", |_| frame(60) + 17, false),
        ("the header", |_| 9, true),
        ("the header's salt", |_| 17, false),
        ("the header's checksum", |_| 30, false),
        ("the last page", |length| length - 100, true),
    ];
    for (what, place, with_others) in places {
        let folder = killed_with_a_log();
        if !with_others {
            // As after a power cut, which the `-shm` file does not survive.
            fs::remove_file(beside(&folder.path().join("app.db"), "-shm")).unwrap();
        }
        let damaged = change_log(&folder, place);
        let (is_well, told) = check_data(&folder);
        assert!(!is_well && told.contains("write-ahead log is damaged"), "{what}: {told}");
        let server = Setup::in_folder(Arc::clone(&folder)).start();
        let line = server.wait_for_line(|line| line["bad_frame"].is_u64());
        assert_eq!(line["level"], "ERROR", "{what}: {line}");
        assert!(line["transactions"].as_u64() >= Some(1), "{what}: {line}");
        assert_eq!(damage_total(&server, "log"), 1.0, "{what}");
        let copies = copies(&folder);
        assert_eq!(line["copy"], copies[0].to_str().unwrap(), "{what}");
        assert_eq!(copies.len(), 1, "{what}");
        assert!(fs::read(&copies[0]).unwrap() == damaged, "{what}: the copy is the log as it was found");
        assert_eq!(fs::metadata(&copies[0]).unwrap().permissions().mode() & 0o777, 0o600, "{what}");
        assert!(server.rows() < 300, "{what}: something was lost, or nothing is proved");
        server.store(&message_of("after."));
    }
}

#[test]
fn a_log_that_is_whole_or_ends_in_the_middle_of_a_frame_raises_no_alarm() {
    let cut = |folder: &Arc<TempDir>, bytes: u64| {
        let log = fs::File::options().write(true).open(beside(&folder.path().join("app.db"), "-wal")).unwrap();
        log.set_len(log.metadata().unwrap().len() - bytes).unwrap();
        fs::remove_file(beside(&folder.path().join("app.db"), "-shm")).unwrap();
    };
    let told = |server: &Server| {
        let of_log = |line: &Value| line["message"].as_str().unwrap().contains("write-ahead log");
        server.lines().into_iter().filter(of_log).collect::<Vec<_>>()
    };
    for bytes in [0, 1, 2_000, 4_100] {
        let folder = killed_with_a_log();
        if bytes > 0 {
            cut(&folder, bytes);
        }
        let first = Setup::in_folder(Arc::clone(&folder)).start();
        // Another process checks a log that is being written.
        store(&first, 0..5);
        let second = Setup::in_folder(Arc::clone(&folder)).start();
        assert!(bytes > 0 || first.rows() == 305);
        assert_eq!((told(&first), told(&second)), (Vec::new(), Vec::new()), "{bytes} bytes are missing");
        assert_eq!(copies(&folder), Vec::<PathBuf>::new());
    }
    // A complete last transaction with a bad frame may never have been acknowledged; it may also be damaged.
    let folder = killed_with_a_log();
    fs::remove_file(beside(&folder.path().join("app.db"), "-shm")).unwrap();
    change_log(&folder, |length| length - 100);
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    let lines = told(&server);
    assert_eq!((lines.len(), &lines[0]["level"], &lines[0]["transactions"]), (1, &json!("WARNING"), &json!(1)));
    assert_eq!((copies(&folder).len(), damage_total(&server, "log")), (1, 0.0));
}

#[test]
fn a_page_that_cannot_be_read_is_red_until_it_can_and_fails_nothing_that_does_not_need_it() {
    let server = Server::start();
    store(&server, 0..300);
    wait_until_indexed(&server);
    let folder = server.folder();
    assert!(server.stop().0.success());
    let path = folder.path().join("app.db");
    let bytes = fs::read(&path).unwrap();
    let page = memmem::find(&bytes, b"Number 150.").unwrap() / 4096 * 4096;
    let set = |byte: u8| {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[byte], page as u64).unwrap();
    };
    set(0xff);
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    assert_eq!(server.get("/messages?limit=50").status, 200, "it does not need that page");
    assert_eq!(server.get("/messages?limit=50").json()["total"], 300);
    assert_eq!(server.get("/stats").json()["total_messages"], 300);
    assert_eq!(server.get("/health/ready").status, 200, "nobody was refused so far");
    assert_eq!(server.get("/messages/m150").status, 503);
    let ready = server.get("/health/ready");
    assert_eq!((ready.status, ready.text().as_str()), (503, r#"{"status":"not ready","reason":"database not ready"}"#));
    let names_the_cause = |line: &Value| line["error"].as_str().is_some_and(|why| why.contains("malformed"));
    server.wait_for_line(|line| line["message"].as_str().unwrap().contains("readiness") && names_the_cause(line));
    assert!(damage_total(&server, "page") >= 1.0);
    assert_eq!(server.get("/messages?limit=50").status, 200);
    store(&server, 300..301);
    assert_eq!(server.get("/health/ready").status, 503, "a stored message does not make it readable");
    set(bytes[page]);
    wait_until("it is ready again", || (server.get("/health/ready").status == 200).then_some(()));
    assert_eq!(server.get("/messages/m150").json()["text"], "Number 150.");
}

#[test]
fn readiness_is_red_while_every_message_is_refused_and_green_while_one_is() {
    let server = Server::start();
    server.store(&message_of("before."));
    let other = database::open(&server.database());
    let refuse = |of: &str, when: &str| {
        let sql = format!("CREATE TRIGGER refuse BEFORE INSERT ON {of} {when} BEGIN SELECT RAISE(ABORT, 'no'); END");
        other.execute_batch(&sql).unwrap();
    };
    let allow = || other.execute_batch("DROP TRIGGER refuse").unwrap();
    let ready = || server.get("/health/ready").status;
    let post = |id: &str| server.post(&body(&message_of(id))).status;
    refuse("messages", "WHEN NEW.message_id = 'one.'");
    assert_eq!((post("one."), ready(), post("two.")), (503, 200, 200));
    allow();
    refuse("messages", "");
    assert_eq!(post("three."), 503);
    let reply = server.get("/health/ready");
    assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"status":"not ready","reason":"database not ready"}"#));
    server.wait_for_line(|line| line["level"] == "ERROR" && line["message"] == "the database does not accept writes");
    allow();
    wait_until("it is ready again", || (ready() == 200).then_some(()));
    assert_eq!(post("three."), 200);
    let ids = database::ids(&other);
    assert_eq!(ids.iter().map(String::as_str).collect::<Vec<_>>(), ["before.", "three.", "two."], "no trial is stored");
    database::assert_sound(&other);
}
