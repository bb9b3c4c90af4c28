//! A value that must never be printed.

/// Secrets of fewer bytes can be guessed.
const GUESSABLE_BYTES: usize = 8;

/// Bytes that authenticate a sender. `Debug` shows only that there is one; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the exact bytes, without trimming, of any length except zero. An empty secret is known to everybody.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// Why these bytes are probably not the intended secret, if they look wrong. They are used anyway: the contract
    /// allows any bytes, and a sender may have the same ones.
    pub fn doubt(&self) -> Option<&'static str> {
        let bytes = self.0.as_slice();
        let text = String::from_utf8_lossy(bytes);
        let quote =
            |character: char| matches!(character, '"' | '\'' | '`' | '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}');
        if bytes.starts_with(b"\xef\xbb\xbf") || bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            Some("begins with a byte order mark (BOM), which is part of it; save it as UTF-8 without a BOM")
        } else if text.contains(['\n', '\r']) {
            Some("contains a line break, which is part of it")
        } else if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
            Some("begins or ends with white space, which is part of it")
        } else if text.starts_with(quote) || text.ends_with(quote) {
            Some("begins or ends with a quotation mark, which is part of it")
        } else if text.contains(char::is_control) {
            Some("contains a control character, which is part of it")
        } else if bytes.len() < GUESSABLE_BYTES {
            Some("has fewer than 8 bytes, which can be guessed; use 32 random ones")
        } else {
            None
        }
    }

    /// The bytes, for the computation of signatures only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_not_empty() {
        let secret = Secret::new("hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(Secret::new(""), None);
    }

    #[test]
    fn bytes_that_are_probably_a_mistake_are_doubted() {
        let doubt = |bytes: &[u8]| Secret::new(bytes).unwrap().doubt();
        for good in [&b"testsecret"[..], b"a pass phrase", b"it's-mine", b"\xff\x00\x01 binary: not text"] {
            let is_text = std::str::from_utf8(good).is_ok();
            assert_eq!(doubt(good).is_none(), is_text, "{good:?}");
        }
        for (bytes, part) in [
            (&b"\"testsecret\""[..], "quotation mark"),
            (b"'testsecret", "quotation mark"),
            ("\u{201c}testsecret\u{201d}".as_bytes(), "quotation mark"),
            (b"testsecret ", "white space"),
            ("\u{a0}testsecret".as_bytes(), "white space"),
            (b"test\nsecret", "line break"),
            (b"testsecret\r", "line break"),
            (b"\xef\xbb\xbftestsecret", "byte order mark"),
            (b"\xff\xfet\0e\0s\0t\0", "byte order mark"),
            (b"test\0secret", "control"),
            (b"s", "fewer than 8"),
        ] {
            assert!(doubt(bytes).is_some_and(|doubt| doubt.contains(part)), "{bytes:?}: {:?}", doubt(bytes));
        }
    }
}
