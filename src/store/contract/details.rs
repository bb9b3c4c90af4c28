//! What a store must do with what providers tell beyond the six columns. For now only SQLite keeps it; what PostgreSQL answers
//! instead is the last case here, and that of messages without details, which runs on both.

use bytes::Bytes;

use super::*;
use crate::domain::event::UNREADABLE;
use crate::domain::{Details, Event, Payload, StatusUpdate};

fn details(provider_id: &str, kind: Kind, told_time: bool) -> Box<Details> {
    Box::new(Details {
        source: "meta".to_owned(),
        provider: "whatsapp",
        account: "1".to_owned(),
        provider_id: provider_id.to_owned(),
        kind,
        provider_kind: kind.name().to_owned(),
        provider_ts: told_time.then(|| "1736942400".to_owned()),
        reply_to: None,
        profile_name: Some("Ann".to_owned()),
        person: None,
        group: None,
        media: Vec::new(),
        extra: Default::default(),
    })
}

fn with_details(id: &str, provider_id: &str, kind: Kind) -> NewMessage {
    NewMessage { details: Some(details(provider_id, kind, true)), ..message(id, "+1", NOON, Some("x")) }
}

fn payload(bytes: &'static [u8]) -> Option<Payload> {
    let headers = vec![("webhook-id".to_owned(), "1".to_owned())];
    Some(Payload {
        source: "meta".to_owned(),
        provider: "whatsapp",
        bytes: Bytes::from_static(bytes),
        headers,
        redacted: false,
    })
}

fn status(message: &str, recipient: &str, state: State, second: u32) -> StatusUpdate {
    StatusUpdate {
        message: MessageId::parse(message).unwrap(),
        provider_id: message.rsplit(':').next().unwrap().to_owned(),
        source: "meta".to_owned(),
        recipient: recipient.to_owned(),
        state,
        at: Timestamp::parse(&format!("2025-01-15T12:00:0{second}Z")).unwrap(),
        error: (state == State::Failed).then(|| "131050".to_owned()),
    }
}

fn event(key: &str, kind: &str) -> Event {
    Event {
        key: key.to_owned(),
        source: "meta".to_owned(),
        provider: "whatsapp",
        kind: kind.to_owned(),
        body: Some(format!("{{\"key\":\"{key}\"}}")),
        accepted_at: Moment::from_microseconds(0),
    }
}

fn events_of(kind: &str) -> EventRequest {
    EventRequest { source: None, kind: Some(kind.to_owned()), limit: 10, before: None }
}

#[test]
fn a_message_is_found_with_its_details_and_its_raw_body() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let parsed = Parsed {
            messages: vec![with_details("k:a", "a", Kind::Image), with_details("k:b", "b", Kind::Text)],
            payload: payload(b"the raw body, the raw body, the raw body"),
            ..Parsed::default()
        };
        store.append(parsed).await.unwrap();
        let Lookup::Found(found) = store.message("k:a".to_owned()).await.unwrap() else { panic!("it is there") };
        let fields = found.details.unwrap();
        assert_eq!((fields["kind"].as_str(), fields["profile_name"].as_str()), (Some("image"), Some("Ann")));
        let stored = store.payload(found.payload.unwrap()).await.unwrap().unwrap();
        assert_eq!(stored.bytes, b"the raw body, the raw body, the raw body");
        assert_eq!(stored.headers, [("webhook-id".to_owned(), "1".to_owned())]);
        let by_bare_id = store.message("b".to_owned()).await.unwrap();
        assert!(
            matches!(by_bare_id, Lookup::Found(found) if found.message.id == "k:b" && found.payload == Some(stored.number))
        );
        assert_eq!(store.message("c".to_owned()).await.unwrap(), Lookup::Absent);
        assert_eq!(store.payload(stored.number + 1).await.unwrap(), None);
        file(store, vec![message("plain", "+1", NOON, None)]).await;
        let plain = store.message("plain".to_owned()).await.unwrap();
        assert!(matches!(plain, Lookup::Found(found) if found.details.is_none() && found.payload.is_none()));
    });
}

#[test]
fn an_id_of_several_messages_is_told_as_such() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let messages = (0..12).map(|at| with_details(&format!("k{at:02}:a"), "a", Kind::Text)).collect();
        store.append(brought(messages)).await.unwrap();
        let found = store.message("a".to_owned()).await.unwrap();
        assert!(matches!(found, Lookup::Ambiguous(keys) if keys.len() == 10 && keys[0] == "k00:a"));
    });
}

#[test]
fn a_time_of_ours_is_no_content_and_a_conflict_is_an_event() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let mut first = with_details("k:a", "a", Kind::Text);
        first.details = Some(details("a", Kind::Text, false));
        let mut later = first.clone();
        later.ts = Timestamp::parse("2025-01-15T12:00:09Z").unwrap();
        let other = NewMessage { text: Some("y".to_owned()), ..first.clone() };
        let append = |messages, bytes| store.append(Parsed { messages, payload: payload(bytes), ..Parsed::default() });
        assert_eq!(append(vec![first], b"1").await.unwrap().outcomes(), [Outcome::Created]);
        assert_eq!(append(vec![later], b"2").await.unwrap().outcomes(), [Outcome::Duplicate]);
        for _ in 0..2 {
            assert_eq!(append(vec![other.clone()], b"3").await.unwrap().outcomes(), [Outcome::Conflict]);
        }
        let conflicts = store.events(events_of("conflict")).await.unwrap();
        assert_eq!(conflicts.len(), 1, "the same copy twice is one event");
        let kept = store.payload(conflicts[0].payload.unwrap()).await.unwrap().unwrap();
        assert_eq!(kept.bytes, b"3", "what the copy said is kept");
    });
}

#[test]
fn states_only_rise_in_whatever_order_they_come() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let append = |statuses| store.append(Parsed { statuses, ..Parsed::default() });
        let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
        for (at, order) in orders.iter().enumerate() {
            let states = [State::Sent, State::Delivered, State::Read];
            let key = format!("k:m{at}");
            for place in order {
                let status = status(&key, "r", states[*place], *place as u32);
                assert_eq!(append(vec![status.clone()]).await.unwrap().statuses(), [Outcome::Created]);
                assert_eq!(append(vec![status]).await.unwrap().statuses(), [Outcome::Duplicate]);
            }
            let Lookup::Found(found) = store.statuses(format!("m{at}")).await.unwrap() else { panic!("it is there") };
            assert_eq!((found.message, found.state), (key, State::Read));
            assert_eq!(found.records.iter().map(|record| record.state).collect::<Vec<_>>(), states);
        }
        let group = ["r1", "r2"].map(|recipient| status("k:g", recipient, State::Delivered, 1)).to_vec();
        append([group, vec![status("k:g", "r1", State::Failed, 2)]].concat()).await.unwrap();
        let counts = store.status_counts().await.unwrap();
        let expected = [(State::Delivered, 1), (State::Read, 3), (State::Failed, 1)];
        for (state, count) in counts {
            let wanted = expected.iter().find(|(other, _)| *other == state).map_or(0, |(_, count)| *count);
            assert_eq!(count, wanted, "{state:?}");
        }
        assert_eq!(store.statuses("k:none".to_owned()).await.unwrap(), Lookup::Absent);
    });
}

#[test]
fn events_are_stored_once_and_listed_newest_first() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let events = ["a", "b", "a"].map(|key| event(key, "odd")).to_vec();
        let receipt = store.append(Parsed { events, ..Parsed::default() }).await.unwrap();
        assert_eq!(receipt.events(), [Outcome::Created, Outcome::Created, Outcome::Duplicate]);
        store.append(Parsed { events: vec![event("c", "even")], ..Parsed::default() }).await.unwrap();
        let keys = |events: Vec<crate::domain::event::StoredEvent>| {
            events.into_iter().map(|event| event.body.unwrap()).collect::<Vec<_>>()
        };
        let all = EventRequest { source: None, kind: None, limit: 2, before: None };
        let page = store.events(all.clone()).await.unwrap();
        let before = page.last().map(|event| event.number);
        assert_eq!(keys(page), [r#"{"key":"c"}"#, r#"{"key":"b"}"#]);
        assert_eq!(keys(store.events(EventRequest { before, ..all.clone() }).await.unwrap()), [r#"{"key":"a"}"#]);
        let elsewhere = EventRequest { source: Some("other".to_owned()), ..all };
        assert!(store.events(elsewhere).await.unwrap().is_empty());
    });
}

#[test]
fn what_can_be_read_at_last_is_no_event_any_more() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let unread = Parsed { events: vec![event("u", UNREADABLE)], payload: payload(b"body"), ..Parsed::default() };
        store.append(unread.clone()).await.unwrap();
        let waiting = store.unreadable_payloads(0, false, 10).await.unwrap();
        assert_eq!(waiting.iter().map(|payload| payload.bytes.as_slice()).collect::<Vec<_>>(), [b"body"]);
        store.append(unread).await.unwrap();
        assert_eq!(store.events(events_of(UNREADABLE)).await.unwrap().len(), 1, "still not read");
        let read = Parsed {
            messages: vec![with_details("k:a", "a", Kind::Text)],
            payload: payload(b"body"),
            ..Parsed::default()
        };
        store.append(read).await.unwrap();
        assert!(store.events(events_of(UNREADABLE)).await.unwrap().is_empty());
        assert!(store.unreadable_payloads(0, false, 10).await.unwrap().is_empty());
        assert_eq!(store.unreadable_payloads(0, true, 10).await.unwrap().len(), 1, "the raw body stays");
    });
}

#[test]
fn listings_are_filtered_by_source_and_kind() {
    with_store(Engine::Sqlite, async |store: &Store| {
        let messages = vec![
            with_details("k:a", "a", Kind::Image),
            with_details("k:b", "b", Kind::Text),
            message("plain", "+1", NOON, None),
        ];
        store.append(brought(messages)).await.unwrap();
        let total = async |source: Option<&str>, kind: Option<Kind>| {
            let filter = Filter { source: source.map(str::to_owned), kind, ..Filter::default() };
            store.page(PageRequest { filter, ..all(1) }).await.unwrap().total
        };
        assert_eq!(total(Some("meta"), None).await, 2);
        assert_eq!(total(Some("postroom"), None).await, 1, "without details: of the original door");
        assert_eq!(total(None, Some(Kind::Image)).await, 1);
        assert_eq!(total(None, Some(Kind::Text)).await, 2, "without details: a text");
        assert_eq!(total(Some("meta"), Some(Kind::Text)).await, 1);
    });
}

#[test]
fn what_postgresql_would_lose_it_refuses() {
    with_store(Engine::Postgres, async |store: &Store| {
        let plain = || vec![message("plain", "+1", NOON, None)];
        let refused = [
            brought(vec![with_details("k:a", "a", Kind::Text)]),
            Parsed { statuses: vec![status("k:a", "r", State::Sent, 1)], ..brought(plain()) },
            Parsed { events: vec![event("u", UNREADABLE)], ..brought(plain()) },
            Parsed { payload: payload(b"body"), ..brought(plain()) },
        ];
        for parsed in refused {
            assert!(matches!(store.append(parsed).await, Err(StoreError::Unavailable(_))));
        }
        assert_eq!(store.stats().await.unwrap(), Stats::default(), "nothing of them was stored");
        assert_eq!(file(store, plain()).await, [Outcome::Created]);
    });
}
