//! Random requests, valid and invalid, the same ones in each run.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

/// Any JSON value of small depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), vec(("[a-z]{0,3}", inner), 0..4).prop_map(object)]
    })
}

fn object(fields: Vec<(String, Value)>) -> Value {
    fields.into_iter().collect::<serde_json::Map<_, _>>().into()
}

/// A body: mostly an object, most of whose fields are valid.
pub fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let field = |good: BoxedStrategy<String>, odd: BoxedStrategy<String>| {
        prop_oneof![
            12 => good.prop_map(|text| Some(json!(text))),
            2 => odd.prop_map(|text| Some(json!(text))),
            1 => any_json().prop_map(Some),
            1 => Just(None),
        ]
    };
    let phone = || field("\\+[0-9]{1,20}".boxed(), "[+ 0-9a-z१\n]{0,5}|\\+[0-9]{60,70}".boxed());
    let id = field(
        "[a-z]{1,2}|\\PC{1,9}".boxed(),
        prop_oneof![Just(String::new()), Just("é".repeat(520)), Just("\0".into())].boxed(),
    );
    let real = "20[0-2][0-9]-0[1-9]-[01][1-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z";
    let ts = field(real.boxed(), "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z?|\\PC{0,9}".boxed());
    let text = field(any::<String>().boxed(), Just("😀".repeat(4_097)).boxed());
    let extra = prop::option::weighted(0.2, ("[a-zA-Z_]{1,5}", any_json()));
    let message = (id, phone(), phone(), ts, text, extra).prop_map(|(id, from, to, ts, text, extra)| {
        let named = [("message_id", id), ("from", from), ("to", to), ("ts", ts), ("text", text)];
        let fields = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        object(fields.chain(extra).collect()).to_string().into_bytes()
    });
    prop_oneof![8 => message, 1 => any_json().prop_map(|value| value.to_string().into_bytes()), 1 => vec(any::<u8>(), 0..60)]
}

/// A query string, escaped or not.
pub fn any_query() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        3 => "[0-9]{1,3}",
        1 => "-?[0-9]{1,30}",
        2 => "2025-01-15T1[0-9]:00:00Z",
        2 => "(\\+|%2B)[0-9]{1,12}",
        3 => "([a-zA-Z0-9_.~!*'()+$,;:@/?-]|%[0-9a-fA-F]{2}|%){0,12}",
        1 => Just("%C3%A9".repeat(600)),
    ];
    let pair = ("limit|offset|from|since|q|Limit|total|", value).prop_map(|(name, value)| format!("{name}={value}"));
    vec(pair, 0..4).prop_map(|pairs| pairs.join("&"))
}

/// A deterministic runner: the same requests every time.
pub fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}
