//! The id of a request, in its response and in its line of the log.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use domain::Moment;

/// The header of the id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a client's request id that we use.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The client's id if it is valid (it goes into our log), else a new id.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
    };
    headers.get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(fresh_request_id)
}

/// A UUID of version 7 (RFC 9562, §5.7): sorted by time, and random by a keyed hash of a counter. It needs no
/// system call, so it cannot fail.
pub fn fresh_request_id() -> HeaderValue {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&KEYS.hash_one(count).to_ne_bytes());
    random[8..].copy_from_slice(&count.to_ne_bytes()[..2]);
    let id = uuid::Builder::from_unix_timestamp_millis(Moment::now().unix_millis(), &random).into_uuid();
    let mut buffer = Uuid::encode_buffer();
    HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut buffer)).expect("hexadecimal and hyphens")
}
