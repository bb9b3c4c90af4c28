//! Power cuts at any moment. The shim records every write and sync of
//! a run. The files are then rebuilt as a disk would have them after a
//! cut, and must hold every message whose 200 had been read before it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::record::{DATABASE, Disk, Event, LOG, marker, read};
use super::shim::{Shimmed, raise};
use crate::harness::load::{Load, post_id};
use crate::harness::random::{Random, long_run};
use crate::harness::server::Setup;
use crate::harness::{database, wait_until};

/// Runs a server under load and returns the record of the shim.
fn recorded_run(random: &mut Random, failing_syncs: bool, acks: usize) -> Vec<Event> {
    let setup = Setup::new().env("POSTROOM_STORE_CHECKPOINT_PAGES", 64);
    let (record, armed): (PathBuf, _) = (setup.path().join("record"), setup.path().join("armed"));
    let mut shimmed = Shimmed::new(setup).file("SHIM_RECORD", "record").file("SHIM_ARMED", "armed");
    if failing_syncs {
        shimmed = shimmed.value("SHIM_SYNC_EVERY", 23);
    }
    let server = shimmed.start();
    raise(&armed);
    let load = Load::telling(server.address, 8, "cut", random, marker(&record));
    load.wait_for_acks(acks);
    // A power cut allows no clean stop.
    let folder = server.kill();
    load.finish();
    let events = read(&record);
    drop(folder);
    events
}

/// Cuts the power at `cuts` moments, and returns the total number of lost acknowledged messages.
fn cut_and_count_losses(events: &[Event], cuts: usize, log_syncs_ignored: bool, random: &mut Random) -> usize {
    let mut moments: Vec<usize> = (0..cuts).map(|_| random.below(events.len() as u64 + 1) as usize).collect();
    moments.sort_unstable();
    let mut disk = Disk::new(log_syncs_ignored);
    let (mut seen, mut acked, mut lost) = (0, BTreeSet::new(), 0);
    for (number, moment) in moments.into_iter().enumerate() {
        for event in &events[seen..moment] {
            disk.see(event, random);
            if let Event::Acked(id) = event {
                acked.insert(id.clone());
            }
        }
        seen = moment;
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        disk.cut(folder.path(), random);
        // A disk that ignores syncs may leave a broken file; that counts as a loss of everything.
        let stored = if log_syncs_ignored { try_ids(&folder) } else { checked_ids(&folder, number, acked.is_empty()) };
        lost += acked.difference(&stored).count();
    }
    lost
}

fn try_ids(folder: &TempDir) -> BTreeSet<String> {
    let connection = database::open(&folder.path().join("app.db"));
    let Ok(mut statement) = connection.prepare("SELECT message_id FROM messages") else { return BTreeSet::new() };
    statement.query_map([], |row| row.get(0)).map_or_else(|_| BTreeSet::new(), |rows| rows.flatten().collect())
}

/// Opens the files after a cut, with plain SQLite or (some of them) the real program. Returns their ids.
fn checked_ids(folder: &Arc<TempDir>, number: usize, may_be_new: bool) -> BTreeSet<String> {
    let path = folder.path().join("app.db");
    if number % 12 == 5 {
        let server = Setup::in_folder(Arc::clone(folder)).start();
        wait_until("it is ready", || (server.get("/health/ready").status == 200).then_some(()));
        let alarm = server.lines().into_iter().find(|line| line["level"] == "ERROR" && !line["bad_frame"].is_null());
        assert_eq!(alarm, None, "what nobody was told of is not called damage");
        let connection = database::open(&path);
        database::assert_sound(&connection);
        return database::ids(&connection);
    }
    let connection = database::open(&path);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE name IN ('messages', 'postroom_index')", [], |row| {
            row.get(0)
        })
        .expect("it can be read");
    if tables < 2 {
        assert!(may_be_new, "the tables are there once a message was acknowledged");
        return BTreeSet::new();
    }
    database::assert_sound(&connection);
    database::ids(&connection)
}

#[test]
fn every_message_acknowledged_before_a_power_cut_is_there_after_it() {
    let mut random = Random::announced("power cut");
    let events = recorded_run(&mut random, false, 1_500);
    let cuts = if long_run() { 500 } else { 60 };
    assert_eq!(cut_and_count_losses(&events, cuts, false, &mut random), 0);
    // The control: if a disk ignores the syncs of the log, the same cuts must lose messages; otherwise they
    // prove nothing.
    let lost = cut_and_count_losses(&events, cuts, true, &mut random);
    println!("{cuts} cuts in {} events; the control lost {lost} messages", events.len());
    assert!(lost > 0, "the control lost nothing");
}

#[test]
fn a_power_cut_after_failed_syncs_loses_no_acknowledged_message_either() {
    let mut random = Random::announced("power cut after failed syncs");
    let events = recorded_run(&mut random, true, 600);
    let failures = events.iter().filter(|event| matches!(event, Event::SyncFailed { .. })).count();
    assert!(failures > 3, "{failures} syncs failed");
    let cuts = if long_run() { 500 } else { 40 };
    println!("{cuts} cuts in {} events, {failures} of them failed syncs", events.len());
    assert_eq!(cut_and_count_losses(&events, cuts, false, &mut random), 0);
}

/// Holds an older snapshot like another process, so that checkpoints stop halfway.
fn hold_an_older_state(path: &Path) -> Connection {
    let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it opens");
    reader.busy_timeout(Duration::from_secs(20)).expect("it can wait");
    reader.execute_batch("BEGIN; SELECT count(*) FROM messages").expect("it reads");
    reader
}

#[test]
fn a_power_cut_after_a_checkpoint_whose_sync_failed_loses_no_acknowledged_message() {
    let mut random = Random::announced("power cut after failed checkpoints");
    let setup = Setup::new().env("POSTROOM_STORE_CHECKPOINT_PAGES", 16);
    let (record, armed): (PathBuf, _) = (setup.path().join("record"), setup.path().join("armed"));
    let shimmed = Shimmed::new(setup).file("SHIM_RECORD", "record").file("SHIM_ARMED", "armed");
    let server = shimmed.value("SHIM_SYNC_EVERY", 2).value("SHIM_SYNC_OF_DATABASE", 1).start();
    raise(&armed);
    let load = Load::telling(server.address, 8, "cut", &mut random, marker(&record));
    for _ in 0..if long_run() { 60 } else { 12 } {
        let reader = hold_an_older_state(&server.database());
        let enough = load.acks() + 100 + random.below(200) as usize;
        // After a failure nothing continues while another process has the file open.
        let may_go_on = || load.acks() >= enough || server.get("/health/ready").status != 200;
        wait_until("enough was stored, or a sync failed", || may_go_on().then_some(()));
        drop(reader);
        load.wait_for_acks(load.acks() + 100 + random.below(200) as usize);
    }
    let folder = server.kill();
    load.finish();
    let events = read(&record);
    drop(folder);
    let (mut is_unsynced, mut halfway, mut failed) = (false, 0, 0);
    for event in &events {
        match event {
            Event::Write { file: DATABASE, .. } => is_unsynced = true,
            Event::Synced { file: DATABASE } => is_unsynced = false,
            Event::SyncFailed { file: DATABASE } => (is_unsynced, failed) = (false, failed + 1),
            Event::Write { file: LOG, .. } => halfway += i32::from(std::mem::take(&mut is_unsynced)),
            _ => {}
        }
    }
    assert!(halfway > 0 && failed > 1, "{halfway} checkpoints stopped halfway, {failed} syncs failed");
    let cuts = if long_run() { 500 } else { 60 };
    println!("{cuts} cuts, {halfway} checkpoints that stopped halfway, {failed} failed syncs");
    assert_eq!(cut_and_count_losses(&events, cuts, false, &mut random), 0);
}

#[test]
fn a_message_is_synced_to_the_log_after_it_was_written_and_before_its_200_is_read() {
    let events = recorded_run(&mut Random::announced("order of write, sync and answer"), false, 400);
    let (mut written, mut synced) = (BTreeSet::new(), BTreeSet::new());
    let (mut checked, finder) = (0, memmem::Finder::new("cut-"));
    for event in &events {
        match event {
            Event::Write { file: LOG, bytes, .. } => {
                written.extend(finder.find_iter(bytes).filter_map(|at| id_at(&bytes[at..])))
            }
            Event::Synced { file: LOG } => synced.append(&mut written),
            Event::Acked(id) => {
                checked += 1;
                assert!(synced.contains(id), "{id} was acknowledged before its bytes were synced");
            }
            _ => {}
        }
    }
    assert!(checked >= 400, "{checked} answers were checked");
}

#[test]
fn a_copy_of_a_message_that_a_killed_program_wrote_but_never_synced_is_acknowledged_when_it_is_safe() {
    let mut random = Random::announced("killed between write and sync");
    for round in 0..if long_run() { 50 } else { 5 } {
        let setup = Setup::new();
        let record = setup.path().join("record");
        let dying = Shimmed::new(setup).file("SHIM_RECORD", "record").value("SHIM_DIE_AT_SYNC", 10 + random.below(40));
        let server = dying.start();
        let folder = server.folder();
        let load = Load::telling(server.address, 8, "cut", &mut random, marker(&record));
        server.wait();
        let sent = load.finish();
        assert!(sent.tried.len() > sent.acked.len(), "round {round}: somebody waited for the sync");

        // All requests are retried. A written message may be answered as a duplicate, but then it must be on disk.
        let server = Shimmed::new(Setup::in_folder(folder)).file("SHIM_RECORD", "record").start();
        let (mut client, tell) = (server.client(), marker(&record));
        for id in &sent.tried {
            assert_eq!(post_id(&mut client, id).expect("an answer").status, 200);
            tell(id);
        }
        let folder = server.kill();
        let events = read(&record);
        assert_eq!(cut_and_count_losses(&events, 10, false, &mut random), 0, "round {round}");
        drop(folder);
    }
}

/// The id that begins here; ids of the load end with a full stop.
fn id_at(bytes: &[u8]) -> Option<String> {
    let end = memchr::memchr(b'.', bytes.get(..40)?)?;
    String::from_utf8(bytes[..=end].to_vec()).ok()
}
