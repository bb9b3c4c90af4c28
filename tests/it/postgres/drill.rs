//! A failover drill: a primary with a standby, three replicas,
//! 64 connections, plain messages and deliveries of providers,
//! and copies that two replicas receive at the same instant.
//! Replicas are killed, the primary crashes and restarts, its
//! connection to the standby fails, the primary fails for good,
//! and the standby is promoted. With a synchronous standby no
//! acknowledged message may be missing. With an asynchronous
//! one some must be; otherwise the drill would prove nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sources::{sources_on, status_envelope};
use super::{on, own_cluster, wait_for_readiness};
use crate::harness::cluster::{Cluster, programs, sql};
use crate::harness::load::message_of;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::random::{Random, long_run};
use crate::harness::test_source::{all_sources, now};
use crate::harness::{Client, Server, Setup, Stored, TestSource, body, sign, wait_until};
use crate::sources::{envelope, text_message};

const CONNECTIONS: usize = 64;
const REPLICAS: usize = 3;

/// The id of a message of Twilio's own account.
const TWILIO_ACCOUNT: &str = "AC00000000000000000000000000000000";

/// All stored elements of a request, one line each: a message; its details, with their raw body; a
/// state.
const STORED: &str = "SELECT message_id FROM messages
    UNION ALL SELECT d.message_id || ' as ' || d.provider_id || ' at ' || p.source
        FROM postroom_details d JOIN postroom_payloads p USING (payload_id)
    UNION ALL SELECT message_id || ' is ' || state FROM postroom_statuses";

/// The result of a drill.
struct Report {
    /// The number of messages, and of all messages with their details and states.
    messages: usize,
    acked: usize,
    lost: usize,
    unasked: usize,
    refused: usize,
    longest_pause: Duration,
    kills: usize,
}

#[test]
fn nothing_acknowledged_is_lost_when_a_synchronous_standby_takes_over() {
    let Some(report) = drill("synchronous") else { return };
    assert_eq!((report.lost, report.unasked), (0, 0));
    assert!(report.kills > 0 && report.acked > 0);
}

#[test]
fn the_same_with_an_asynchronous_standby_loses_some() {
    let Some(report) = drill("asynchronous") else { return };
    assert!(report.lost > 0, "a drill that cannot fail proves nothing");
}

/// A standby whose connection to the primary leads through a proxy.
fn standby_through(proxy: &Proxy) -> Cluster {
    let standby = Cluster::standby_of("127.0.0.1", proxy.address.port());
    standby.launch("-c synchronous_standby_names= -c wal_retrieve_retry_interval=100ms");
    standby
}

/// Waits until the standby has everything that the primary has now.
fn wait_for_standby(primary: &Cluster) {
    let now = sql(primary.url(), "SELECT pg_current_wal_lsn()");
    let there = format!("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= '{now}'");
    wait_until("the standby has caught up", || (sql(primary.url(), &there) == "1").then_some(()));
}

fn drill(kind: &str) -> Option<Report> {
    programs()?;
    let mut random = Random::announced(&format!("drill, {kind} standby"));
    let primary = own_cluster()?;
    let url = primary.database();
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database").to_owned();
    let proxy = Proxy::start(primary.folder());
    let standby = standby_through(&proxy);
    let settings = if kind == "synchronous" { "-c synchronous_standby_names=*" } else { "" };
    primary.halt("fast");
    primary.launch(settings);
    let both = format!(
        "postgres://postroom@/{name}?host={},{}&target_session_attrs=read-write",
        primary.folder().display(),
        standby.folder().display()
    );
    let start = || sources_on(&both).env("POSTROOM_POSTGRES_WRITE_SECONDS", 2).start();
    let mut replicas: Vec<Server> = (0..REPLICAS).map(|_| start()).collect();
    let load = Load::start(&replicas, &mut random);
    let mut kills = 0;
    for round in 0..if long_run() { 12 } else { 2 } {
        load.wait_for_more(300);
        let at = random.below(REPLICAS as u64) as usize;
        // A new replica at another address replaces it, as with an orchestrator.
        std::mem::replace(&mut replicas[at], start()).kill();
        load.addresses.lock().unwrap()[at] = replicas[at].address;
        kills += 1;
        if round % 2 == 1 {
            load.wait_for_more(300);
            primary.halt("immediate");
            primary.launch(settings);
        }
    }
    load.wait_for_more(300);
    wait_for_standby(&primary);
    // The standby receives nothing any more. A synchronous primary then acknowledges nothing; an asynchronous one
    // continues.
    proxy.set(Mode::Stall);
    if kind == "synchronous" {
        wait_until("writes are refused", || (replicas[0].get("/health/ready").status == 503).then_some(()));
    } else {
        load.wait_for_more(300);
    }
    primary.halt("immediate");
    standby.promote();
    replicas.iter().for_each(|replica| wait_for_readiness(replica, 200));
    load.wait_for_more(300);
    let sent = load.finish();
    let url = standby.url_of(&name);
    let rows = Stored::at(&url).rows(STORED);
    let stored: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(stored.len(), rows.len(), "nothing is there twice");
    let lost = sent.acked.difference(&stored).count();
    let unasked = stored.difference(&sent.tried).count();
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success() && stdout.contains("agree with a recount"), "{stdout}{stderr}");
    let stats = replicas[0].get("/stats").json();
    assert_eq!(stats["total_messages"], stored.iter().filter(|line| is_message(line)).count());
    let report = Report {
        messages: sent.acked.iter().filter(|line| is_message(line)).count(),
        acked: sent.acked.len(),
        lost,
        unasked,
        refused: sent.refused,
        longest_pause: sent.longest_pause,
        kills,
    };
    println!(
        "{kind} standby: {} messages acknowledged, with {} details and states of providers; {} of all these lost, {} requests \
         refused or without an answer, {} replicas killed, longest time without an acknowledgement {:.1} s",
        report.messages,
        report.acked - report.messages,
        report.lost,
        report.refused,
        report.kills,
        report.longest_pause.as_secs_f64()
    );
    Some(report)
}

fn is_message(line: &str) -> bool {
    !line.contains(' ')
}

/// A request, and its expected rows, in the lines of `STORED`.
struct Posted {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    brings: Vec<String>,
}

/// The sources that receive a part of the load.
struct Sources {
    whatsapp: TestSource,
    twilio: TestSource,
}

impl Sources {
    fn new() -> Self {
        let setup = all_sources(Setup::new());
        Self { whatsapp: TestSource::of(&setup, "whatsapp"), twilio: TestSource::of(&setup, "twilio") }
    }

    /// A request with an id: a plain message, a batch of Meta with a state of a sent message, or a form of
    /// Twilio.
    fn request(&self, id: &str, random: &mut Random) -> Posted {
        match random.below(4) {
            0 => {
                let ids = [0, 1, 2].map(|at| format!("{id}m{at}"));
                let mut whole: Value = json_of(&envelope(&ids.each_ref().map(|id| text_message(id, "Hello"))));
                let state = json_of(&status_envelope(&format!("{id}out"), "delivered"));
                whole["entry"].as_array_mut().expect("a list").push(state["entry"][0].clone());
                let mut brings = vec![format!("whatsapp:7:{id}out is delivered")];
                brings.extend(ids.iter().flat_map(|id| message_of_source("whatsapp", "7", id)));
                posted(&self.whatsapp, serde_json::to_vec(&whole).expect("a value is JSON"), brings)
            }
            1 => {
                let form = format!(
                    "SmsMessageSid={id}&NumMedia=0&SmsSid={id}&SmsStatus=received&To=%2B18005551212&MessageSid={id}\
                     &AccountSid={TWILIO_ACCOUNT}&From=%2B14158675309&ApiVersion=2010-04-01&Body=Hello"
                );
                posted(&self.twilio, form.into_bytes(), message_of_source("twilio", TWILIO_ACCOUNT, id).into())
            }
            _ => {
                let body = body(&message_of(id));
                let headers = vec![("X-Signature".to_owned(), sign(&body))];
                Posted { path: "/webhook".to_owned(), headers, body, brings: vec![id.to_owned()] }
            }
        }
    }
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("it is JSON")
}

/// A message of a source, and its details.
fn message_of_source(source: &str, account: &str, id: &str) -> [String; 2] {
    let key = format!("{source}:{account}:{id}");
    [key.clone(), format!("{key} as {id} at {source}")]
}

fn posted(source: &TestSource, body: Vec<u8>, brings: Vec<String>) -> Posted {
    let headers = source.headers(&body, "1", now());
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()));
    Posted { path: source.path.clone(), headers: headers.collect(), body, brings }
}

/// The requests of all connections.
#[derive(Default)]
struct Sent {
    tried: BTreeSet<String>,
    acked: BTreeSet<String>,
    refused: usize,
    longest_pause: Duration,
}

/// Connections that post to the current addresses of the replicas.
struct Load {
    finish: Arc<AtomicBool>,
    acks: Arc<AtomicUsize>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    threads: Vec<std::thread::JoinHandle<(Sent, Vec<Instant>)>>,
}

impl Load {
    fn start(replicas: &[Server], random: &mut Random) -> Self {
        let addresses = Arc::new(Mutex::new(replicas.iter().map(|replica| replica.address).collect::<Vec<_>>()));
        let (finish, acks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let sources = Arc::new(Sources::new());
        // Each has a connection for its messages, and one for their copies.
        let start = |at: usize| {
            let (addresses, random) = (Arc::clone(&addresses), Random::new(random.next()));
            let (finish, acks, sources) = (Arc::clone(&finish), Arc::clone(&acks), Arc::clone(&sources));
            std::thread::spawn(move || post_until(at, &sources, &addresses, random, &finish, &acks))
        };
        let threads = (0..CONNECTIONS / 2).map(start).collect();
        Self { finish, acks, addresses, threads }
    }

    fn wait_for_more(&self, count: usize) {
        let wanted = self.acks.load(Ordering::SeqCst) + count;
        wait_until("more is acknowledged", || (self.acks.load(Ordering::SeqCst) >= wanted).then_some(()));
    }

    fn finish(self) -> Sent {
        self.finish.store(true, Ordering::SeqCst);
        let (mut all, mut moments) = (Sent::default(), Vec::new());
        for thread in self.threads {
            let (sent, acked_at) = thread.join().expect("the load does not panic");
            all.tried.extend(sent.tried);
            all.acked.extend(sent.acked);
            all.refused += sent.refused;
            moments.extend(acked_at);
        }
        moments.sort_unstable();
        all.longest_pause = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        all
    }
}

/// Posts until it is stopped, and repeats each request until it is
/// acknowledged; sends one in ten to two replicas at the same instant.
fn post_until(
    at: usize,
    sources: &Sources,
    addresses: &Mutex<Vec<SocketAddr>>,
    mut random: Random,
    finish: &AtomicBool,
    acks: &AtomicUsize,
) -> (Sent, Vec<Instant>) {
    let (mut sent, mut moments) = (Sent::default(), Vec::new());
    let mut clients: [Option<Client>; 2] = [None, None];
    let mut number = 0;
    let mut open = None;
    while !finish.load(Ordering::SeqCst) {
        let request = open.take().unwrap_or_else(|| {
            number += 1;
            sources.request(&format!("c{at}-{number}"), &mut random)
        });
        sent.tried.extend(request.brings.iter().cloned());
        let headers: Vec<_> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut is_acked = false;
        let copies = 1 + usize::from(random.one_in(10));
        // Both are sent before either is answered.
        for (copy, client) in clients.iter_mut().enumerate().take(copies) {
            let address = addresses.lock().unwrap()[(at + copy) % REPLICAS];
            if client.is_none() {
                *client = Client::try_connect(address).ok();
            }
            let posted = client.as_mut().map(|client| client.send("POST", &request.path, &headers, &request.body));
            if !matches!(posted, Some(Ok(()))) {
                *client = None;
            }
        }
        for client in clients.iter_mut().take(copies) {
            match client.as_mut().map(Client::receive) {
                Some(Ok(reply)) if reply.status == 200 => {
                    if !std::mem::replace(&mut is_acked, true) {
                        sent.acked.extend(request.brings.iter().cloned());
                        acks.fetch_add(1, Ordering::SeqCst);
                        moments.push(Instant::now());
                    }
                }
                answer => {
                    sent.refused += 1;
                    if !matches!(answer, Some(Ok(_))) {
                        *client = None;
                    }
                }
            }
        }
        if !is_acked {
            open = Some(request);
            // Like a well-behaved client, with a much shorter wait.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    (sent, moments)
}
