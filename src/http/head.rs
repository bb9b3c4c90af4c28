//! What a request's head must not contain, though the parser behind it would take it: the ambiguities that request smuggling
//! lives on. Looked for in the raw bytes, before hyper sees them.
//!
//! Sources: RFC 9112 §2.2 (line ends), §6.1 and §6.3 (a message with both lengths, or with several).

use memchr::memchr;

/// Follows the bytes of a connection from the start of a request's head to its end, piece by piece.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// The line under way, kept only where a head comes in several pieces.
    line: Vec<u8>,
    any_line: bool,
    ended: bool,
    content_lengths: u8,
    transfer_encodings: u8,
    bare_line_feed: bool,
}

/// Longest beginning of a line that has to be kept to know its header name.
const NAME_BYTES_MAX: usize = 32;

impl HeadScan {
    /// Takes the next bytes. What comes after the end of the head is body and not looked at.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !self.ended {
            let Some(end) = memchr(b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                self.shorten();
                return;
            };
            if self.line.is_empty() {
                self.end_line(&bytes[..end]);
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                self.end_line(&line);
            }
            bytes = &bytes[end + 1..];
        }
    }

    /// Whether the head has been seen to its end.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What is wrong with the head, as far as it has been seen.
    pub fn fault(&self) -> Option<&'static str> {
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

    fn end_line(&mut self, line: &[u8]) {
        let Some(line) = line.strip_suffix(b"\r") else {
            self.bare_line_feed = true;
            // An empty line ends the head, however it is written.
            self.ended = line.is_empty() && self.any_line;
            self.any_line |= !line.is_empty();
            return;
        };
        if line.is_empty() {
            // Empty lines before the request line are skipped (RFC 9112 §2.2).
            self.ended = self.any_line;
            return;
        }
        self.any_line = true;
        let names = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        // The first letter sorts out nearly every line.
        match line[0] | 0x20 {
            b'c' if names(b"content-length:") => self.content_lengths = self.content_lengths.saturating_add(1),
            b't' if names(b"transfer-encoding:") => self.transfer_encodings = self.transfer_encodings.saturating_add(1),
            _ => {}
        }
    }

    /// A long line's middle says nothing; its start (the name) and its last byte (a CR?) do.
    fn shorten(&mut self) {
        if self.line.len() > NAME_BYTES_MAX {
            let last = self.line[self.line.len() - 1];
            self.line.truncate(NAME_BYTES_MAX - 1);
            self.line.push(last);
        }
    }
}

/// Feeds any bytes to the scan, as a fuzz target does: however they are cut, the findings are the same.
pub fn fuzz_scan(data: &[u8]) {
    let scan = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut scan = HeadScan::default();
        pieces.for_each(|piece| scan.feed(piece));
        (scan.ended(), scan.fault())
    };
    let whole = scan(&mut std::iter::once(data));
    for length in [1, 3, 17] {
        assert_eq!(scan(&mut data.chunks(length)), whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(pieces: &[&[u8]]) -> (bool, Option<&'static str>) {
        let mut scan = HeadScan::default();
        pieces.iter().for_each(|piece| scan.feed(piece));
        (scan.ended(), scan.fault())
    }

    const GOOD: &[u8] = b"\r\nPOST /webhook HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 2\r\nX-Content-Length: 3\r\n\r\n{\n";

    #[test]
    fn a_good_head_passes_and_its_body_is_not_looked_at() {
        assert_eq!(scan(&[GOOD]), (true, None));
        assert_eq!(scan(&[b"GET / HTTP/1.1\r\nHost: a\r\n"]), (false, None));
    }

    #[test]
    fn ambiguous_heads_are_told() {
        let with = |header: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{header}\r\n");
            scan(&[head.as_bytes()]).1.unwrap_or("nothing")
        };
        assert_eq!(with("CONTENT-length:2\r\n"), "more than one Content-Length header");
        assert_eq!(with("Transfer-Encoding: chunked\r\n"), "both Content-Length and Transfer-Encoding");
        assert_eq!(with("X: y\n"), "a line of the head ends in LF without CR");
        assert_eq!(with("X: y\r\n"), "nothing");
        assert_eq!(scan(&[b"GET / HTTP/1.1\nHost: a\n\n"]), (true, Some("a line of the head ends in LF without CR")));
        let twice = b"GET / HTTP/1.1\r\ntransfer-encoding: a\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(scan(&[twice]).1, Some("more than one Transfer-Encoding header"));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            head in "((POST / HTTP/1.1|content-length: 1|transfer-encoding: chunked|X: [a-z]{0,50})?(\r\n|\n)){0,8}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole = scan(&[head.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(head.len() + 1)).collect();
            cuts.extend([0, head.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &head.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(scan(&pieces), whole);
        }
    }
}
