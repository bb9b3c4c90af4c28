//! The contract of every store, for both engines: one test suite that uses only `Store`, and
//! a model with the same results after any history. A new behaviour starts as a case here.

mod details;
mod foreign;
mod indexed;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::postgres::config::PostgresConfig;
use super::postgres::test_steps;
use super::{Health, Lookup, Store, StoreError, Unobserved};
use crate::{Database, StoreConfig};
use domain::event::EventRequest;
use domain::message::FullMessage;
use domain::stats::TOP_SENDERS_MAX;
use domain::{
    Address, Filter, Intake, Kind, Message, MessageId, Moment, Needle, NewMessage, Order, Outcome, Page, PageRequest,
    Position, Room, SenderCount, Start, State, Stats, Stored, Timestamp,
};

use testkit::cluster;

/// The engines that the suite runs on.
#[derive(Debug, Clone, Copy)]
enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// A fresh database, and its folder, if any. None, with the reason printed, if the engine is not available.
    fn database(self) -> Option<(Database, TempDir)> {
        let folder = tempfile::tempdir().unwrap();
        let database = match self {
            Self::Sqlite => Database::Sqlite { path: folder.path().join("deep").join("app.db") },
            Self::Postgres => on_server(&cluster::shared()?.database()),
        };
        Some((database, folder))
    }
}

fn on_server(url: &str) -> Database {
    Database::Postgres(PostgresConfig::of_url(url).expect("the URL of a server").into())
}

fn config(database: Database) -> StoreConfig {
    StoreConfig {
        database,
        queue_max: 64,
        batch_max: 16,
        lock_timeout: Duration::from_secs(5),
        query_timeout: Duration::from_secs(60),
        readers: 2,
        checkpoint_pages: 16,
        log_pages_max: 1 << 20,
    }
}

fn open(config: &StoreConfig) -> Store {
    Store::open_limited(config, Arc::new(Unobserved), test_steps::SMALL).expect("the store opens")
}

/// Runs a test within a runtime, on a fresh store. None if the engine is not available.
fn with_store<T>(engine: Engine, test: impl AsyncFnOnce(&Store) -> T) -> Option<T> {
    let (database, _folder) = engine.database()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&config(database));
        let result = test(&store).await;
        store.close();
        Some(result)
    })
}

/// Generates a test per engine for each case.
macro_rules! on_both_engines {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $case() { super::$case(super::Engine::Sqlite); })+
        }
        mod postgres {
            $(#[test] fn $case() { super::$case(super::Engine::Postgres); })+
        }
    };
}

use on_both_engines;

on_both_engines!(
    an_empty_store_answers_empty,
    the_first_copy_counts_and_a_different_one_is_told,
    one_request_may_hold_many_messages_and_copies,
    fifty_copies_at_once_make_one_row,
    a_full_queue_says_so_and_loses_nothing,
    what_is_stored_is_there_after_a_close,
    after_any_history_a_store_agrees_with_the_model,
    messages_without_details_are_texts_of_the_original_source,
);

fn message(id: &str, from: &str, ts: &str, text: Option<&str>) -> NewMessage {
    NewMessage {
        id: MessageId::parse(id).unwrap(),
        from: Address::phone(from).unwrap(),
        to: Address::phone("+1").unwrap(),
        ts: Timestamp::parse(ts).unwrap(),
        text: text.map(str::to_owned),
        accepted_at: Moment::from_microseconds(0),
        details: None,
        former_id: None,
    }
}

fn intake_of(messages: Vec<NewMessage>) -> Intake {
    Intake { messages, ..Intake::default() }
}

async fn file(store: &Store, messages: Vec<NewMessage>) -> Vec<Outcome> {
    store.append(intake_of(messages)).await.unwrap().outcomes().to_vec()
}

fn all(limit: u32) -> PageRequest {
    PageRequest {
        filter: Filter::default(),
        order: Order::Time,
        limit,
        start: Start::Offset(0),
        bounded_total: false,
        room: Room::default(),
    }
}

const NOON: &str = "2025-01-15T12:00:00Z";

fn an_empty_store_answers_empty(engine: Engine) {
    with_store(engine, async |store: &Store| {
        assert_eq!(store.page(all(50)).await.unwrap(), Page::default());
        assert_eq!(store.stats().await.unwrap(), Stats::default());
        assert_eq!(store.health().await, Health::Ready);
        assert!(store.append(Intake::default()).await.unwrap().outcomes().is_empty());
    });
}

fn the_first_copy_counts_and_a_different_one_is_told(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let first = message("m", "+1", NOON, Some("a"));
        let others = [
            message("m", "+2", NOON, Some("a")),
            message("m", "+1", "2025-01-15T12:00:01Z", Some("a")),
            message("m", "+1", NOON, Some("b")),
            message("m", "+1", NOON, None),
        ];
        assert_eq!(file(store, vec![first.clone()]).await, [Outcome::Created]);
        let mut again = first.clone();
        again.accepted_at = Moment::from_microseconds(1);
        assert_eq!(file(store, vec![again]).await, [Outcome::Duplicate], "when it came is no content");
        for other in others {
            assert_eq!(file(store, vec![other]).await, [Outcome::Conflict]);
        }
        assert_eq!(store.page(all(50)).await.unwrap().messages[0].text.as_deref(), Some("a"));
    });
}

fn one_request_may_hold_many_messages_and_copies(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let messages = ["a", "b", "a", "c"].map(|id| message(id, "+1", NOON, None)).to_vec();
        let expected = [Outcome::Created, Outcome::Created, Outcome::Duplicate, Outcome::Created];
        assert_eq!(file(store, messages).await, expected);
        let many: Vec<_> = (0..1000).map(|at| message(&format!("m{at}"), "+2", NOON, None)).collect();
        assert!(
            file(store, many).await.iter().all(|outcome| *outcome == Outcome::Created),
            "larger than queue and batch"
        );
        assert_eq!(store.page(all(1)).await.unwrap().total, 1003);
    });
}

fn fifty_copies_at_once_make_one_row(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let copies = (0..50).map(|at| file(store, vec![message("m", "+1", NOON, Some(&at.to_string()))]));
        let outcomes = futures_join(copies).await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == [Outcome::Created]).count(), 1);
        assert_eq!(store.stats().await.unwrap().total_messages, 1);
    });
}

fn a_full_queue_says_so_and_loses_nothing(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let posts = (0..200).map(|at| store.append(intake_of(vec![message(&format!("{at}"), "+1", NOON, None)])));
        let results = futures_join(posts).await;
        let stored = results.iter().filter(|result| result.is_ok()).count();
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(StoreError::QueueFull))));
        assert!((64..200).contains(&stored), "{stored}");
        assert_eq!(store.page(all(1)).await.unwrap().total, stored as u64);
    });
}

fn what_is_stored_is_there_after_a_close(engine: Engine) {
    let Some((database, _folder)) = engine.database() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = config(database);
        let store = open(&config);
        file(&store, vec![message("m", "+1", NOON, Some("a\0b"))]).await;
        let (page, stats) = (store.page(all(50)).await.unwrap(), store.stats().await.unwrap());
        store.close();
        let store = open(&config);
        assert_eq!(store.page(all(50)).await.unwrap(), page);
        assert_eq!(page.messages[0].text.as_deref(), Some("a\0b"), "NUL in a text comes back");
        assert_eq!(store.stats().await.unwrap(), stats);
        store.close();
    });
}

fn messages_without_details_are_texts_of_the_original_source(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let mut sent = message("a/b é", "+1", NOON, Some("x\0y"));
        sent.accepted_at = Moment::from_microseconds(1_736_942_400_000_001);
        file(store, vec![sent, message("other", "+1", NOON, None)]).await;
        let Lookup::Found(found) = store.message("a/b é".to_owned()).await.unwrap() else { panic!("it is there") };
        let FullMessage { message, created_at, details, payload } = found;
        assert_eq!((message.id.as_str(), message.from.as_str(), message.to.as_str()), ("a/b é", "+1", "+1"));
        assert_eq!((message.ts.as_str(), message.text.as_deref()), (NOON, Some("x\0y")));
        assert_eq!(created_at, "2025-01-15T12:00:00.000001Z");
        assert_eq!((details, payload), (None, None));
        for id in ["a/b", "a", "", "a\0b"] {
            assert_eq!(store.message(id.to_owned()).await.unwrap(), Lookup::Absent, "{id}");
        }
        assert_eq!(store.statuses("other".to_owned()).await.unwrap(), Lookup::Absent);
        assert!(store.status_counts().await.unwrap().iter().all(|(_, count)| *count == 0));
        assert_eq!(store.status_counts().await.unwrap().len(), State::ALL.len());
        let all_events = EventRequest { source: None, kind: None, limit: 9, before: None };
        assert!(store.events(all_events).await.unwrap().is_empty());
        assert_eq!(store.payload(1).await.unwrap(), None);
        assert!(store.unreadable_payloads(0, true, 9).await.unwrap().is_empty());
        let total = async |source: Option<&str>, kind: Option<Kind>| {
            let filter = Filter { source: source.map(str::to_owned), kind, ..Filter::default() };
            store.page(PageRequest { filter, ..all(1) }).await.unwrap().total
        };
        assert_eq!(total(Some("postroom"), Some(Kind::Text)).await, 2);
        assert_eq!(total(Some("meta"), None).await, 0);
        assert_eq!(total(None, Some(Kind::Image)).await, 0);
    });
}

/// Polls all futures to completion; all of them are polled whenever one makes progress.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    futures.into_iter().map(|(_, output)| output.expect("all are ready")).collect()
}

/// The model: an inbox in a map.
#[derive(Default)]
struct Model(BTreeMap<String, NewMessage>);

impl Model {
    fn append(&mut self, message: &NewMessage) -> Outcome {
        match self.0.get(message.id.as_str()) {
            None => {
                self.0.insert(message.id.as_str().to_owned(), message.clone());
                Outcome::Created
            }
            Some(first) => {
                let same = (&first.from, &first.to, first.ts, &first.text)
                    == (&message.from, &message.to, message.ts, &message.text);
                if same { Outcome::Duplicate } else { Outcome::Conflict }
            }
        }
    }

    fn page(&self, request: &PageRequest) -> Page {
        let PageRequest { filter, limit, start, .. } = request;
        let Start::Offset(offset) = start else { unreachable!("the model pages by offset") };
        let mut found: Vec<_> = self.0.values().filter(|message| lets_through(filter, message)).collect();
        found.sort_by(|a, b| (a.ts.as_str(), a.id.as_str()).cmp(&(b.ts.as_str(), b.id.as_str())));
        let shown = |message: &&NewMessage| Message {
            id: message.id.as_str().to_owned(),
            from: message.from.as_str().to_owned(),
            to: message.to.as_str().to_owned(),
            ts: message.ts.as_str().to_owned(),
            text: message.text.clone(),
        };
        let messages: Vec<_> = found.iter().skip(*offset as usize).take(*limit as usize).map(shown).collect();
        let bytes = messages.iter().map(Message::json_bytes).sum();
        let next = found.len() as u64 > offset.saturating_add((*limit).into());
        let last = next.then(|| found[*offset as usize + *limit as usize - 1]);
        let stored = |text: &str| Stored { bytes: text.into(), is_blob: false };
        let next = last.map(|last| Position::Time { ts: stored(last.ts.as_str()), id: stored(last.id.as_str()) });
        Page { messages, bytes, is_too_large: false, total: found.len() as u64, total_is_bound: false, next }
    }

    fn stats(&self) -> Stats {
        let mut counts = BTreeMap::new();
        for message in self.0.values() {
            *counts.entry(message.from.as_str()).or_insert(0) += 1;
        }
        let senders_count = counts.len() as u64;
        let mut senders: Vec<_> = counts.into_iter().collect();
        senders.sort_by_key(|(from, count)| (std::cmp::Reverse(*count), *from));
        let times = || self.0.values().map(|message| message.ts.as_str().to_owned());
        Stats {
            total_messages: self.0.len() as u64,
            senders_count,
            top_senders: senders
                .into_iter()
                .take(TOP_SENDERS_MAX)
                .map(|(from, count)| SenderCount { from: from.to_owned(), count })
                .collect(),
            first_ts: times().min(),
            last_ts: times().max(),
        }
    }
}

fn lets_through(filter: &Filter, message: &NewMessage) -> bool {
    let contains = |needle: &Needle| message.text.as_ref().is_some_and(|text| needle.is_in(text, &mut String::new()));
    filter.from.as_ref().is_none_or(|from| from == message.from.as_str())
        && filter.since.is_none_or(|since| message.ts >= since)
        && filter.until.is_none_or(|until| message.ts < until)
        && filter.to.as_ref().is_none_or(|to| to == message.to.as_str())
        && filter.search.as_ref().is_none_or(contains)
}

/// Follows a listing from page to page to its end.
async fn walk(store: &Store, request: &PageRequest) -> Vec<Message> {
    let mut request = request.clone();
    let mut walked = Vec::new();
    loop {
        let page = store.page(request.clone()).await.unwrap();
        let ended = page.messages.is_empty();
        walked.extend(page.messages);
        match page.next {
            Some(next) if !ended => request.start = Start::Behind(next),
            _ => return walked,
        }
    }
}

fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    (0..3, 0..3).prop_map(|(day, second)| Timestamp::parse(&format!("2025-01-1{day}T00:00:0{second}Z")).unwrap())
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "A", "é", "É", "明", "天", "%", "_", "\0", " "]), 0..5)
        .prop_map(|parts| parts.concat())
}

/// Few ids, senders and times, so that copies, ties and empty results are common.
fn any_message() -> impl Strategy<Value = NewMessage> {
    ("[a-cA-C]{1,2}", "\\+[1-9][0-4]?", any_timestamp(), prop::option::of(any_text())).prop_map(
        |(id, from, ts, text)| {
            let mut message = message(&id, &from, NOON, text.as_deref());
            message.ts = ts;
            message
        },
    )
}

fn any_page_request() -> impl Strategy<Value = PageRequest> {
    let times = (prop::option::of(any_timestamp()), prop::option::weighted(0.2, any_timestamp()));
    let to = prop::option::weighted(0.1, "\\+[12]");
    let filter = (prop::option::of("\\+[1-9][0-4]?"), times, prop::option::of(any_text()), to).prop_map(
        |(from, (since, until), q, to)| {
            let search = q.filter(|q| !q.is_empty()).map(|q| Needle::new(&q));
            Filter { from, since, search, to, until, ..Filter::default() }
        },
    );
    let offset = prop_oneof![4 => 0..12u64, 1 => Just(i64::MAX as u64)];
    (filter, 1..8u32, offset, any::<bool>()).prop_map(|(filter, limit, offset, bounded_total)| PageRequest {
        filter,
        order: Order::Time,
        limit,
        start: Start::Offset(offset),
        bounded_total,
        room: Room::default(),
    })
}

fn after_any_history_a_store_agrees_with_the_model(engine: Engine) {
    let long = std::env::var("POSTROOM_TEST_LONG").is_ok_and(|value| value == "1");
    let cases = if long { 500 } else { 40 };
    let step = (prop::collection::vec(any_message(), 1..12), prop::collection::vec(any_page_request(), 1..6));
    let history = prop::collection::vec(step, 1..8);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(&history, |history| with_store(engine, agrees(history)).unwrap_or(Ok(()))).unwrap();
}

/// Applies a history to a store and to the model, and compares their results after each step.
fn agrees(history: Vec<(Vec<NewMessage>, Vec<PageRequest>)>) -> impl AsyncFnOnce(&Store) -> Result<(), TestCaseError> {
    async |store: &Store| {
        let mut model = Model::default();
        for (messages, requests) in history {
            let expected: Vec<_> = messages.iter().map(|message| model.append(message)).collect();
            prop_assert_eq!(file(store, messages).await, expected);
            for request in requests {
                prop_assert_eq!(store.page(request.clone()).await.unwrap(), model.page(&request), "{:?}", request);
                let first = PageRequest { start: Start::Offset(0), ..request };
                let all = PageRequest { limit: 10_000, ..first.clone() };
                let expected = model.page(&all).messages;
                prop_assert_eq!(&walk(store, &first).await, &expected, "page by page: {:?}", first);
                let by_arrival = PageRequest { order: Order::Arrival, ..first };
                prop_assert_eq!(arrived(store, &by_arrival, expected.len()).await, expected);
            }
            prop_assert_eq!(store.stats().await.unwrap(), model.stats());
        }
        Ok(())
    }
}

/// All messages of a walk in the order of arrival, sorted by time. A store may delay messages while another
/// transaction is in progress, so the walk is repeated until it lists the total.
async fn arrived(store: &Store, request: &PageRequest, count: usize) -> Vec<Message> {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut arrived = walk(store, request).await;
        if arrived.len() >= count || std::time::Instant::now() > deadline {
            arrived.sort_by(|a, b| (&a.ts, &a.id).cmp(&(&b.ts, &b.id)));
            return arrived;
        }
    }
}
