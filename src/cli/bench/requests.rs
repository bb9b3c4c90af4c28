//! Requests, written and signed in advance, so that while the clock runs the client only has to send them.

use std::io::Write;

use serde::Serialize;

use super::inbox::{Inbox, Message};
use crate::config::SigningKey;

/// Requests, one behind the other.
#[derive(Debug, Clone)]
pub struct Requests {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

#[derive(Serialize)]
struct Body<'a> {
    message_id: &'a str,
    from: &'a str,
    to: &'a str,
    ts: &'a str,
    text: Option<&'a str>,
}

impl Requests {
    /// Posts of `count` messages that nobody has seen before: fresh ones of the inbox, from `first` on.
    pub fn fresh(inbox: &Inbox, key: &SigningKey, first: u64, count: u64) -> Self {
        let (mut message, mut requests) = (Message::default(), Self { bytes: Vec::new(), ends: Vec::new() });
        for index in first..first + count {
            inbox.fresh(index, &mut message);
            let Message { id, from, to, ts, .. } = &message;
            let body = Body { message_id: id, from, to, ts, text: message.text() };
            let body = serde_json::to_vec(&body).expect("texts can be written");
            requests.push(&body, &key.sign(&body));
        }
        requests
    }

    /// The same requests, signed by somebody who does not know the secret.
    pub fn signed_badly(&self) -> Self {
        let mut bad = self.clone();
        for index in 0..bad.len() {
            let start = bad.start(index);
            let request = &mut bad.bytes[start..bad.ends[index]];
            let header = memchr::memmem::find(request, SIGNATURE).expect("every request is signed") + SIGNATURE.len();
            request[header] = if request[header] == b'0' { b'1' } else { b'0' };
        }
        bad
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of one request.
    pub fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index)..self.ends[index]]
    }

    /// The mean length of all, heads included.
    pub fn bytes_mean(&self) -> usize {
        self.bytes.len() / self.len().max(1)
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }

    fn push(&mut self, body: &[u8], signature: &str) {
        let length = body.len();
        write!(
            self.bytes,
            "POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nx-signature: {signature}\r\n\
             content-length: {length}\r\n\r\n"
        )
        .expect("a Vec takes everything");
        self.bytes.extend_from_slice(body);
        self.ends.push(self.bytes.len());
    }
}

const SIGNATURE: &[u8] = b"x-signature: ";
