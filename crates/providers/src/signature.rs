//! HMAC-SHA256 (RFC 2104, FIPS 180-4) signatures, written in lower-case hexadecimal.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use super::encoding::encode_hex;
use domain::Secret;

/// Why verification failed. The client only gets "invalid signature"; the reason goes to the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSignature {
    /// The signature header is absent.
    #[error("missing_header")]
    MissingHeader,
    /// The signature header is repeated; it would be ambiguous which one counts.
    #[error("duplicate_header")]
    DuplicateHeader,
    /// Not a signature of the expected form.
    #[error("malformed_signature")]
    Malformed,
    /// A well-formed signature that no active secret produces for these bytes.
    #[error("wrong_secret")]
    WrongSecret,
    /// The signed time does not have the required form.
    #[error("malformed_timestamp")]
    MalformedTimestamp,
    /// The signed time is too long ago.
    #[error("stale_timestamp")]
    StaleTimestamp,
    /// The signed time is too far ahead.
    #[error("future_timestamp")]
    FutureTimestamp,
    /// Signed with an algorithm that the source does not accept.
    #[error("wrong_algorithm")]
    WrongAlgorithm,
    /// The signature is valid, but its digest is not that of the body or the URL.
    #[error("body_mismatch")]
    BodyMismatch,
    /// The signature covers the URL, and our public URL is not known.
    #[error("unknown_url")]
    UnknownUrl,
}

/// Why a handshake was refused. The error does not reveal the token, and the client knows what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadHandshake {
    /// The error in the mode.
    #[error("hub.mode {0}")]
    Mode(&'static str),
    /// The error in the verify token.
    #[error("hub.verify_token {0}")]
    Token(&'static str),
    /// The error in the challenge.
    #[error("hub.challenge {0}")]
    Challenge(&'static str),
    /// The operator set no token, so none is valid.
    #[error("no verify token is set for this source")]
    NoToken,
}

/// A secret, prepared for signing: the key schedule is computed once, not per request.
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

    /// Whether `signature` is this key's signature of `body`; the time does not depend on the position of a difference.
    pub(super) fn matches(&self, body: &[u8], signature: &[u8; 32]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_published_vectors_say() {
        // RFC 4231, test cases 1, 2 and 6 (a key longer than the block).
        assert_eq!(
            SigningKey::new(&Secret::new(vec![0x0b; 20]).unwrap()).sign(b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            SigningKey::new(&Secret::new("Jefe").unwrap()).sign(b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            SigningKey::new(&Secret::new(vec![0xaa; 131]).unwrap())
                .sign(b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
