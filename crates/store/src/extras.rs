//! The content of a request except its messages, for any engine: statuses, events, and the packed body.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use sha2::{Digest, Sha256};

use domain::payload::{PayloadRow, StoredPayload};
use domain::{Event, Intake, Moment, NewMessage, Payload, StatusUpdate};

/// A body up to this size is compressed inline; a larger one on another thread, to delay no request.
const PACKED_AT_ONCE_BYTES: usize = 32 << 10;

/// All content except messages. Absent for requests with messages only, such as all of the original source.
#[derive(Debug, Clone)]
pub struct Extras {
    /// Delivery states of sent messages.
    pub statuses: Vec<StatusUpdate>,
    /// Everything else.
    pub events: Vec<Event>,
    /// The raw body.
    pub payload: Option<PackedPayload>,
    /// When the request was accepted.
    pub accepted_at: Moment,
}

/// A raw body in its stored form.
#[derive(Debug, Clone)]
pub struct PackedPayload {
    /// Identifies deliveries: equal digests are stored once.
    pub digest: [u8; 32],
    /// The source.
    pub source: String,
    /// The protocol.
    pub provider: &'static str,
    /// The headers that parsing depends on, as a JSON object.
    pub headers: String,
    /// The encoding: `deflate`, or `identity` if compression does not make it smaller.
    pub encoding: &'static str,
    /// Its uncompressed length.
    pub bytes: usize,
    /// The compressed bytes.
    pub body: Bytes,
}

/// Splits a request: its messages, and the rest if there is any.
pub async fn split(intake: Intake) -> (Vec<NewMessage>, Option<Box<Extras>>) {
    let Intake { messages, statuses, events, payload } = intake;
    let has_details = messages.iter().any(|message| message.details.is_some());
    if statuses.is_empty() && events.is_empty() && payload.is_none() && !has_details {
        return (messages, None);
    }
    let payload = match payload {
        None => None,
        Some(payload) if payload.bytes.len() <= PACKED_AT_ONCE_BYTES => Some(pack(payload)),
        // The thread can only fail by a panic; then the body and the whole request are lost, and the response is a
        // 500.
        Some(payload) => Some(tokio::task::spawn_blocking(|| pack(payload)).await.expect("compression does not panic")),
    };
    let moments = messages.iter().map(|message| message.accepted_at);
    let moments = moments.chain(events.iter().map(|event| event.accepted_at));
    let accepted_at = moments.min().unwrap_or_else(Moment::now);
    (messages, Some(Box::new(Extras { statuses, events, payload, accepted_at })))
}

fn pack(payload: Payload) -> PackedPayload {
    let Payload { source, provider, bytes, headers, .. } = payload;
    let headers: serde_json::Map<_, _> = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    let headers = serde_json::Value::Object(headers).to_string();
    let digest = digest(&source, provider, &headers, &bytes);
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish()).expect("writing to a Vec cannot fail");
    let length = bytes.len();
    let (encoding, body) = if packed.len() < length { ("deflate", packed.into()) } else { ("identity", bytes) };
    PackedPayload { digest, source, provider, headers, encoding, bytes: length, body }
}

/// The digest that identifies deliveries and detects damage.
fn digest(source: &str, provider: &str, headers: &str, bytes: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [source, provider, headers] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(bytes);
    digest.finalize().into()
}

/// A stored body, as either engine has it.
pub struct PackedRow {
    pub number: i64,
    pub source: String,
    pub provider: String,
    pub headers: String,
    pub encoding: String,
    pub bytes: i64,
    pub body: Vec<u8>,
    pub received_at: String,
    pub digest: Vec<u8>,
}

impl PackedRow {
    /// The columns, in this order.
    pub const COLUMNS: &str = "payload_id, source, provider, headers, encoding, bytes, body, received_at, digest";

    /// The original body, or the problem if the row is damaged.
    pub fn open(self) -> Result<StoredPayload, String> {
        let Self { number, source, provider, headers, encoding, bytes, body, received_at, digest: stored } = self;
        let bytes = usize::try_from(bytes).ok().and_then(|bytes| unpack(&encoding, body, bytes));
        let bytes = bytes.filter(|bytes| digest(&source, &provider, &headers, bytes).as_slice() == stored);
        let bytes = bytes.ok_or_else(|| format!("raw body {number} differs from what was stored"))?;
        let headers = read_headers(&headers);
        Ok(StoredPayload::read_from_store(PayloadRow { number, source, provider, bytes, headers, received_at }))
    }
}

/// The original bytes. None if they are not an output of `pack`.
fn unpack(encoding: &str, body: Vec<u8>, bytes: usize) -> Option<Vec<u8>> {
    let unpacked = match encoding {
        "identity" => body,
        "deflate" => {
            let mut unpacked = Vec::with_capacity(bytes);
            // Reads one byte more than expected: so a longer body is detected, and it never fills the memory.
            DeflateDecoder::new(body.as_slice()).take(bytes as u64 + 1).read_to_end(&mut unpacked).ok()?;
            unpacked
        }
        _ => return None,
    };
    (unpacked.len() == bytes).then_some(unpacked)
}

/// The headers of a stored payload.
fn read_headers(text: &str) -> Vec<(String, String)> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bytes: &[u8], header: &str) -> Payload {
        Payload {
            source: "source".to_owned(),
            provider: "generic",
            bytes: Bytes::copy_from_slice(bytes),
            headers: vec![("x-id".to_owned(), header.to_owned())],
            redacted: false,
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_and_told_apart() {
        let long = b"abc".repeat(100_000);
        for bytes in [&b""[..], b"x", &long] {
            let packed = pack(payload(bytes, "1"));
            assert_eq!(unpack(packed.encoding, packed.body.to_vec(), packed.bytes).as_deref(), Some(bytes));
            assert_eq!(read_headers(&packed.headers), [("x-id".to_owned(), "1".to_owned())]);
            assert_ne!(packed.digest, pack(payload(bytes, "2")).digest, "another delivery of the same bytes");
        }
        let packed = pack(payload(&long, "1"));
        assert!(packed.body.len() < 10_000);
        assert_eq!(unpack("deflate", packed.body.to_vec(), 10), None, "longer than it should be");
        assert_eq!(unpack("zip", vec![1], 1), None);
    }
}
