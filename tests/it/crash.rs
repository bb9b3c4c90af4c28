//! The program is killed by `kill -9` at any moment,
//! or stopped under load: every acknowledged message
//! is there once, with either store.

use std::sync::Arc;

use super::harness::load::{Load, Sent, post_id};
use super::harness::random::{Random, long_run};
use super::harness::server::{Server, Setup};
use super::harness::{Stored, database, wait_until};

const CONNECTIONS: usize = 64;
/// Rounds per database; with more, the checks of its whole content would take longer than the rounds.
const ROUNDS_PER_DATABASE: usize = 20;

/// Nothing is lost, duplicated, broken or counted wrong, as other programs and a restarted server see it.
fn assert_all_is_there(server: &Server, sent: &Sent) {
    let stored = server.stored();
    stored.assert_holds(sent);
    stored.assert_sound();
    stored.assert_counted_by(server);
}

#[test]
fn every_acknowledged_message_survives_kill_9_exactly_once() {
    let rounds = if long_run() { 1_000 } else { 20 };
    let mut random = Random::announced("kill -9 under load");
    let (mut setup, mut sent) = (Setup::new(), Sent::default());
    for round in 0..rounds {
        if round % ROUNDS_PER_DATABASE == 0 {
            (setup, sent) = (Setup::new(), Sent::default());
        }
        // Some of the kills also happen during a checkpoint.
        let pages = if random.one_in(2) { 16 } else { 8_192 };
        let server = setup.env("POSTROOM_STORE_CHECKPOINT_PAGES", pages).start();
        let load = Load::start(server.address, CONNECTIONS, &format!("round{round}"), &mut random);
        load.wait_for_acks(random.below(600) as usize);
        let stored = server.stored();
        let folder = server.kill();
        let this_round = load.finish();
        assert!(this_round.refused.is_empty(), "round {round}: {:?}", this_round.refused);
        sent.add(this_round);
        stored.wait_for_the_dead();

        // A second start on the remaining files must see everything; it is killed as well.
        let server = Setup::in_folder(Arc::clone(&folder)).start();
        assert_all_is_there(&server, &sent);
        server.kill();
        setup = Setup::in_folder(folder);
    }
    println!("{rounds} rounds; {} acknowledged in the last database", sent.acked.len());
}

#[test]
fn either_of_two_servers_on_one_store_may_die() {
    let mut random = Random::announced("kill -9 of one of two");
    let (mut setup, mut sent) = (Setup::new(), Sent::default());
    for round in 0..if long_run() { 200 } else { 8 } {
        let first = setup.start();
        let servers = [Setup::in_folder(first.folder()).start(), first];
        let mut loads = Vec::new();
        for (at, server) in servers.iter().enumerate() {
            loads.push(Load::start(server.address, CONNECTIONS / 4, &format!("round{round}-{at}"), &mut random));
        }
        let (at, [one, other]) = (random.below(2) as usize, servers);
        loads[at].wait_for_acks(random.below(400) as usize);
        let (dies, lives) = if at == 0 { (one, other) } else { (other, one) };
        dies.kill();
        let this_round = loads.into_iter().fold(Sent::default(), |mut all, load| {
            all.add(load.finish());
            all
        });
        assert!(this_round.refused.is_empty(), "round {round}: {:?}", this_round.refused);
        sent.add(this_round);
        // A client without a response retries with another replica.
        let mut client = lives.client();
        for id in sent.tried.difference(&sent.acked) {
            assert_eq!(post_id(&mut client, id).expect("an answer").status, 200);
        }
        sent.acked.clone_from(&sent.tried);
        assert_all_is_there(&lives, &sent);
        setup = Setup::in_folder(lives.kill());
    }
}

#[test]
fn a_stop_under_load_keeps_every_acknowledged_message() {
    let mut random = Random::announced("SIGTERM under load");
    for round in 0..if long_run() { 50 } else { 4 } {
        let server = Setup::new().start();
        let (stored, folder) = (server.stored(), server.folder());
        let load = Load::start(server.address, CONNECTIONS, &format!("round{round}"), &mut random);
        load.wait_for_acks(100 + random.below(900) as usize);
        let (status, lines, stderr) = server.stop();
        let sent = load.finish();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        if let Stored::File(path) = &stored {
            assert!(!database::log_exists(path), "the file alone is complete");
        }
        assert!(sent.refused.keys().all(|status| *status == 503), "{:?}", sent.refused);
        stored.assert_holds(&sent);
        stored.assert_sound();
        assert!(lines.iter().any(|line| line["message"] == "stopped"));
        assert_all_is_there(&Setup::in_folder(folder).start(), &sent);
    }
}

#[test]
fn a_kill_at_any_moment_of_the_start_leaves_a_store_that_starts() {
    let mut random = Random::announced("kill -9 during the start");
    let setup = Setup::new();
    let server = setup.start();
    let stored = server.stored();
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
        // A start takes some tens of milliseconds; the moment of the kill is random.
        std::thread::sleep(std::time::Duration::from_micros(random.below(40_000)));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        // In every other round, the next start reads the files first, and the test does not.
        if round % 2 == 0 {
            stored.assert_holds(&sent);
        }
    }
    stored.wait_for_the_dead();
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    wait_until("it is ready", || (server.get("/health/ready").status == 200).then_some(()));
    assert_all_is_there(&server, &sent);
}
