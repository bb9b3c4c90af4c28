//! Strict decoding of signatures. Each has one spelling, so nothing can be appended, re-cased or padded.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The encoding of bytes in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hexadecimal (RFC 4648, §8).
    Hex,
    /// Base64 with padding (RFC 4648, §4), canonical: unused bits are zero.
    Base64,
}

impl Encoding {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hex => "lower-case hexadecimal",
            Self::Base64 => "base64",
        }
    }

    /// The decoded bytes of `text`, if there are exactly `length` of them and no other text decodes to the same.
    pub fn decode(self, text: &[u8], length: usize) -> Option<Vec<u8>> {
        let bytes = match self {
            Self::Hex => decode_hex(text)?,
            Self::Base64 => STANDARD.decode(text).ok()?,
        };
        (bytes.len() == length).then_some(bytes)
    }

    /// Encodes bytes.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => encode_hex(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}

/// Lower-case hexadecimal of any length.
pub fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Bytes in lower-case hexadecimal.
pub fn encode_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

/// A secret that its provider shows in base64; padding may be missing, because it is often lost in copying.
pub fn decode_secret_base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

/// A part of a JSON Web Token: base64url without padding (RFC 7515, §2).
pub fn decode_base64url(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Bytes as a part of a JSON Web Token.
pub fn encode_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The reason why a body is not JSON. It mentions a leading byte order mark, which editors do not show.
pub fn with_byte_order_mark(body: &[u8], why: String) -> String {
    let mark = match body {
        [0xef, 0xbb, 0xbf, ..] => "a byte order mark (EF BB BF)",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the byte order mark of UTF-16",
        _ => return why,
    };
    format!("{why}; the body begins with {mark}: send UTF-8 without one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn there_is_one_way_to_write_each_signature() {
        assert_eq!(Encoding::Hex.decode(b"00ff", 2), Some(vec![0, 255]));
        for bad in ["00F0", "00f", "00ff00", "0xff", "00fg", " 0ff", "", "00ff\n"] {
            assert_eq!(Encoding::Hex.decode(bad.as_bytes(), 2), None, "{bad}");
        }
        assert_eq!(Encoding::Base64.decode(b"AP8=", 2), Some(vec![0, 255]));
        // No padding, trailing bits set, the URL alphabet, invalid characters inside, another length.
        for bad in ["AP8", "AP9=", "AP8==", "AP-_", "A P8=", "AP8=\n", "AP8A", "", "="] {
            assert_eq!(Encoding::Base64.decode(bad.as_bytes(), 2), None, "{bad}");
        }
        assert_eq!(decode_base64url(b"AP8"), Some(vec![0, 255]));
        assert_eq!(decode_base64url(b"AP8="), None);
        assert_eq!(
            (decode_secret_base64(b"AP8="), decode_secret_base64(b"AP8")),
            (Some(vec![0, 255]), Some(vec![0, 255]))
        );
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_and_nothing_else_gives_the_same(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), other in any::<u8>()) {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let text = encoding.encode(&bytes);
                let decoded = encoding.decode(text.as_bytes(), bytes.len());
                prop_assert_eq!(decoded.as_deref(), Some(bytes.as_slice()));
                let mut changed = text.clone().into_bytes();
                if !changed.is_empty() {
                    let at = at.index(changed.len());
                    prop_assume!(changed[at] != other);
                    changed[at] = other;
                    let decoded = encoding.decode(&changed, bytes.len());
                    prop_assert!(decoded.is_none_or(|decoded| decoded != bytes));
                }
            }
        }
    }
}
