//! HMAC-SHA256 (RFC 2104, FIPS 180-4) signatures, written in lower-case hexadecimal.

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use sha2::Sha256;
use thiserror::Error;

use super::encoding::encode_hex;
use super::header::single;
use super::key::Key;
use super::rule::first_fitting;
use crate::domain::Secret;

/// Why a request was not believed. The client learns only "invalid signature"; the reason goes to the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSignature {
    /// The signature header is absent.
    #[error("missing_header")]
    MissingHeader,
    /// The signature header came more than once; which one counts must not be a matter of taste.
    #[error("duplicate_header")]
    DuplicateHeader,
    /// Not a signature of the expected form.
    #[error("malformed_signature")]
    Malformed,
    /// A well-formed signature that no active secret makes of these bytes.
    #[error("wrong_secret")]
    WrongSecret,
    /// The signed time is not of the one form that times have.
    #[error("malformed_timestamp")]
    MalformedTimestamp,
    /// The signed time is too long ago.
    #[error("stale_timestamp")]
    StaleTimestamp,
    /// The signed time is too far ahead.
    #[error("future_timestamp")]
    FutureTimestamp,
    /// Signed by an algorithm that the door does not take.
    #[error("wrong_algorithm")]
    WrongAlgorithm,
    /// The signature is right, but the digest that it vouches for is not that of the body or the URL.
    #[error("body_mismatch")]
    BodyMismatch,
    /// The URL is part of what is signed, and it is not known under which one we are reached.
    #[error("unknown_url")]
    UnknownUrl,
}

/// Why a handshake was refused. None of it shows the token, and whoever asks knows what they sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadHandshake {
    /// What is wrong with the mode.
    #[error("hub.mode {0}")]
    Mode(&'static str),
    /// What is wrong with the verify token.
    #[error("hub.verify_token {0}")]
    Token(&'static str),
    /// What is wrong with the challenge.
    #[error("hub.challenge {0}")]
    Challenge(&'static str),
    /// The operator set no token, so none can be right.
    #[error("no verify token is set for this source")]
    NoToken,
}

/// A secret, made ready for signing: the key schedule is computed once, not per request.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// The key is the secret's exact bytes.
    pub fn new(secret: &Secret) -> Self {
        Self(Hmac::new_from_slice(secret.expose()).expect("HMAC takes keys of any length"))
    }

    /// The signature of `body` in lower-case hexadecimal, 64 characters.
    pub fn sign(&self, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(body);
        encode_hex(&mac.finalize().into_bytes())
    }

    /// Whether this key makes `signature` of `body`; the time it takes does not depend on where they differ.
    fn matches(&self, body: &[u8], signature: &[u8; 32]) -> bool {
        let mut mac = self.0.clone();
        mac.update(body);
        mac.verify_slice(signature).is_ok()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// Checks that exactly one header `name` holds the hexadecimal signature of `body` by one of `keys`, and answers which. The
/// same as a `Rule` would find, without its generality: this is the original door's way, and it allocates nothing.
pub fn verify_hex_header(headers: &HeaderMap, name: &str, body: &[u8], keys: &[Key]) -> Result<usize, BadSignature> {
    let value = single(headers, name)?;
    let signature = decode_hex(value).ok_or(BadSignature::Malformed)?;
    first_fitting(keys, |key| key.signing().matches(body, &signature))
}

/// Exactly 64 lower-case hexadecimal digits.
fn decode_hex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(secret: &str) -> Key {
        Key::new(secret, Secret::new(secret).unwrap())
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-signature", hyper::header::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn verify(values: &[&[u8]], body: &[u8], keys: &[Key]) -> Result<usize, BadSignature> {
        verify_hex_header(&headers(values), "x-signature", body, keys)
    }

    #[test]
    fn signs_as_the_published_vectors_say() {
        // RFC 4231, test cases 1, 2 and 6 (a key longer than the block).
        assert_eq!(
            SigningKey::new(&Secret::new(vec![0x0b; 20]).unwrap()).sign(b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            key("Jefe").signing().sign(b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            SigningKey::new(&Secret::new(vec![0xaa; 131]).unwrap())
                .sign(b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn every_other_header_is_refused_with_its_reason() {
        let (key, body) = (key("testsecret"), b"{}");
        let good = key.signing().sign(body);
        let keys = std::slice::from_ref(&key);
        assert_eq!(verify(&[good.as_bytes()], body, keys), Ok(0));
        assert_eq!(verify(&[], body, keys), Err(BadSignature::MissingHeader));
        assert_eq!(verify(&[good.as_bytes(), good.as_bytes()], body, keys), Err(BadSignature::DuplicateHeader));
        assert_eq!(verify(&[good.as_bytes()], b"{} ", keys), Err(BadSignature::WrongSecret));
        assert_eq!(verify(&[good.as_bytes()], body, &[]), Err(BadSignature::WrongSecret));
        for bad in [&good[..63], &format!("{good}0"), &good.to_uppercase(), &format!("sha256={good}"), "", "123"] {
            assert_eq!(verify(&[bad.as_bytes()], body, keys), Err(BadSignature::Malformed), "{bad}");
        }
        assert_eq!(verify(&[&[0xe9; 64]], body, keys), Err(BadSignature::Malformed));
    }

    #[test]
    fn any_of_several_keys_will_do() {
        let keys = [key("old"), key("new")];
        for (at, signer) in keys.iter().enumerate() {
            assert_eq!(verify(&[signer.signing().sign(b"x").as_bytes()], b"x", &keys), Ok(at));
        }
        assert_eq!(
            verify(&[key("other").signing().sign(b"x").as_bytes()], b"x", &keys),
            Err(BadSignature::WrongSecret)
        );
    }

    proptest! {
        #[test]
        fn a_single_flipped_bit_is_refused(body in prop::collection::vec(any::<u8>(), 1..300), bit in any::<prop::sample::Index>()) {
            let key = key("testsecret");
            let signature = key.signing().sign(&body);
            let mut forged = body.clone();
            let at = bit.index(body.len() * 8);
            forged[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(verify(&[signature.as_bytes()], &forged, std::slice::from_ref(&key)), Err(BadSignature::WrongSecret));
            let mut header = signature.into_bytes();
            header[at % 64] ^= 1 << (at % 7);
            prop_assume!(!header.iter().any(|byte| *byte < 32 || *byte == 127));
            prop_assert!(verify(&[&header], &body, &[key]).is_err());
        }
    }
}
