//! The disk is full for a while: 507 meanwhile, reads continue, nothing is lost, and no restart is
//! needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::shim::{Shimmed, raise};
use crate::harness::load::{Load, Sent, message_of, post_id};
use crate::harness::random::Random;
use crate::harness::server::{Server, Setup};
use crate::harness::{Client, Reply, database, wait_until};

const CONNECTIONS: usize = 8;

fn wait_until_ready(server: &Server) {
    wait_until("it is ready, by itself", || (server.get("/health/ready").status == 200).then_some(()));
}

/// The response to a message without disk space.
fn assert_is_507(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (507, r#"{"detail":"Insufficient Storage"}"#));
    assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{:?}", reply.headers);
}

/// While there is no space: not ready, with the reason, but alive, and all stored messages can be read.
fn assert_full_but_reading(server: &Server) {
    let ready = server.get("/health/ready");
    assert_eq!((ready.status, ready.text().as_str()), (503, r#"{"status":"not ready","reason":"disk full"}"#));
    for target in ["/messages?limit=5", "/messages?q=hello", "/stats", "/health/live", "/metrics"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
}

fn assert_everything_is_there(server: Server, sent: &Sent) {
    let (path, folder) = (server.database(), server.folder());
    let total = server.get("/stats").json()["total_messages"].as_u64();
    assert_eq!(server.stop().0.code(), Some(0));
    assert!(!database::log_exists(&path));
    let connection = database::open(&path);
    database::assert_holds(&connection, sent);
    database::assert_sound(&connection);
    assert_eq!(total, Some(database::recount(&connection).0 as u64));
    drop((connection, folder));
}

#[test]
fn a_full_disk_is_507_while_reading_goes_on_and_readiness_returns_without_traffic() {
    let mut random = Random::announced("disk full and back");
    let setup = Setup::new();
    let full = setup.path().join("full");
    let server = Shimmed::new(setup).file("SHIM_FULL", "full").start();
    let load = Load::start(server.address, CONNECTIONS, "full", &mut random);
    load.wait_for_acks(200);
    raise(&full);
    wait_until("it says that the disk is full", || (server.get("/health/ready").status == 503).then_some(()));
    let mut sent = load.finish();
    assert!(sent.refused.keys().all(|status| *status == 507), "{:?}", sent.refused);
    let mut client = server.client();
    for id in ["none-1.", "none-2.", "none-1."] {
        assert_is_507(&post_id(&mut client, id).expect("an answer"));
    }
    assert_full_but_reading(&server);
    let stored = database::ids(&database::open(&server.database()));
    assert!(!stored.contains("none-1."), "what was refused was not stored");

    std::fs::remove_file(&full).expect("it was there");
    wait_until_ready(&server);
    for id in ["none-1.", "after."] {
        assert_eq!(post_id(&mut client, id).expect("an answer").status, 200);
        sent.tried.insert(id.to_owned());
        sent.acked.insert(id.to_owned());
    }
    assert_everything_is_there(server, &sent);
}

#[test]
fn a_copy_of_a_stored_message_does_not_make_a_full_disk_look_ready() {
    let setup = Setup::new();
    let full = setup.path().join("full");
    let server = Shimmed::new(setup).file("SHIM_FULL", "full").start();
    server.store(&message_of("stored."));
    raise(&full);
    assert_is_507(&post_id(&mut server.client(), "new.").expect("an answer"));
    // A duplicate needs no space, so its 200 is correct, but it proves nothing about the disk.
    server.store(&message_of("stored."));
    assert_full_but_reading(&server);
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk_and_kills_nobody() {
    let mut random = Random::announced("file-size limit");
    let setup = Setup::new();
    // 1 MiB in the blocks of 512 bytes that POSIX defines for `ulimit -f` (some shells count in twice that).
    let mut command = setup.command_of("sh");
    command.args(["-c", "ulimit -S -f 2048; exec \"$0\"", env!("CARGO_BIN_EXE_postroom")]);
    let server = setup.start_command(command);
    let load = Load::start(server.address, CONNECTIONS, "limit", &mut random);
    // A log that was just moved into the file has room again, until
    // the file reaches its limit too: full means that it stays so.
    let is_full = || server.get("/health/ready").status == 503;
    wait_until("it says that the disk is full", || (0..20).all(|_| is_full()).then_some(()));
    assert_full_but_reading(&server);
    let mut sent = load.finish();
    assert!(sent.refused.contains_key(&507), "{:?}", sent.refused);
    assert!(sent.refused.keys().all(|status| *status == 507), "{:?}", sent.refused);

    // Acknowledged messages are readable while it is full; with a higher limit, the same process continues.
    database::assert_holds(&database::open(&server.database()), &sent);
    let raised = Command::new("prlimit").args(["--pid", &server.pid().to_string(), "--fsize=unlimited"]).status();
    if raised.is_ok_and(|status| status.success()) {
        wait_until_ready(&server);
        server.store(&message_of("after."));
        sent.tried.insert("after.".to_owned());
        sent.acked.insert("after.".to_owned());
        assert_everything_is_there(server, &sent);
    } else {
        println!("skipped: raising the limit again, which needs prlimit");
        let folder = server.kill();
        let connection = database::open(&folder.path().join("app.db"));
        database::assert_holds(&connection, &sent);
        database::assert_sound(&connection);
    }
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, megabytes: u32) -> Option<Self> {
        let options = format!("size={megabytes}m");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }

    fn grow(&self, megabytes: u32) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={megabytes}m")]).arg(&self.0).status();
        assert!(status.expect("mount runs").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_real_file_system_that_is_full_loses_nothing_and_recovers_when_it_grows() {
    let mut random = Random::announced("small file system");
    let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let Some(disk) = SmallDisk::mount(folder.path(), 2) else {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    let load = Load::start(server.address, CONNECTIONS, "small", &mut random);
    wait_until("it says that the disk is full", || (server.get("/health/ready").status == 503).then_some(()));
    assert_full_but_reading(&server);
    let mut sent = load.finish();
    assert!(sent.refused.keys().all(|status| *status == 507), "{:?}", sent.refused);
    disk.grow(64);
    wait_until_ready(&server);
    let load = Load::start(server.address, CONNECTIONS, "grown", &mut random);
    load.wait_for_acks(200);
    let grown = load.finish();
    assert!(grown.refused.is_empty(), "{:?}", grown.refused);
    sent.add(grown);
    assert_everything_is_there(server, &sent);
}

#[test]
fn a_disk_that_is_full_at_the_start_refuses_the_start_and_leaves_the_file_alone() {
    let setup = Setup::new();
    let full = setup.path().join("full");
    raise(&full);
    let shimmed = Shimmed::new(setup).file("SHIM_FULL", "full");
    assert_eq!(shimmed.try_start(), Some(1));
    std::fs::remove_file(&full).expect("it was there");
    let server = shimmed.start();
    assert_eq!(post_id(&mut Client::connect(server.address), "after.").expect("an answer").status, 200);
}

#[test]
fn a_database_that_was_there_is_read_from_a_disk_that_is_full_at_the_start() {
    let setup = Setup::new();
    let full = setup.path().join("full");
    let mut sent = Sent::default();
    let server = setup.start();
    for id in ["one.", "two."] {
        server.store(&message_of(id));
        sent.tried.insert(id.to_owned());
        sent.acked.insert(id.to_owned());
    }
    // The next start has to move the log's content, and there is no space for it; after a clean stop there is
    // no log.
    let folder = server.kill();
    for cleanly in [false, true] {
        let server = Setup::in_folder(Arc::clone(&folder));
        raise(&full);
        let server = Shimmed::new(server).file("SHIM_FULL", "full").start();
        assert_is_507(&post_id(&mut server.client(), "none.").expect("an answer"));
        if !cleanly {
            // Before the log is moved, it is unknown whether the stored messages are safe on disk.
            assert_is_507(&post_id(&mut server.client(), "one.").expect("an answer"));
        }
        assert_full_but_reading(&server);
        assert_eq!(server.get("/stats").json()["total_messages"], 2);
        std::fs::remove_file(&full).expect("it was there");
        wait_until_ready(&server);
        server.store(&message_of("one."));
        if cleanly {
            assert_everything_is_there(server, &sent);
        } else {
            assert_eq!(server.stop().0.code(), Some(0));
        }
    }
}

#[test]
fn a_real_file_system_that_is_full_at_the_start_is_read_from() {
    let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let Some(disk) = SmallDisk::mount(folder.path(), 2) else {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    server.store(&message_of("one."));
    assert!(server.stop().0.success());
    let filler = folder.path().join("filler");
    assert!(std::fs::write(&filler, vec![0; 4 << 20]).is_err(), "there is no more space");
    // Not even for a log and its index.
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    assert_is_507(&post_id(&mut server.client(), "none.").expect("an answer"));
    assert_full_but_reading(&server);
    assert_eq!(server.get("/stats").json()["total_messages"], 1);
    std::fs::remove_file(filler).expect("it was there");
    wait_until_ready(&server);
    server.store(&message_of("two."));
    assert_eq!(server.get("/stats").json()["total_messages"], 2);
    assert!(server.stop().0.success());
    drop(disk);
}
