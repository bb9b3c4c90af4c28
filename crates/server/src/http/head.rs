//! Errors in a request's head that hyper would accept: the ambiguities that request smuggling
//! uses. The scan reads the raw bytes of a connection before hyper does.
//!
//! Sources: RFC 9112 §2.2 (line ends), §6.1 and §6.3 (a message with both lengths, or with several), §7.1 (chunks).

use std::collections::VecDeque;

use memchr::memchr;

/// Follows the bytes of a connection, piece by piece: head, body, next head. Only heads are checked.
#[derive(Debug, Default)]
pub struct RequestScan {
    part: Part,
    /// The current line, kept only if it arrives in several pieces.
    line: Vec<u8>,
    head: Head,
    /// The findings of each complete head that were not fetched yet.
    found: VecDeque<Option<&'static str>>,
}

/// The part of a request to which the next byte belongs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// A body, with the number of bytes that are missing.
    Body(u64),
    ChunkSize,
    /// A chunk, with the number of bytes that are missing, including its line end.
    Chunk(u64),
    Trailers,
    /// Not followed any further: hyper ends the connection, or was instructed to.
    Lost,
}

/// The findings of a head so far.
#[derive(Debug, Default)]
struct Head {
    any_line: bool,
    content_lengths: u8,
    transfer_encodings: u8,
    body_bytes: Option<u64>,
    bare_line_feed: bool,
}

/// Maximum length of a line's beginning that matters: a header name and a number.
const LINE_BYTES_MAX: usize = 128;
/// A number longer than this may have been cut with its line (it would be all leading zeros): its value is unknown.
const NUMBER_BYTES_MAX: usize = 64;

impl RequestScan {
    /// Processes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.part {
                Part::Head | Part::ChunkSize | Part::Trailers => bytes = self.feed_line(bytes),
                Part::Body(left) => {
                    let (part, rest) = skip(left, bytes, Part::Body, Part::Head);
                    (self.part, bytes) = (part, rest);
                }
                Part::Chunk(left) => {
                    let (part, rest) = skip(left, bytes, Part::Chunk, Part::ChunkSize);
                    (self.part, bytes) = (part, rest);
                }
                Part::Lost => return,
            }
        }
    }

    /// The error in the next request's head; heads are fetched in the order of arrival. A head that was not
    /// recognised as one is an error too.
    pub fn next_fault(&mut self) -> Option<&'static str> {
        self.found.pop_front().unwrap_or(Some("a request that cannot be told apart from the body before it"))
    }

    /// Whether a head has begun and not ended.
    pub fn is_within_head(&self) -> bool {
        self.part == Part::Head && (self.head.any_line || !self.line.is_empty())
    }

    /// Processes a line, or the beginning of one. Returns the remaining bytes.
    fn feed_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            shorten(&mut self.line);
            return &[];
        };
        if self.line.is_empty() && end <= LINE_BYTES_MAX {
            self.end_line(&bytes[..end]);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            shorten(&mut line);
            self.end_line(&line);
        }
        &bytes[end + 1..]
    }

    fn end_line(&mut self, line: &[u8]) {
        let text = line.strip_suffix(b"\r");
        let ends_in_bare_line_feed = text.is_none();
        let text = text.unwrap_or(line);
        if ends_in_bare_line_feed && self.part != Part::Head {
            // Parsers interpret such a line end differently, so the start of the next head is unknown.
            self.part = Part::Lost;
            return;
        }
        match self.part {
            Part::Head => {
                self.head.bare_line_feed |= ends_in_bare_line_feed;
                if !text.is_empty() {
                    self.head.take_line(text);
                } else if self.head.any_line {
                    self.end_head();
                }
                // Empty lines before the request line are skipped (RFC 9112 §2.2).
            }
            Part::ChunkSize => {
                let digits = text.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
                let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
                self.part = match size.filter(|_| digits.len() < NUMBER_BYTES_MAX) {
                    Some(0) => Part::Trailers,
                    Some(size) => Part::Chunk(size.saturating_add(2)),
                    None => Part::Lost,
                };
            }
            Part::Trailers if text.is_empty() => self.part = Part::Head,
            _ => {}
        }
    }

    fn end_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        let fault = head.fault();
        self.found.push_back(fault);
        self.part = match (fault, head.transfer_encodings, head.content_lengths, head.body_bytes) {
            (Some(_), ..) => Part::Lost,
            (None, 1, ..) => Part::ChunkSize,
            (None, _, 0, _) | (None, _, _, Some(0)) => Part::Head,
            (None, _, _, Some(bytes)) => Part::Body(bytes),
            (None, _, _, None) => Part::Lost,
        };
    }
}

impl Head {
    fn take_line(&mut self, line: &[u8]) {
        self.any_line = true;
        let value_of = |name: &[u8]| line.get(..name.len())?.eq_ignore_ascii_case(name).then(|| &line[name.len()..]);
        // The first letter excludes nearly every line.
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = value_of(b"content-length:") {
                    self.content_lengths = self.content_lengths.saturating_add(1);
                    let value = Some(value).filter(|value| value.len() < NUMBER_BYTES_MAX);
                    let text = value.and_then(|value| std::str::from_utf8(value.trim_ascii()).ok());
                    self.body_bytes = text.and_then(|text| text.parse().ok());
                }
            }
            b't' if value_of(b"transfer-encoding:").is_some() => {
                self.transfer_encodings = self.transfer_encodings.saturating_add(1);
            }
            _ => {}
        }
    }

    fn fault(&self) -> Option<&'static str> {
        if self.bare_line_feed {
            Some("a line of the head ends in LF without CR")
        } else if self.content_lengths > 1 {
            Some("more than one Content-Length header")
        } else if self.content_lengths > 0 && self.transfer_encodings > 0 {
            Some("both Content-Length and Transfer-Encoding")
        } else if self.transfer_encodings > 1 {
            Some("more than one Transfer-Encoding header")
        } else {
            None
        }
    }
}

/// Skips up to `left` bytes; `then` is the state after all of them have arrived.
fn skip(left: u64, bytes: &[u8], still: fn(u64) -> Part, then: Part) -> (Part, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let left = left - here as u64;
    (if left == 0 { then } else { still(left) }, &bytes[here..])
}

/// The middle of a long line is irrelevant; its start (name and number) and its last byte (a CR?) matter.
fn shorten(line: &mut Vec<u8>) {
    if line.len() > LINE_BYTES_MAX {
        let last = line[line.len() - 1];
        line.truncate(LINE_BYTES_MAX - 1);
        line.push(last);
    }
}

/// Passes any bytes to the scan, like a fuzz target: however they are split, the findings are the same.
pub fn fuzz_scan(data: &[u8]) {
    let whole = findings(&mut std::iter::once(data));
    for length in [1, 3, 17] {
        assert_eq!(findings(&mut data.chunks(length)), whole);
    }
}

/// The findings of each head, and whether one is incomplete.
fn findings(pieces: &mut dyn Iterator<Item = &[u8]>) -> (VecDeque<Option<&'static str>>, bool) {
    let mut scan = RequestScan::default();
    pieces.for_each(|piece| scan.feed(piece));
    (std::mem::take(&mut scan.found), scan.is_within_head())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(bytes: &[u8]) -> Vec<Option<&'static str>> {
        findings(&mut std::iter::once(bytes)).0.into()
    }

    const GOOD: &str =
        "\r\nPOST /webhook HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  3 \r\nX-Content-Length: 3\r\n\r\n{\n}";
    const CHUNKED: &str =
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    const BARE: &str = "GET / HTTP/1.1\nHost: a\n\n";

    #[test]
    fn good_requests_pass_and_bodies_are_not_looked_at() {
        assert_eq!(scan(GOOD.as_bytes()), [None]);
        assert_eq!(scan([GOOD, CHUNKED, GOOD, "GET / HTTP/1.1\r\nHost: a\r\n"].concat().as_bytes()), [None; 3]);
        assert!(findings(&mut [b"GET / HT".as_slice()].into_iter()).1);
        assert!(!findings(&mut [GOOD.as_bytes()].into_iter()).1);
    }

    #[test]
    fn ambiguous_heads_are_told_wherever_they_stand() {
        let with = |header: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{header}\r\n");
        for (request, fault) in [
            (with("CONTENT-length:2\r\n"), "more than one Content-Length header"),
            (with("Transfer-Encoding: chunked\r\n"), "both Content-Length and Transfer-Encoding"),
            (with("X: y\n"), "a line of the head ends in LF without CR"),
            (BARE.to_owned(), "a line of the head ends in LF without CR"),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
                "more than one Transfer-Encoding header",
            ),
        ] {
            assert_eq!(scan(request.as_bytes()), [Some(fault)]);
            assert_eq!(scan([GOOD, CHUNKED, &request].concat().as_bytes()), [None, None, Some(fault)]);
        }
    }

    #[test]
    fn a_length_too_long_to_be_read_whole_hides_nothing() {
        let zeros = "0".repeat(150);
        let hidden = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let plain = format!("POST / HTTP/1.1\r\nContent-Length: {zeros}{}\r\n\r\n{hidden}{BARE}", hidden.len());
        let size = format!("{zeros}{:x}", hidden.len());
        let chunked =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n{hidden}\r\n0\r\n\r\n{BARE}");
        for request in [plain, chunked] {
            let mut scan = RequestScan::default();
            scan.feed(request.as_bytes());
            assert_eq!(scan.next_fault(), None);
            assert!(scan.next_fault().is_some(), "whatever comes next is refused");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            requests in prop::collection::vec(prop::sample::select(vec![GOOD, CHUNKED, BARE, "GET / HTTP/1.1\r\n"]), 0..4),
            noise in "(content-length: 0{0,150}[0-9]|transfer-encoding: chunked|X: [a-z]{0,200}|\r\n|\n){0,8}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = [requests.concat(), noise].concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut pieces = cuts.windows(2).map(|pair| &bytes.as_bytes()[pair[0]..pair[1]]);
            prop_assert_eq!(findings(&mut pieces), findings(&mut std::iter::once(bytes.as_bytes())));
        }
    }
}
