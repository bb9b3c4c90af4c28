//! The contract for provider data beyond the six columns.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{on_both_engines, *};
use domain::event::{EVENT_PAGE_BYTES_MAX, UNREADABLE};
use domain::{Details, Event, Payload, StatusUpdate};

on_both_engines!(
    a_message_is_found_with_its_details_and_its_raw_body,
    an_id_of_several_messages_is_told_as_such,
    a_time_of_ours_is_no_content_and_a_conflict_is_an_event,
    states_only_rise_in_whatever_order_they_come,
    events_are_stored_once_and_listed_newest_first,
    a_page_of_large_events_ends_before_it_is_too_long,
    what_can_be_read_at_last_is_no_event_any_more,
    listings_are_filtered_by_source_and_kind,
    any_text_comes_back_even_with_nul,
    long_names_are_kept,
    what_is_said_beside_a_state_is_kept_with_its_raw_body,
    an_event_is_found_by_its_number_with_the_message_that_it_is_about,
    a_message_under_a_former_key_is_not_stored_again,
    an_earlier_form_of_an_address_is_no_other_content,
    a_message_whose_statuses_began_with_another_form_is_counted_once,
    a_body_that_brings_nothing_new_is_not_kept_twice,
    copies_in_flight_at_once_are_each_stored_once,
);

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
        recipient: Some(Address::tagged("id", recipient)),
        state,
        at: Timestamp::parse(&format!("2025-01-15T12:00:0{second}Z")).unwrap(),
        error: (state == State::Failed).then(|| "131050".to_owned()),
        extra: Default::default(),
    }
}

fn event(key: &str, kind: &str) -> Event {
    Event {
        key: key.to_owned(),
        source: "meta".to_owned(),
        provider: "whatsapp",
        kind: kind.to_owned(),
        body: Some(format!("{{\"key\":\"{key}\"}}")),
        message: None,
        accepted_at: Moment::from_microseconds(0),
    }
}

fn events_of(kind: &str) -> EventRequest {
    EventRequest { source: None, kind: Some(kind.to_owned()), limit: 10, before: None }
}

fn a_message_is_found_with_its_details_and_its_raw_body(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let parsed = Intake {
            messages: vec![with_details("k:a", "a", Kind::Image), with_details("k:b", "b", Kind::Text)],
            payload: payload(b"the raw body, the raw body, the raw body"),
            ..Intake::default()
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

fn an_id_of_several_messages_is_told_as_such(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let messages = (0..12).map(|at| with_details(&format!("k{at:02}:a"), "a", Kind::Text)).collect();
        store.append(intake_of(messages)).await.unwrap();
        let found = store.message("a".to_owned()).await.unwrap();
        assert!(matches!(found, Lookup::Ambiguous(keys) if keys.len() == 10 && keys[0] == "k00:a"));
    });
}

fn a_time_of_ours_is_no_content_and_a_conflict_is_an_event(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let mut first = with_details("k:a", "a", Kind::Text);
        first.details = Some(details("a", Kind::Text, false));
        let mut later = first.clone();
        later.ts = Timestamp::parse("2025-01-15T12:00:09Z").unwrap();
        let other = NewMessage { text: Some("y".to_owned()), ..first.clone() };
        let append = |messages, bytes| store.append(Intake { messages, payload: payload(bytes), ..Intake::default() });
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

fn states_only_rise_in_whatever_order_they_come(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let append = |statuses| store.append(Intake { statuses, ..Intake::default() });
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

fn events_are_stored_once_and_listed_newest_first(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let events = ["a", "b", "a"].map(|key| event(key, "odd")).to_vec();
        let receipt = store.append(Intake { events, ..Intake::default() }).await.unwrap();
        assert_eq!(receipt.events(), [Outcome::Created, Outcome::Created, Outcome::Duplicate]);
        store.append(Intake { events: vec![event("c", "even")], ..Intake::default() }).await.unwrap();
        let keys = |events: Vec<domain::event::StoredEvent>| {
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

fn a_page_of_large_events_ends_before_it_is_too_long(engine: Engine) {
    with_store(engine, async |store: &Store| {
        // From the newest: empty, two that fill a page, a small one, one longer than a page, empty.
        for (key, length) in
            [("f", 0), ("e", EVENT_PAGE_BYTES_MAX + 1), ("d", 9), ("c", 1), ("b", EVENT_PAGE_BYTES_MAX - 1), ("a", 0)]
        {
            let body = Some("x".repeat(length));
            let events = vec![Event { body, ..event(key, "odd") }];
            store.append(Intake { events, ..Intake::default() }).await.unwrap();
        }
        let (mut lengths, mut before) = (Vec::new(), None);
        loop {
            let request = EventRequest { before, ..events_of("odd") };
            let page = store.events(request).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.number);
            lengths.push(page.iter().map(|event| event.body.as_ref().map_or(0, String::len)).collect::<Vec<_>>());
        }
        assert_eq!(lengths, [vec![0, EVENT_PAGE_BYTES_MAX - 1, 1], vec![9], vec![EVENT_PAGE_BYTES_MAX + 1], vec![0]]);
    });
}

fn what_can_be_read_at_last_is_no_event_any_more(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let unread = Intake { events: vec![event("u", UNREADABLE)], payload: payload(b"body"), ..Intake::default() };
        store.append(unread.clone()).await.unwrap();
        let waiting = store.unreadable_payloads(0, false, 10).await.unwrap();
        assert_eq!(waiting.iter().map(|payload| payload.bytes.as_slice()).collect::<Vec<_>>(), [b"body"]);
        store.append(unread).await.unwrap();
        assert_eq!(store.events(events_of(UNREADABLE)).await.unwrap().len(), 1, "still not read");
        let read = Intake {
            messages: vec![with_details("k:a", "a", Kind::Text)],
            payload: payload(b"body"),
            ..Intake::default()
        };
        store.append(read).await.unwrap();
        assert!(store.events(events_of(UNREADABLE)).await.unwrap().is_empty());
        assert!(store.unreadable_payloads(0, false, 10).await.unwrap().is_empty());
        assert_eq!(store.unreadable_payloads(0, true, 10).await.unwrap().len(), 1, "the raw body stays");
    });
}

fn listings_are_filtered_by_source_and_kind(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let messages = vec![
            with_details("k:a", "a", Kind::Image),
            with_details("k:b", "b", Kind::Text),
            message("plain", "+1", NOON, None),
        ];
        store.append(intake_of(messages)).await.unwrap();
        let total = async |source: Option<&str>, kind: Option<Kind>| {
            let filter = Filter { source: source.map(str::to_owned), kind, ..Filter::default() };
            store.page(PageRequest { filter, ..all(1) }).await.unwrap().total
        };
        assert_eq!(total(Some("meta"), None).await, 2);
        assert_eq!(total(Some("postroom"), None).await, 1, "without details: of the original source");
        assert_eq!(total(None, Some(Kind::Image)).await, 1);
        assert_eq!(total(None, Some(Kind::Text)).await, 2, "without details: a text");
        assert_eq!(total(Some("meta"), Some(Kind::Text)).await, 1);
    });
}

fn any_text_comes_back_even_with_nul(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let odd = "a\0b\u{ffff}0";
        let mut sent = with_details("k:a", odd, Kind::Text);
        sent.text = Some(odd.to_owned());
        let details = sent.details.as_mut().unwrap();
        (details.profile_name, details.provider_kind) = (Some(odd.to_owned()), odd.to_owned());
        let failed = StatusUpdate {
            error: Some(odd.to_owned()),
            provider_id: odd.to_owned(),
            ..status("k:s", odd, State::Failed, 1)
        };
        let filed = Event { body: Some(odd.to_owned()), ..event(odd, odd) };
        let parsed = Intake { messages: vec![sent], statuses: vec![failed], events: vec![filed], ..Intake::default() };
        let receipt = store.append(parsed).await.unwrap();
        assert_eq!([receipt.outcomes(), receipt.statuses(), receipt.events()], [[Outcome::Created]; 3]);
        let Lookup::Found(found) = store.message(odd.to_owned()).await.unwrap() else { panic!("it is there") };
        let fields = found.details.unwrap();
        assert_eq!((fields["profile_name"].as_str(), fields["provider_kind"].as_str()), (Some(odd), Some(odd)));
        assert_eq!((fields["provider_id"].as_str(), found.message.text.as_deref()), (Some(odd), Some(odd)));
        let Lookup::Found(found) = store.statuses(odd.to_owned()).await.unwrap() else { panic!("it is there") };
        assert_eq!(found.records[0].recipient, Address::tagged("id", odd).as_str());
        assert_eq!(found.records[0].error.as_deref(), Some(odd));
        let listed = store.events(events_of(odd)).await.unwrap();
        assert_eq!((listed[0].kind.as_str(), listed[0].body.as_deref()), (odd, Some(odd)));
    });
}

fn a_body_that_brings_nothing_new_is_not_kept_twice(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let parsed = |bytes| Intake {
            messages: vec![with_details("k:a", "a", Kind::Text)],
            statuses: vec![status("k:s", "r", State::Sent, 1)],
            events: vec![event("e", "odd")],
            payload: payload(bytes),
        };
        for bytes in [b"1", b"1", b"2"] {
            store.append(parsed(bytes)).await.unwrap();
        }
        let kept = store.unreadable_payloads(0, true, 9).await.unwrap();
        assert_eq!(kept.iter().map(|payload| payload.bytes.as_slice()).collect::<Vec<_>>(), [b"1"]);
        let again = Intake { statuses: vec![status("k:s", "r", State::Read, 2)], ..parsed(b"3") };
        assert_eq!(store.append(again).await.unwrap().statuses(), [Outcome::Created]);
        let kept = store.unreadable_payloads(kept[0].number, true, 9).await.unwrap();
        assert_eq!(
            kept.iter().map(|payload| payload.bytes.as_slice()).collect::<Vec<_>>(),
            [b"3"],
            "a new status is news"
        );
    });
}

fn copies_in_flight_at_once_are_each_stored_once(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let copies = (0..10).map(|at| {
            let states = [State::Sent, State::Delivered, State::Read];
            let statuses = vec![status("k:s", "r", states[at % 3], 1), status("k:s", &at.to_string(), State::Sent, 1)];
            let messages =
                vec![with_details("k:a", "a", Kind::Text), with_details(&format!("k:{at}"), "b", Kind::Text)];
            let events = vec![event("e", "odd"), event(&format!("e{at}"), "odd")];
            store.append(Intake { messages, statuses, events, payload: payload(b"body") })
        });
        let receipts: Vec<_> = futures_join(copies).await.into_iter().map(Result::unwrap).collect();
        let created = |outcomes: fn(&crate::Receipt) -> &[Outcome]| {
            receipts.iter().flat_map(outcomes).filter(|outcome| **outcome == Outcome::Created).count()
        };
        assert_eq!(created(|receipt| receipt.outcomes()), 11);
        assert_eq!(created(|receipt| receipt.statuses()), 13);
        assert_eq!(created(|receipt| receipt.events()), 11);
        assert_eq!(store.unreadable_payloads(0, true, 9).await.unwrap().len(), 1, "one body");
        let counts = store.status_counts().await.unwrap();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 11, "{counts:?}");
        assert!(counts.contains(&(State::Read, 1)) && counts.contains(&(State::Sent, 10)), "{counts:?}");
    });
}

fn long_names_are_kept(engine: Engine) {
    with_store(engine, async |store: &Store| {
        // Uniformly random characters, so that compression has no effect.
        let mut seed = 1_u32;
        let mut letter = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'!' + (seed >> 24) as u8 % 90)
        };
        let long: String = (0..20_000).map(|_| letter()).collect();
        let key: String = (0..1024).map(|_| letter()).collect();
        let sent = StatusUpdate { provider_id: long.clone(), ..status(&key, &long, State::Sent, 1) };
        let parsed = Intake {
            messages: vec![with_details(&key, &long, Kind::Text)],
            statuses: vec![sent],
            events: vec![event(&key, "odd")],
            ..Intake::default()
        };
        assert_eq!(store.append(parsed.clone()).await.unwrap().statuses(), [Outcome::Created]);
        assert_eq!(store.append(parsed).await.unwrap().statuses(), [Outcome::Duplicate]);
        let found = store.message(long.clone()).await.unwrap();
        assert!(matches!(found, Lookup::Found(found) if found.message.id == key));
        let found = store.statuses(long).await.unwrap();
        assert!(matches!(found, Lookup::Found(found) if found.message == key && found.records.len() == 1));
    });
}

fn what_is_said_beside_a_state_is_kept_with_its_raw_body(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let extra = Map::from_iter([("pricing".to_owned(), json!({"billable": true, "odd": "a\0b\u{ffff}"}))]);
        let mut sent = status("k:s", "r", State::Sent, 1);
        sent.extra = extra.clone();
        let first = Intake { statuses: vec![sent.clone()], payload: payload(b"1"), ..Intake::default() };
        store.append(first).await.unwrap();
        let read = Intake {
            statuses: vec![sent, status("k:s", "r", State::Read, 2)],
            payload: payload(b"2"),
            ..Intake::default()
        };
        assert_eq!(store.append(read).await.unwrap().statuses(), [Outcome::Duplicate, Outcome::Created]);
        let Lookup::Found(found) = store.statuses("k:s".to_owned()).await.unwrap() else { panic!("it is there") };
        assert_eq!(found.records.iter().map(|record| &record.extra).collect::<Vec<_>>(), [&extra, &Map::new()]);
        for (record, bytes) in found.records.iter().zip([b"1", b"2"]) {
            let stored = store.payload(record.payload.unwrap()).await.unwrap().unwrap();
            assert_eq!(stored.bytes, bytes);
        }
    });
}

fn an_event_is_found_by_its_number_with_the_message_that_it_is_about(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let own = with_details("k:own", "own", Kind::Image);
        let echo = Event { message: Some(Box::new(own.clone())), ..event("k:own#echo", "echo") };
        let parsed = Intake { events: vec![echo, event("e", "odd")], payload: payload(b"both"), ..Intake::default() };
        assert_eq!(store.append(parsed.clone()).await.unwrap().events(), [Outcome::Created; 2]);
        assert_eq!(store.append(parsed).await.unwrap().events(), [Outcome::Duplicate; 2]);
        let listed = store.events(events_of("echo")).await.unwrap();
        let shown: Value = serde_json::from_str(listed[0].message.as_ref().unwrap()).unwrap();
        assert_eq!(shown, Value::Object(own.to_fields()));
        assert_eq!(
            (shown["message_id"].as_str(), shown["from"].as_str(), shown["details"]["kind"].as_str()),
            (Some("k:own"), Some("+1"), Some("image"))
        );
        assert_eq!(store.event(listed[0].number).await.unwrap().as_ref(), Some(&listed[0]));
        let odd = store.events(events_of("odd")).await.unwrap();
        assert_eq!(store.event(odd[0].number).await.unwrap().unwrap().message, None);
        assert_eq!(store.event(i64::MAX).await.unwrap(), None);
        assert_eq!(store.message("k:own".to_owned()).await.unwrap(), Lookup::Absent, "it is no message of the inbox");
        assert_eq!(store.page(all(1)).await.unwrap().total, 0);
    });
}

fn a_message_under_a_former_key_is_not_stored_again(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let old = with_details("telegram:7:1", "1", Kind::Text);
        assert_eq!(file(store, vec![old.clone()]).await, [Outcome::Created]);
        let now = |id: &str, text: &str| {
            let mut message = with_details(id, "1", Kind::Text);
            message.text = Some(text.to_owned());
            message.former_id = Some(Box::new(old.id.clone()));
            message
        };
        // The same message again, another one with that id, and one whose former key does not exist.
        let mut fresh = now("telegram:7:c:2", "x");
        fresh.former_id = Some(Box::new(MessageId::parse("telegram:7:2").unwrap()));
        let copies = vec![now("telegram:7:a:1", "x"), now("telegram:7:b:1", "y"), fresh.clone()];
        assert_eq!(file(store, copies.clone()).await, [Outcome::Duplicate, Outcome::Created, Outcome::Created]);
        assert_eq!(file(store, copies).await, [Outcome::Duplicate; 3]);
        assert_eq!(store.message("telegram:7:a:1".to_owned()).await.unwrap(), Lookup::Absent);
        let mut later = now("telegram:7:a:1", "x");
        later.ts = Timestamp::parse("2025-01-15T12:00:09Z").unwrap();
        assert_eq!(file(store, vec![later]).await, [Outcome::Created], "at another time it is another message");
        let mut by_another = now("telegram:7:d:1", "x");
        by_another.from = Address::tagged("telegram", "2");
        assert_eq!(file(store, vec![by_another]).await, [Outcome::Created]);
        assert_eq!(store.page(all(1)).await.unwrap().total, 5);
    });
}

fn an_earlier_form_of_an_address_is_no_other_content(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let forms = [
            (Address::phone("+68849").unwrap(), Address::read("68849")),
            (Address::tagged("id", " +49170123456 "), Address::read(" +49170123456 ")),
            (Address::phone("+0049170123456").unwrap(), Address::read("0049170123456")),
            (Address::tagged("id", "MyBank"), Address::read("MyBank")),
            (Address::phone("+1234567890").unwrap(), Address::tagged("messenger", "1234567890")),
        ];
        for (number, (old, new)) in forms.into_iter().enumerate() {
            let with = |from: &Address, to: &Address| NewMessage {
                from: from.clone(),
                to: to.clone(),
                ..with_details(&format!("k:{number}"), "x", Kind::Text)
            };
            assert_eq!(file(store, vec![with(&old, &old)]).await, [Outcome::Created]);
            assert_eq!(file(store, vec![with(&new, &new)]).await, [Outcome::Duplicate], "{old:?} {new:?}");
            let other = Address::phone("+4917012345678").unwrap();
            assert_eq!(file(store, vec![with(&other, &new)]).await, [Outcome::Conflict]);
            assert_eq!(file(store, vec![with(&new, &other)]).await, [Outcome::Conflict]);
        }
        // The rule of the original source is the one of the contract.
        let original = |from: &str| message("plain", from, NOON, None);
        assert_eq!(file(store, vec![original("+49170123456")]).await, [Outcome::Created]);
        assert_eq!(file(store, vec![original("+0049170123456")]).await, [Outcome::Conflict]);
    });
}

fn a_message_whose_statuses_began_with_another_form_is_counted_once(engine: Engine) {
    with_store(engine, async |store: &Store| {
        let to = |recipient: Address, state| StatusUpdate { recipient: Some(recipient), ..status("k:s", "", state, 1) };
        let of = |statuses| Intake { statuses, ..Intake::default() };
        let (old, new) = (Address::phone("+68849").unwrap(), Address::read("68849"));
        store.append(of(vec![to(old.clone(), State::Sent)])).await.unwrap();
        let again = of(vec![to(new.clone(), State::Sent), to(new.clone(), State::Read)]);
        assert_eq!(store.append(again).await.unwrap().statuses(), [Outcome::Duplicate, Outcome::Created]);
        let counts = store.status_counts().await.unwrap();
        assert!(counts.contains(&(State::Sent, 0)) && counts.contains(&(State::Read, 1)), "{counts:?}");
        let Lookup::Found(found) = store.statuses("k:s".to_owned()).await.unwrap() else { panic!("it is there") };
        assert!(found.records.iter().all(|record| record.recipient == old.as_str()), "{found:?}");
    });
}
