//! Load from many concurrent connections, with a record of the acknowledged messages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::random::Random;
use super::{Client, Reply, body, sign, wait_until};

/// The sent messages and their results.
#[derive(Debug, Default)]
pub struct Sent {
    /// All ids whose request was begun.
    pub tried: BTreeSet<String>,
    /// All ids with the response 200.
    pub acked: BTreeSet<String>,
    /// The number of all other responses, by status.
    pub refused: BTreeMap<u16, usize>,
}

impl Sent {
    pub fn add(&mut self, other: Sent) {
        self.tried.extend(other.tried);
        self.acked.extend(other.acked);
        other.refused.into_iter().for_each(|(status, times)| *self.refused.entry(status).or_default() += times);
    }

    /// Asserts that every acknowledged message is stored, and nothing that was not sent.
    pub fn assert_are_all_of(&self, stored: &BTreeSet<String>) {
        let lost: Vec<_> = self.acked.difference(stored).collect();
        assert!(lost.is_empty(), "{} acknowledged messages are lost: {lost:?}", lost.len());
        let unknown: Vec<_> = stored.difference(&self.tried).collect();
        assert!(unknown.is_empty(), "nobody sent {unknown:?}");
    }
}

/// Threads that post until they are stopped, or until the server does not respond any more.
pub struct Load {
    finish: Arc<AtomicBool>,
    acks: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Sent>>,
}

type OnAck = dyn Fn(&str) + Send + Sync;

impl Load {
    /// Posts ids that begin with `name`, on several connections; about one in ten is a copy of an earlier one.
    pub fn start(address: SocketAddr, connections: usize, name: &str, random: &mut Random) -> Self {
        Self::telling(address, connections, name, random, Arc::new(|_: &str| {}))
    }

    /// The same, and calls `on_ack` with an id as soon as its 200 has been read.
    pub fn telling(
        address: SocketAddr,
        connections: usize,
        name: &str,
        random: &mut Random,
        on_ack: Arc<OnAck>,
    ) -> Self {
        let (finish, acks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let start = |at: usize| {
            let (name, random) = (format!("{name}-{at}"), Random::new(random.next()));
            let (finish, acks, on_ack) = (Arc::clone(&finish), Arc::clone(&acks), Arc::clone(&on_ack));
            std::thread::spawn(move || post_until(address, &name, random, &finish, &acks, &*on_ack))
        };
        let threads = (0..connections).map(start).collect();
        Self { finish, acks, threads }
    }

    /// Messages acknowledged so far.
    pub fn acks(&self) -> usize {
        self.acks.load(Ordering::SeqCst)
    }

    pub fn wait_for_acks(&self, at_least: usize) {
        wait_until("enough messages are acknowledged", || (self.acks() >= at_least).then_some(()));
    }

    /// Ends the load after the requests in progress.
    pub fn finish(self) -> Sent {
        self.finish.store(true, Ordering::SeqCst);
        let mut all = Sent::default();
        self.threads.into_iter().for_each(|thread| all.add(thread.join().expect("the load does not panic")));
        all
    }
}

/// A message that is derived from its id, so that a copy is identical.
pub fn message_of(id: &str) -> Value {
    let sum = id.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    json!({
        "message_id": id,
        "from": format!("+91987654{:04}", sum % 17),
        "to": "+14155550100",
        "ts": format!("2025-01-{:02}T10:00:{:02}Z", 1 + sum % 28, sum % 60),
        "text": "Hello ".repeat((sum % 40) as usize),
    })
}

/// Posts the message of an id on a connection.
pub fn post_id(client: &mut Client, id: &str) -> std::io::Result<Reply> {
    let body = body(&message_of(id));
    client.request("POST", "/webhook", &[("X-Signature", &sign(&body))], &body)
}

fn post_until(
    address: SocketAddr,
    name: &str,
    mut random: Random,
    finish: &AtomicBool,
    acks: &AtomicUsize,
    on_ack: &OnAck,
) -> Sent {
    let mut sent = Sent::default();
    let mut client = None;
    let mut count = 0;
    while !finish.load(Ordering::SeqCst) {
        let copy = count > 0 && random.one_in(10);
        let number = if copy { random.below(count) } else { count };
        count += u64::from(!copy);
        let id = format!("{name}-{number:06}.");
        sent.tried.insert(id.clone());
        let connection = match client.as_mut() {
            Some(connection) => connection,
            None => match Client::try_connect(address) {
                Ok(fresh) => client.insert(fresh),
                // The server has ended: the load is complete.
                Err(_) => break,
            },
        };
        match post_id(connection, &id) {
            Ok(reply) if reply.status == 200 => {
                on_ack(&id);
                sent.acked.insert(id);
                acks.fetch_add(1, Ordering::SeqCst);
            }
            Ok(reply) => {
                assert!(reply.header("retry-after").is_some(), "whoever is refused is told when to come again");
                *sent.refused.entry(reply.status).or_default() += 1;
                // Like a well-behaved client, with a much shorter wait.
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => client = None,
        }
    }
    sent
}
