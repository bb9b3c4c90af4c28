//! Signature algorithms of providers: HMAC (RFC 2104) over SHA-1, SHA-256, SHA-384 and SHA-512 (FIPS 180-4), Ed25519
//! (RFC 8032), and a secret that is sent in clear.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

/// How a signature is computed from a secret and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC over SHA-1, for the providers that still use it. The known attacks on SHA-1 do not break HMAC.
    HmacSha1,
    /// HMAC over SHA-256.
    HmacSha256,
    /// HMAC over SHA-384.
    HmacSha384,
    /// HMAC over SHA-512.
    HmacSha512,
    /// Ed25519; the configured secret is the provider's public key.
    Ed25519,
}

impl Algorithm {
    /// Its display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "HMAC-SHA1",
            Self::HmacSha256 => "HMAC-SHA256",
            Self::HmacSha384 => "HMAC-SHA384",
            Self::HmacSha512 => "HMAC-SHA512",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// Bytes of a signature.
    pub fn signature_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 | Self::Ed25519 => 64,
        }
    }

    /// Whether `signature` is the signature of the concatenated parts. For HMAC the time does not depend on
    /// the position of a difference.
    pub fn verifies(self, secret: &[u8], parts: &[&[u8]], signature: &[u8]) -> bool {
        match self {
            Self::HmacSha1 => mac::<Hmac<Sha1>>(secret, parts).verify_slice(signature).is_ok(),
            Self::HmacSha256 => mac::<Hmac<Sha256>>(secret, parts).verify_slice(signature).is_ok(),
            Self::HmacSha384 => mac::<Hmac<Sha384>>(secret, parts).verify_slice(signature).is_ok(),
            Self::HmacSha512 => mac::<Hmac<Sha512>>(secret, parts).verify_slice(signature).is_ok(),
            Self::Ed25519 => verifies_ed25519(secret, &parts.concat(), signature).unwrap_or(false),
        }
    }

    /// The signature of the parts. For Ed25519 the secret is a private key; none if it is not one.
    pub fn sign(self, secret: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
        match self {
            Self::HmacSha1 => Some(mac::<Hmac<Sha1>>(secret, parts).finalize().into_bytes().to_vec()),
            Self::HmacSha256 => Some(mac::<Hmac<Sha256>>(secret, parts).finalize().into_bytes().to_vec()),
            Self::HmacSha384 => Some(mac::<Hmac<Sha384>>(secret, parts).finalize().into_bytes().to_vec()),
            Self::HmacSha512 => Some(mac::<Hmac<Sha512>>(secret, parts).finalize().into_bytes().to_vec()),
            Self::Ed25519 => {
                let key = SigningKey::from_bytes(secret.try_into().ok()?);
                Some(key.sign(&parts.concat()).to_bytes().to_vec())
            }
        }
    }
}

fn mac<M: Mac + KeyInit>(secret: &[u8], parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(secret).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// Strict verification: it also refuses keys of small order, under which one signature matches many bodies.
fn verifies_ed25519(public_key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let key = VerifyingKey::from_bytes(public_key.try_into().ok()?).ok()?;
    let signature = Signature::from_slice(signature).ok()?;
    Some(key.verify_strict(message, &signature).is_ok())
}

/// Whether two secrets are equal. It compares digests, so the time reveals neither the position of a
/// difference nor the length.
pub fn same_secret(one: &[u8], other: &[u8]) -> bool {
    Sha256::digest(one).ct_eq(&Sha256::digest(other)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{decode_hex, encode_hex};

    #[test]
    fn hmac_is_that_of_the_published_vectors() {
        // RFC 2202, HMAC-SHA-1, case 2; RFC 4231, case 2.
        let (secret, message): (_, &[u8]) = (b"Jefe", b"what do ya want for nothing?");
        let cases = [
            (Algorithm::HmacSha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Algorithm::HmacSha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Algorithm::HmacSha384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Algorithm::HmacSha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, expected) in cases {
            let signature = algorithm.sign(secret, &[&message[..5], &message[5..]]).unwrap();
            assert_eq!(encode_hex(&signature), expected, "{algorithm:?}");
            assert_eq!(signature.len(), algorithm.signature_bytes());
            assert!(algorithm.verifies(secret, &[message], &signature));
            assert!(!algorithm.verifies(b"jefe", &[message], &signature));
            assert!(!algorithm.verifies(secret, &[message], &signature[..signature.len() - 1]), "no short signature");
        }
    }

    #[test]
    fn ed25519_is_that_of_the_published_vectors_and_refuses_weak_keys() {
        // RFC 8032, §7.1, test 3.
        let key = decode_hex(b"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025").unwrap();
        let signature = decode_hex(
            b"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        )
        .unwrap();
        assert!(Algorithm::Ed25519.verifies(&key, &[b"\xaf", b"\x82"], &signature));
        assert!(!Algorithm::Ed25519.verifies(&key, &[b"\xaf\x83"], &signature));
        assert!(!Algorithm::Ed25519.verifies(&key[1..], &[b"\xaf\x82"], &signature));
        let private = decode_hex(b"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7").unwrap();
        assert_eq!(Algorithm::Ed25519.sign(&private, &[b"\xaf", b"\x82"]), Some(signature));
        // With the neutral element as key, R = key and S = 0, a lenient verifier accepts every message.
        let neutral = [[1].as_slice(), &[0; 31]].concat();
        let forged = [neutral.as_slice(), &[0; 32]].concat();
        assert!(!Algorithm::Ed25519.verifies(&neutral, &[b"anything"], &forged));
    }

    #[test]
    fn secrets_are_the_same_only_if_all_of_them_is() {
        assert!(same_secret(b"abc", b"abc"));
        for other in ["ab", "abcd", "abC", ""] {
            assert!(!same_secret(b"abc", other.as_bytes()), "{other}");
        }
    }
}
