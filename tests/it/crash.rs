//! The program dies by `kill -9` at any moment, or is asked to stop under load: what was acknowledged is there.

use std::sync::Arc;

use super::harness::load::{Load, Sent};
use super::harness::random::{Random, long_run};
use super::harness::server::Setup;
use super::harness::{database, wait_until};

const CONNECTIONS: usize = 64;
/// A file is used for so many rounds; then the checks of a whole file would take longer than the rounds.
const ROUNDS_PER_FILE: usize = 20;

#[test]
fn every_acknowledged_message_survives_kill_9_exactly_once() {
    let rounds = if long_run() { 1_000 } else { 20 };
    let mut random = Random::announced("kill -9 under load");
    let (mut setup, mut sent) = (Setup::new(), Sent::default());
    for round in 0..rounds {
        if round % ROUNDS_PER_FILE == 0 {
            (setup, sent) = (Setup::new(), Sent::default());
        }
        // Checkpoints are under way at some of the moments too.
        let pages = if random.one_in(2) { 16 } else { 8_192 };
        let server = setup.env("POSTROOM_STORE_CHECKPOINT_PAGES", pages).start();
        let load = Load::start(server.address, CONNECTIONS, &format!("round{round}"), &mut random);
        load.wait_for_acks(random.below(600) as usize);
        let folder = server.kill();
        let this_round = load.finish();
        assert!(this_round.refused.is_empty(), "round {round}: {:?}", this_round.refused);
        sent.add(this_round);

        // A second start on what was left, which must see it all, and which is killed as well.
        let server = Setup::in_folder(Arc::clone(&folder)).start();
        let connection = database::open(&server.database());
        database::assert_holds(&connection, &sent);
        database::assert_sound(&connection);
        database::assert_check_passes(&folder);
        let total = server.get("/stats").json()["total_messages"].as_u64();
        assert_eq!(total, Some(database::recount(&connection).0 as u64), "round {round}");
        drop(connection);
        server.kill();
        setup = Setup::in_folder(folder);
    }
    println!("{rounds} rounds; {} acknowledged in the last file", sent.acked.len());
}

#[test]
fn a_stop_under_load_keeps_every_acknowledged_message_in_one_file() {
    let mut random = Random::announced("SIGTERM under load");
    for round in 0..if long_run() { 50 } else { 4 } {
        let server = Setup::new().start();
        let path = server.database();
        let folder = server.folder();
        let load = Load::start(server.address, CONNECTIONS, &format!("round{round}"), &mut random);
        load.wait_for_acks(100 + random.below(900) as usize);
        let (status, lines, stderr) = server.stop();
        let sent = load.finish();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        assert!(!database::log_exists(&path), "the file alone is complete");
        assert!(sent.refused.keys().all(|status| *status == 503), "{:?}", sent.refused);
        let connection = database::open(&path);
        database::assert_holds(&connection, &sent);
        database::assert_sound(&connection);
        drop(connection);
        database::assert_check_passes(&folder);
        assert!(lines.iter().any(|line| line["message"] == "stopped"));
    }
}

#[test]
fn a_kill_at_any_moment_of_the_start_leaves_a_file_that_starts() {
    let mut random = Random::announced("kill -9 during the start");
    let setup = Setup::new();
    let server = setup.start();
    let mut sent = Sent::default();
    let load = Load::start(server.address, 8, "before", &mut random);
    load.wait_for_acks(300);
    let folder = server.kill();
    sent.add(load.finish());
    for round in 0..if long_run() { 200 } else { 20 } {
        let mut child = Setup::in_folder(Arc::clone(&folder))
            .command()
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        // A start takes some tens of milliseconds; the moment is picked by chance, not waited for.
        std::thread::sleep(std::time::Duration::from_micros(random.below(40_000)));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        // In every other round what was left is read by the next start, and not by us before it.
        if round % 2 == 0 {
            database::assert_holds(&database::open(&folder.path().join("app.db")), &sent);
        }
    }
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    wait_until("it is ready", || (server.get("/health/ready").status == 200).then_some(()));
    let connection = database::open(&server.database());
    database::assert_holds(&connection, &sent);
    database::assert_sound(&connection);
}
