//! The N-th write, truncate or sync of the database
//! fails, for every N: no acknowledged message is lost
//! or duplicated, and the program recovers by itself.

use std::sync::Arc;

use super::shim::{Shimmed, raise};
use crate::harness::load::{Load, message_of};
use crate::harness::random::{Random, long_run};
use crate::harness::server::Setup;
use crate::harness::{database, wait_until};

const LAST: u64 = 300;

/// Values that are dense for a start and the first commits; all values in the long run.
fn spread() -> Vec<u64> {
    if long_run() { (1..=LAST).collect() } else { (1..12).chain((12..=LAST).step_by(10)).collect() }
}

#[test]
fn whichever_write_or_sync_fails_no_acknowledged_message_is_lost() {
    let mut random = Random::announced("the N-th I/O fails");
    let (mut refused, mut acked) = (0, 0);
    for nth in spread() {
        let (refused_now, acked_now) = fail_once(nth, &mut random);
        refused += refused_now;
        acked += acked_now;
    }
    println!("{} values of N; {acked} acknowledged, {refused} refused", spread().len());
    assert!(refused >= spread().len() / 2, "the failures were felt: {refused} refused");
}

fn fail_once(nth: u64, random: &mut Random) -> (usize, usize) {
    // The smallest log, so that checkpoints are also hit by failures.
    let setup = Setup::new().env("POSTROOM_STORE_CHECKPOINT_PAGES", 16);
    let folder = setup.path().to_owned();
    let mut shimmed =
        Shimmed::new(setup).value("SHIM_FAIL_NTH", nth).file("SHIM_ARMED", "armed").file("SHIM_HAPPENED", "happened");
    if nth.is_multiple_of(2) {
        shimmed = shimmed.value("SHIM_SHORT", 1);
    }
    let server = shimmed.start();
    raise(&folder.join("armed"));
    let load = Load::start(server.address, 6, &format!("n{nth}"), random);
    wait_until("the failure happened", || folder.join("happened").exists().then_some(()));
    load.wait_for_acks(load.acks() + 20);
    let sent = load.finish();
    assert!(sent.refused.keys().all(|status| *status == 503), "N = {nth}: {:?}", sent.refused);
    wait_until("it is ready again, by itself", || (server.get("/health/ready").status == 200).then_some(()));
    // Refused requests are retried; a message that was stored despite the error is not stored twice.
    for id in sent.tried.difference(&sent.acked) {
        server.store(&message_of(id));
    }
    let total = server.get("/stats").json()["total_messages"].as_u64();
    assert_eq!(total, Some(sent.tried.len() as u64), "N = {nth}");

    let (path, kept) = (server.database(), server.folder());
    let (status, ..) = server.stop();
    assert_eq!(status.code(), Some(0), "N = {nth}");
    let connection = database::open(&path);
    assert_eq!(database::ids(&connection), sent.tried, "N = {nth}");
    database::assert_sound(&connection);
    drop((connection, kept));
    (sent.refused.values().sum(), sent.acked.len())
}

#[test]
fn whichever_write_or_sync_of_a_start_fails_the_next_start_serves_everything() {
    let server = Setup::new().start();
    server.store(&message_of("before"));
    let folder = server.kill();
    // The next start reads, moves and truncates the log of the killed program; each step may fail.
    let mut refusals = 0;
    for nth in 1..=8 {
        let shimmed = Shimmed::new(Setup::in_folder(Arc::clone(&folder))).value("SHIM_FAIL_NTH", nth);
        refusals += i32::from(shimmed.try_start().inspect(|code| assert_eq!(*code, 1, "N = {nth}")).is_some());
        let server = Setup::in_folder(Arc::clone(&folder)).start();
        let connection = database::open(&server.database());
        server.store(&message_of(&format!("after {nth}")));
        assert_eq!(database::recount(&connection).0, nth + 1, "N = {nth}");
        database::assert_sound(&connection);
        drop(connection);
        server.kill();
    }
    assert!(refusals > 0, "a start whose disk fails is no start");
}
