//! Requests that post messages, as bytes.

use std::io::Write;
use std::sync::Arc;

use serde::Serialize;

use crate::data::{Inbox, Message};
use server::config::SigningKey;

/// The origin of requests.
#[derive(Debug)]
pub enum Requests {
    /// Written and signed in advance, so that the client only has to send them during the measurement.
    Prepared(Prepared),
    /// Written when they are sent, for long load: fresh messages of the inbox, from an index on.
    Endless(Writer, u64),
    /// The same requests repeatedly.
    Repeated(Vec<Vec<u8>>),
}

impl Requests {
    /// One of them; the desk is the buffer for writing it, if necessary.
    pub fn get<'a>(&'a self, index: usize, desk: &'a mut Desk) -> &'a [u8] {
        match self {
            Self::Prepared(requests) => requests.get(index),
            Self::Repeated(requests) => &requests[index % requests.len()],
            Self::Endless(writer, first) => {
                desk.request.clear();
                writer.write(first + index as u64, &mut desk.message, &mut desk.request);
                &desk.request
            }
        }
    }
}

/// A request for a path.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A reused buffer.
#[derive(Debug, Default)]
pub struct Desk {
    message: Message,
    request: Vec<u8>,
}

/// Writes and signs requests.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The inbox.
    pub inbox: Arc<Inbox>,
    /// The signing key.
    pub key: SigningKey,
}

#[derive(Serialize)]
struct Body<'a> {
    message_id: &'a str,
    from: &'a str,
    to: &'a str,
    ts: &'a str,
    text: Option<&'a str>,
}

impl Writer {
    fn write(&self, index: u64, message: &mut Message, out: &mut Vec<u8>) {
        self.inbox.fresh(index, message);
        let Message { id, from, to, ts, .. } = &message;
        let body = Body { message_id: id, from, to, ts, text: message.text() };
        let body = serde_json::to_vec(&body).expect("texts can be written");
        let (signature, length) = (self.key.sign(&body), body.len());
        write!(
            out,
            "POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nx-signature: {signature}\r\n\
             content-length: {length}\r\n\r\n"
        )
        .expect("writing to a Vec cannot fail");
        out.extend_from_slice(&body);
    }
}

/// Concatenated requests.
#[derive(Debug, Clone)]
pub struct Prepared {
    bytes: Vec<u8>,
    /// The end of each request.
    ends: Vec<usize>,
}

impl Prepared {
    /// Posts of `count` new messages: fresh ones, from `first` on.
    pub fn fresh(writer: &Writer, first: u64, count: u64) -> Self {
        let (mut message, mut requests) = (Message::default(), Self { bytes: Vec::new(), ends: Vec::new() });
        for index in first..first + count {
            writer.write(index, &mut message, &mut requests.bytes);
            requests.ends.push(requests.bytes.len());
        }
        requests
    }

    /// The same requests, signed without knowing the secret.
    pub fn signed_badly(&self) -> Self {
        let mut bad = self.clone();
        for index in 0..bad.ends.len() {
            let start = bad.start(index);
            let request = &mut bad.bytes[start..bad.ends[index]];
            let header = memchr::memmem::find(request, SIGNATURE).expect("every request is signed") + SIGNATURE.len();
            request[header] = if request[header] == b'0' { b'1' } else { b'0' };
        }
        bad
    }

    fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index)..self.ends[index]]
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }
}

const SIGNATURE: &[u8] = b"x-signature: ";
