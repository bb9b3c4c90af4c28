//! The parts of a request, one at a time: `cargo bench --bench micro`, or `make bench-micro`. BENCHMARKS.md has
//! figures.
//!
//! Only public functions of the library are measured here; `postroom bench` measures a whole message.

use bytes::Bytes;
use divan::{Bencher, black_box};
use domain::{Message, Moment, Needle, Secret, Timestamp, fold};
use hyper::HeaderMap;
use providers::original::SIGNATURE_HEADER;
use providers::{Key, Request, SCHEMES, Source};
use server::http::head::RequestScan;
use server::http::views::{PageView, json};

/// 250 bytes, the size of most messages.
const BODY: &str = r#"{"message_id":"wamid.3f9c1b7e5a2d48806c1e9f0a7b3d5e21","from":"+919876543210","to":"+14155550100","ts":"2026-11-01T10:00:00Z","text":"Good morning, is my order still on its way? The number is 48213077 and I will be at home from nine until noon."}"#;

fn main() {
    divan::main();
}

/// The original source, and a signed body for it.
fn signed() -> (Source, HeaderMap, Bytes) {
    let key = Key::new("benchmark", Secret::new("benchmark").expect("not empty"));
    let signature = key.signing().sign(BODY.as_bytes()).parse().expect("hexadecimal");
    let headers = HeaderMap::from_iter([(SIGNATURE_HEADER.parse().expect("a header name"), signature)]);
    (Source::new(SCHEMES[0].kind, &SCHEMES[0], vec![key]), headers, Bytes::from(BODY))
}

fn request<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Request<'a> {
    Request { headers, body, base_url: None, target: "/webhook" }
}

#[divan::bench]
fn verify(bencher: Bencher) {
    let (source, headers, body) = signed();
    let now = Moment::from_microseconds(0);
    bencher.bench(|| source.verify(&request(black_box(&headers), &body), body.clone(), now));
}

#[divan::bench]
fn parse(bencher: Bencher) {
    let (source, headers, body) = signed();
    let now = Moment::from_microseconds(0);
    let body = source.verify(&request(&headers, &body), body.clone(), now).expect("it is signed");
    bencher.bench(|| source.parse(black_box(&body), now));
}

#[divan::bench]
fn timestamp() -> bool {
    Timestamp::parse(black_box("2026-11-01T10:00:00Z")).is_ok()
}

/// Scans the head and body of a request for errors that hyper would accept.
#[divan::bench]
fn request_scan(bencher: Bencher) {
    let length = BODY.len();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: inbox.example\r\ncontent-type: application/json\r\nx-signature: {length:064}\r\n\
         content-length: {length}\r\n\r\n"
    );
    let request = [head.as_bytes(), BODY.as_bytes()].concat();
    let mut scan = RequestScan::default();
    bencher.bench_local(|| {
        scan.feed(black_box(&request));
        scan.next_fault()
    });
}

#[divan::bench(args = ["Good morning, is my order still on its way?", "Здравствуйте, когда приедет мой заказ?", "请问我的订单什么时候可以收到，谢谢"])]
fn fold_text(bencher: Bencher, text: &str) {
    let mut folded = String::new();
    bencher.bench_local(|| {
        folded.clear();
        fold::fold_into(black_box(text), &mut folded);
        folded.len()
    });
}

/// Checks a candidate of a search that does not match.
#[divan::bench]
fn check_candidate(bencher: Bencher) {
    let (needle, mut scratch) = (Needle::new("Refund"), String::new());
    bencher.bench_local(|| needle.is_in(black_box(BODY), &mut scratch));
}

#[divan::bench(args = [1, 50, 100])]
fn encode_page(bencher: Bencher, messages: usize) {
    let message = |number: usize| Message {
        id: format!("wamid.3f9c1b7e5a2d48806c1e9f0a{number:08x}"),
        from: "+919876543210".to_owned(),
        to: "+14155550100".to_owned(),
        ts: "2026-11-01T10:00:00Z".to_owned(),
        text: Some("Good morning, is my order still on its way? I will be at home from nine until noon.".to_owned()),
    };
    let messages: Vec<Message> = (0..messages).map(message).collect();
    // A page is written once, so each round needs its own page.
    let page = || PageView::new(messages.clone(), 10_000_000, 100, 0);
    bencher.with_inputs(page).bench_values(|page| json(black_box(&page)));
}
