//! The validation of a message: the rules of each field, and the exact refusals.

use serde_json::{Value, json};

use super::{STORED, said, with};
use crate::harness::{Reply, Server, body, message};

/// Type, location and text of every error of a 422 response.
fn errors(reply: &Reply) -> Vec<(String, String, String)> {
    assert_eq!(reply.status, 422, "{}", reply.text());
    let reply = reply.json();
    let list = reply["detail"].as_array().expect("a list of errors").iter();
    let word = |value: &Value| value.as_str().expect("a string").to_owned();
    list.map(|error| (word(&error["type"]), error["loc"].to_string(), word(&error["msg"]))).collect()
}

/// The type of the only error of a 422 response, if it is at `place`.
fn only_error(reply: &Reply, place: &str) -> String {
    let errors = errors(reply);
    assert_eq!((errors.len(), errors[0].1.as_str()), (1, place), "{}", reply.text());
    errors[0].0.clone()
}

#[test]
fn every_golden_refusal_is_answered_to_the_byte_and_stores_nothing() {
    let server = Server::start();
    let mut client = server.client();
    let error = |fields: &str| format!(r#"{{"detail":[{{{fields}}}]}}"#);
    let missing = |field: &str, input: &str| {
        format!(r#""type":"missing","loc":["body","{field}"],"msg":"Field required","input":{input}"#)
    };
    let rule = |field: &str, words: &str, input: &str| {
        let loc = format!(r#""loc":["body","{field}"]"#);
        error(&format!(
            r#""type":"value_error",{loc},"msg":"Value error, {words}","input":"{input}","ctx":{{"error":{{}}}}"#
        ))
    };
    let string_type = |field: &str, input: &str| {
        let msg = "Input should be a valid string";
        error(&format!(r#""type":"string_type","loc":["body","{field}"],"msg":"{msg}","input":{input}"#))
    };
    let no_from = r#"{"message_id":"m1","to":"+14155550100","ts":"2025-01-15T10:00:00Z","text":"Hello"}"#;
    let nothing = ["message_id", "from", "to", "ts"].map(|field| format!("{{{}}}", missing(field, "{}"))).join(",");
    let long = "é".repeat(4097);
    let too_long = r#""msg":"String should have at most 4096 characters""#;
    let too_short = r#""msg":"String should have at least 1 character","input":"","ctx":{"min_length":1}"#;
    let phone = "must be E.164 format: + followed by digits";
    let suffix = "timestamp must be ISO-8601 UTC with Z suffix";
    let form = "timestamp must be ISO-8601 format: YYYY-MM-DDTHH:MM:SSZ";
    let golden = [
        ("{}".to_owned(), format!(r#"{{"detail":[{nothing}]}}"#)),
        (no_from.to_owned(), error(&missing("from", no_from))),
        (with("message_id", json!(7)).to_string(), string_type("message_id", "7")),
        (with("message_id", json!(null)).to_string(), string_type("message_id", "null")),
        (
            with("message_id", json!("")).to_string(),
            error(&format!(r#""type":"string_too_short","loc":["body","message_id"],{too_short}"#)),
        ),
        (with("from", json!("invalid")).to_string(), rule("from", phone, "invalid")),
        (with("to", json!("1")).to_string(), rule("to", phone, "1")),
        (with("ts", json!("2025-01-15T10:00:00")).to_string(), rule("ts", suffix, "2025-01-15T10:00:00")),
        (with("ts", json!("2025-1-5T1:0:0Z")).to_string(), rule("ts", form, "2025-1-5T1:0:0Z")),
        (
            with("text", json!(long)).to_string(),
            error(&format!(
                r#""type":"string_too_long","loc":["body","text"],{too_long},"input":"{long}","ctx":{{"max_length":4096}}"#
            )),
        ),
        (with("text", json!(5)).to_string(), string_type("text", "5")),
        (String::new(), error(r#""type":"missing","loc":["body"],"msg":"Field required","input":null"#)),
    ];
    for (sent, expected) in golden {
        assert_eq!(said(&client.post(sent.as_bytes())), (422, expected.as_str()), "{sent}");
    }
    assert_eq!(server.rows(), 0);
}

#[test]
fn all_errors_of_a_body_are_told_at_once_in_field_order() {
    let server = Server::start();
    let reply = server.post(br#"{"text":5,"ts":"x","to":null,"From":"+1","from_":"+1"}"#);
    let expected = [
        ("missing", r#"["body","message_id"]"#, "Field required"),
        ("missing", r#"["body","from"]"#, "Field required"),
        ("string_type", r#"["body","to"]"#, "Input should be a valid string"),
        ("value_error", r#"["body","ts"]"#, "Value error, timestamp must be ISO-8601 UTC with Z suffix"),
        ("string_type", r#"["body","text"]"#, "Input should be a valid string"),
    ];
    let told = errors(&reply);
    let told: Vec<_> = told.iter().map(|(kind, loc, msg)| (kind.as_str(), loc.as_str(), msg.as_str())).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_signed_body_that_is_no_object_is_422_whatever_it_is() {
    let server = Server::start();
    let mut client = server.client();
    for other in ["[]", r#""x""#, "1", "-1.5e3", "true", "null", " [1, {}] "] {
        assert_eq!(only_error(&client.post(other.as_bytes()), r#"["body"]"#), "model_attributes_type", "{other}");
    }
    let good = message("m1").to_string();
    let lone = good.replace("Hello", r"\ud83d");
    let ignored = good.replace("\"text\"", r#""other":"\udc00","text""#);
    let key = good.replace("\"text\"", r#""\ud800":1,"text""#);
    let latin = [&b"{\"text\":\""[..], b"\xe9\"}"].concat();
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let objects = r#"{"a":"#.repeat(100_000);
    let broken: [&[u8]; 14] = [
        b"{nope",
        b"{",
        b" ",
        b"{} x",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"\xef\xbb\xbf{}",
        b"\x00",
        b"\xff\xfe",
        lone.as_bytes(),
        ignored.as_bytes(),
        key.as_bytes(),
        &latin,
        objects.as_bytes(),
    ];
    for body in broken {
        assert_eq!(
            only_error(&client.post(body), r#"["body"]"#),
            "json_invalid",
            "{:?}",
            String::from_utf8_lossy(body)
        );
    }
    let reply = client.post(&nested);
    assert_eq!(only_error(&reply, r#"["body"]"#), "json_invalid");
    assert!(reply.text().contains("recursion limit exceeded"), "{}", reply.text());
    assert_eq!(server.rows(), 0);
    assert_eq!(server.get("/health/ready").status, 200, "none of this hurt");
}

#[test]
fn nesting_in_an_ignored_field_is_taken_to_a_depth_of_100() {
    let server = Server::start();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let inside =
        |levels| message("m1").to_string().replace("\"text\"", &format!("\"other\":{},\"text\"", nested(levels)));
    assert_eq!(said(&server.post(inside(100).as_bytes())), STORED);
    assert_eq!(only_error(&server.post(inside(100_000).as_bytes()), r#"["body"]"#), "json_invalid");
}

#[test]
fn addresses_are_a_plus_and_ascii_digits_and_nothing_else() {
    let server = Server::start();
    let mut client = server.client();
    let bad =
        ["", "+", "1", "++1", "+12 3", "+123\n", "\n+123", " +1", "+1 ", "+1-2", "+१२३", "＋123", "+1\u{0}", "+٣"];
    let long = format!("+{}", "9".repeat(64));
    for field in ["from", "to"] {
        let place = format!(r#"["body","{field}"]"#);
        for address in bad {
            assert_eq!(
                only_error(&client.post(&body(&with(field, json!(address)))), &place),
                "value_error",
                "{address:?}"
            );
        }
        assert_eq!(only_error(&client.post(&body(&with(field, json!(long)))), &place), "string_too_long");
        for good in ["+1", "+0", "+919876543210", &long[..64]] {
            let mut message = message(&format!("{field}{}{good}", good.len()));
            message[field] = json!(good);
            assert_eq!(said(&client.post(&body(&message))), STORED, "{good}");
        }
    }
}

#[test]
fn timestamps_have_one_form_and_exist() {
    let server = Server::start();
    let mut client = server.client();
    let bad = [
        "",
        "Z",
        "2025-01-15",
        "2025-01-15T10:00:00z",
        "2025-01-15t10:00:00Z",
        "2025-01-15 10:00:00Z",
        "2025-01-15T10:00Z",
        "20250115T100000Z",
        "2025-01-15T10:00:00.5Z",
        "2025-01-15T10:00:00+00:00",
        "2025-01-15T10:00:00Z\n",
        " 2025-01-15T10:00:00Z",
        "2025-02-30T10:00:00Z",
        "2023-02-29T10:00:00Z",
        "1900-02-29T10:00:00Z",
        "2025-13-01T10:00:00Z",
        "2025-00-01T10:00:00Z",
        "2025-01-00T10:00:00Z",
        "2025-01-15T24:00:00Z",
        "2025-01-15T99:99:99Z",
        "2025-01-15T10:60:00Z",
        "2016-12-31T23:59:60Z",
        "２025-01-15T10:00:00Z",
        "२०२५-01-15T10:00:00Z",
        "+2025-01-15T10:00:00Z",
        "12025-01-15T10:00:00Z",
    ];
    for ts in bad {
        assert_eq!(
            only_error(&client.post(&body(&with("ts", json!(ts)))), r#"["body","ts"]"#),
            "value_error",
            "{ts:?}"
        );
    }
    for ts in ["2024-02-29T23:59:59Z", "2000-02-29T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        let mut message = message(ts);
        message["ts"] = json!(ts);
        assert_eq!(said(&client.post(&body(&message))), STORED, "{ts}");
    }
}

#[test]
fn ids_are_bytes_of_which_1024_fit_and_texts_are_characters_of_which_4096_fit() {
    let server = Server::start();
    let mut client = server.client();
    for id in ["m", &"i".repeat(1024), &"é".repeat(512), &"😀".repeat(256), " ", "\n", "a\"b\\c", "é", "e\u{301}", "M"]
    {
        assert_eq!(said(&client.post(&body(&message(id)))), STORED, "{id:?}");
    }
    assert_eq!(
        server.rows(),
        10,
        "ids are compared bytewise: neither case nor accents nor blanks make two of them one"
    );
    for (id, kind) in
        [("i".repeat(1025), "string_too_long"), ("é".repeat(513), "string_too_long"), ("a\0b".into(), "value_error")]
    {
        assert_eq!(only_error(&client.post(&body(&message(&id))), r#"["body","message_id"]"#), kind);
    }
    let escaped = with("text", json!("x".repeat(4096))).to_string().replace('x', r"\u0041");
    let texts =
        [body(&with("text", json!("😀".repeat(4096)))), body(&with("text", json!("好".repeat(4096)))), escaped.into()];
    for sent in texts {
        assert_eq!(said(&client.post(&sent)), STORED);
    }
    assert_eq!(
        only_error(&client.post(&body(&with("text", json!("😀".repeat(4097))))), r#"["body","text"]"#),
        "string_too_long"
    );
}

#[test]
fn texts_come_back_exactly_as_they_were_sent() {
    let server = Server::start();
    let mut client = server.client();
    let texts = [
        json!(""),
        json!("a\0b"),
        json!("\0"),
        json!(" two \r\n lines\t"),
        json!("😀 é e\u{301} \u{202e}rtl\u{2028}\u{feff}"),
        json!("'; DROP TABLE messages; --"),
        json!("\u{1}\u{7f}\"\\/"),
        json!(null),
    ];
    for (at, text) in texts.iter().enumerate() {
        let mut message = message(&format!("{at}"));
        message["text"] = text.clone();
        assert_eq!(said(&client.post(&body(&message))), STORED);
    }
    let mut absent = message("absent");
    absent.as_object_mut().unwrap().remove("text");
    assert_eq!(said(&client.post(&body(&absent))), STORED);
    let listed = server.get("/messages").json();
    let listed: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|message| &message["text"]).collect();
    assert_eq!(listed, texts.iter().chain([&Value::Null]).collect::<Vec<_>>());
    let nulls = server.stored().number("SELECT count(*) FROM messages WHERE text IS NULL");
    assert_eq!(nulls, 2, "null and absent are NULL, an empty text is not");
}

#[test]
fn unknown_fields_are_ignored_and_of_doubled_keys_the_last_counts() {
    let server = Server::start();
    let extra = message("extra")
        .to_string()
        .replace("\"text\"", r#""From":1,"from_":[],"__proto__":{"a":[1,2.5,null]},"text""#);
    assert_eq!(said(&server.post(extra.as_bytes())), STORED);
    let doubled = message("m1").to_string().replace("\"text\"", r#""message_id":"m2","text":7,"te\u0078t""#);
    assert_eq!(said(&server.post(doubled.as_bytes())), STORED);
    let bad_last = message("m3").to_string().replace("\"text\"", r#""message_id":3,"text""#);
    assert_eq!(only_error(&server.post(bad_last.as_bytes()), r#"["body","message_id"]"#), "string_type");
    let listed = server.get("/messages").json();
    assert_eq!(listed["data"][1]["message_id"], "m2");
    assert_eq!((&listed["total"], &listed["data"][1]["text"]), (&json!(2), &json!("Hello")));
}

#[test]
fn a_byte_order_mark_is_named() {
    let server = Server::start();
    let text = message("m1").to_string();
    let wide = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain(text.encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
    };
    let cases = [
        ([b"\xef\xbb\xbf", text.as_bytes()].concat(), "UTF-8 without"),
        (wide([0xff, 0xfe], u16::to_le_bytes), "UTF-16"),
        (wide([0xfe, 0xff], u16::to_be_bytes), "UTF-16"),
        (b"\xef\xbb\xbf".to_vec(), "UTF-8 without"),
    ];
    for (bytes, hint) in cases {
        let reply = server.post(&bytes);
        assert_eq!(only_error(&reply, r#"["body"]"#), "json_invalid");
        let told = reply.json()["detail"][0].clone();
        let (words, why) = (told["msg"].as_str().unwrap(), told["ctx"]["error"].as_str().unwrap());
        assert_eq!(words, format!("Invalid JSON: {why}"));
        assert!(why.contains("byte order mark") && why.contains(hint), "{why}");
    }
    let inside = message("m2").to_string().replace("Hello", "\u{feff}Hello");
    assert_eq!(said(&server.post(inside.as_bytes())), STORED, "within a text it is a character");
}
