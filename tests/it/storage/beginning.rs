//! The effect of a start on files: it creates an empty database
//! only if none existed, logs this, restricts the permissions
//! of its files, and names the file that prevents it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use crate::harness::{Server, Setup, body, database, message, wait_until};

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Asserts that the start is refused with one line that contains all of these, and that no file changes.
fn assert_refused(setup: &Setup, code: i32, words: &[&str]) {
    let before = contents(setup.path());
    let (status, _, stderr) = setup.run();
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} in {stderr}");
    assert_eq!(contents(setup.path()), before, "nothing is touched");
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(contents(&entry.path())),
            false => all.push((entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    all.sort();
    all
}

#[test]
fn a_log_without_its_file_is_not_written_over() {
    for empty in [false, true] {
        let server = Server::start();
        for id in 0..40 {
            server.store(&message(&format!("m{id}")));
        }
        let (path, folder) = (server.database(), server.kill());
        let aside = folder.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        if empty {
            fs::write(&path, "").unwrap();
        }
        assert_refused(&Setup::in_folder(Arc::clone(&folder)), 1, &["app.db-wal", "messages", "put the file back"]);
        fs::rename(&aside, &path).unwrap();
        let server = Setup::in_folder(folder).start();
        assert_eq!(server.get("/stats").json()["total_messages"], 40);
    }
}

#[test]
fn an_index_without_its_file_says_that_there_were_messages() {
    let server = Server::start();
    server.store(&message("one"));
    wait_until("it is indexed", || server.metric("postroom_index_lag_messages").filter(|lag| *lag == 0.0));
    let (path, folder) = (server.database(), server.folder());
    assert!(server.stop().0.success());
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    assert_refused(&Setup::in_folder(Arc::clone(&folder)), 1, &["app.db-index", "messages", "put the file back"]);
    // To start empty on purpose, the operator removes the index too.
    fs::remove_dir_all(beside(&path, "-index")).unwrap();
    let server = Setup::in_folder(folder).start();
    assert_eq!(server.get("/stats").json()["total_messages"], 0);
}

#[test]
fn a_rollback_journal_without_its_file_is_a_trace_too() {
    let setup = Setup::new();
    fs::write(beside(&setup.database(), "-journal"), "what the original service had begun").unwrap();
    assert_refused(&setup, 1, &["app.db-journal", "put the file back"]);
}

#[test]
fn a_new_database_is_announced_and_one_that_was_there_is_not() {
    let server = Server::start();
    let made =
        |server: &Server| server.lines().into_iter().find(|line| line["message"].as_str().unwrap().contains("empty"));
    let line = made(&server).expect("it is announced");
    let expected = format!("created a new, empty database at {}", server.database().display());
    assert_eq!((line["message"].as_str(), line["messages"].as_u64()), (Some(expected.as_str()), Some(0)));
    let folder = server.folder();
    assert!(server.stop().0.success());
    assert!(made(&Setup::in_folder(folder).start()).is_none());
    let setup = Setup::new();
    database::open(&setup.database()).execute_batch(database::MESSAGES).unwrap();
    assert!(made(&setup.start()).is_none(), "the original service had made it");
}

#[test]
fn a_url_that_says_more_than_a_path_makes_no_file_and_opens_one_of_that_very_name() {
    for name in
        ["app.db?check_same_thread=False", "app.db?", "app.db ", " app.db", "app.db?mode=rwc&cache=shared", "'app.db'"]
    {
        let setup = Setup::new();
        let url = format!("sqlite:///{name}");
        let setup = setup.env("DATABASE_URL", &url);
        assert_refused(&setup, 2, &["DATABASE_URL"]);
        // The original service takes all of it as the file name.
        let path = setup.path().join(name);
        database::open(&path).execute_batch(database::MESSAGES).unwrap();
        let server = setup.start();
        let _folder = server.folder();
        server.store(&message("one"));
        assert!(server.stop().0.success());
        assert_eq!(database::recount(&database::open(&path)).0, 1, "{name}");
    }
}

fn is_root_with(program: &str) -> bool {
    let arguments = if program == "setpriv" { ["--reuid=65534", "true"] } else { ["--mount", "true"] };
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn a_database_file_that_is_a_mount_by_itself_is_refused() {
    if !is_root_with("unshare") {
        println!("skipped: mounting needs root");
        return;
    }
    let setup = Setup::new();
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("kept.db"), "").unwrap();
    fs::write(setup.path().join("app.db"), "").unwrap();
    let script = r#"mount --bind "$1" app.db && exec "$0""#;
    let mut command = setup.command_of("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_postroom")]).arg(volume.path().join("kept.db"));
    let output = command.output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("mount") && stderr.contains("folder") && stderr.lines().count() == 1, "{stderr}");
    // The folder must be the mount.
    let script = r#"mount --bind "$1" "$PWD/data" && exec "$0" check"#;
    fs::create_dir(setup.path().join("data")).unwrap();
    let setup = setup.env("DATABASE_URL", "sqlite:///data/kept.db");
    let mut command = setup.command_of("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_postroom")]).arg(volume.path());
    assert!(command.output().expect("it runs").status.success());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn what_holds_messages_is_its_owners_alone() {
    let setup = Setup::new();
    let path = setup.path().join("new/folder/app.db");
    let setup = setup.env("DATABASE_URL", format!("sqlite:///{}", path.display()));
    let mut command = setup.command_of("sh");
    command.args(["-c", "umask 000; exec \"$0\"", env!("CARGO_BIN_EXE_postroom")]);
    let server = setup.start_command(command);
    server.store(&message("one"));
    wait_until("it is indexed", || server.metric("postroom_index_lag_messages").filter(|lag| *lag == 0.0));
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    for ending in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path, ending)), 0o600, "{ending}");
    }
    let index = beside(&path, "-index");
    assert_eq!(mode(&index), 0o700);
    let folder = server.folder();
    assert!(server.stop().0.success());
    let files: Vec<PathBuf> = fs::read_dir(&index).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(files.iter().any(|path| path.ends_with("manifest.json")), "{files:?}");
    assert!(files.iter().all(|path| mode(path) == 0o600), "{files:?}");
    // Permissions that an operator extended before stay.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let server = Setup::in_folder(folder).env("DATABASE_URL", format!("sqlite:///{}", path.display())).start();
    server.store(&message("two"));
    assert_eq!((mode(&path), mode(&beside(&path, "-wal"))), (0o640, 0o640));
}

/// Runs the program as a user who owns the folder but not all of its files.
fn run_as_nobody(folder: &Arc<TempDir>) -> String {
    let setup = Setup::in_folder(Arc::clone(folder));
    let mut command = setup.command_of("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_postroom")]);
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_file_that_is_in_the_way_is_named() {
    if !is_root_with("setpriv") {
        println!("skipped: files of others need root");
        return;
    }
    for (ending, chosen) in [("", 0o600), ("-wal", 0o600), ("-shm", 0o400)] {
        let server = Server::start();
        server.store(&message("one"));
        let (path, folder) = (server.database(), server.kill());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        for other in ["", "-wal", "-shm"] {
            let (path, is_it) = (beside(&path, other), other == ending);
            fs::set_permissions(path, fs::Permissions::from_mode(if is_it { chosen } else { 0o666 })).unwrap();
        }
        let told = run_as_nobody(&folder);
        let name = format!("app.db{ending} ");
        assert!(told.contains(&name) && told.lines().count() == 1, "{name} in {told}");
    }
    // A folder in which no log can be created.
    let setup = Setup::new();
    let folder = setup.start().folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path().join("app.db"), fs::Permissions::from_mode(0o666)).unwrap();
    for ending in ["-wal", "-shm"] {
        let _ = fs::remove_file(beside(&folder.path().join("app.db"), ending));
    }
    let told = run_as_nobody(&folder);
    assert!(told.contains(&format!("{} ", folder.path().display())) && told.contains("folder"), "{told}");
}

#[test]
fn a_folder_of_the_index_that_is_anothers_is_named_in_the_log() {
    let setup = Setup::new();
    fs::write(setup.path().join("app.db-index"), "no folder").unwrap();
    let server = setup.start();
    let path = beside(&server.database(), "-index").display().to_string();
    server.wait_for_line(|line| line["path"] == path.as_str() && line["level"] == "ERROR");
}

#[test]
fn a_table_that_compares_by_another_collation_is_refused() {
    let columns = ["message_id", "from_msisdn", "to_msisdn", "ts", "text", "created_at"];
    let other_key = database::MESSAGES.replace("message_id TEXT PRIMARY KEY", "message_id TEXT");
    let other_key = other_key
        .replace("created_at TEXT NOT NULL)", "created_at TEXT NOT NULL, PRIMARY KEY (message_id COLLATE NOCASE))");
    let tables = columns.iter().map(|column| {
        (database::MESSAGES.replace(&format!("{column} TEXT"), &format!("{column} TEXT COLLATE NOCASE")), *column)
    });
    for (sql, column) in tables.chain([
        (other_key, "message_id"),
        (database::MESSAGES.replace("message_id TEXT", "message_id TEXT COLLATE RTRIM"), "message_id"),
    ]) {
        let setup = Setup::new();
        database::open(&setup.database()).execute_batch(&sql).expect(&sql);
        assert_refused(&setup, 1, &[column, "collation"]);
    }
    let setup = Setup::new();
    let sql = database::MESSAGES.replace("message_id TEXT", "message_id TEXT COLLATE BINARY");
    database::open(&setup.database()).execute_batch(&sql).expect(&sql);
    let server = setup.start();
    let sent = body(&message("one"));
    assert_eq!(server.post(&sent).status, 200);
}
