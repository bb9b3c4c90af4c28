//! The secrets of a source, each with a name and a count of its uses, which shows when an old one can be removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::encoding::{decode_hex, decode_secret_base64};
use super::signature::{BadSignature, SigningKey};
use domain::{Moment, Secret};

/// The encoding of a provider's secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretForm {
    /// The key is the text itself, in any form.
    Text,
    /// Base64 of the key.
    Base64,
    /// Hexadecimal of the key.
    Hex,
    /// Standard Webhooks: `whsec_` and base64 of a key (the prefix is optional), or `whpk_` and base64 of a public key.
    Standard,
    /// Base64 of an Ed25519 public key.
    PublicKey,
    /// `whsk_` (optional) and base64 of an Ed25519 private key. Only for tests: it signs as the provider does.
    PrivateKey,
}

impl SecretForm {
    /// The key of a configured secret, or the reason why it is invalid.
    pub fn read(self, label: &str, secret: &Secret) -> Result<Key, &'static str> {
        let text = secret.expose();
        let (bytes, role) = match self {
            Self::Text => (Some(text.to_vec()), Role::Shared),
            Self::Base64 => (decode_secret_base64(text), Role::Shared),
            Self::Hex => (decode_hex(&text.to_ascii_lowercase()), Role::Shared),
            Self::PublicKey => (decode_secret_base64(text), Role::Public),
            Self::PrivateKey => (decode_secret_base64(text.strip_prefix(b"whsk_").unwrap_or(text)), Role::Private),
            Self::Standard => match (text.strip_prefix(b"whsec_"), text.strip_prefix(b"whpk_")) {
                (_, Some(public)) => (decode_secret_base64(public), Role::Public),
                (secret, None) => (decode_secret_base64(secret.unwrap_or(text)), Role::Shared),
            },
        };
        let mut bytes = bytes.ok_or(match self {
            Self::Hex => "is not hexadecimal",
            _ => "is not base64",
        })?;
        match (role, bytes.len()) {
            (Role::Public, 32) | (Role::Private, 32) | (Role::Shared, _) => {}
            (Role::Public, _) => return Err("is not a public key of 32 bytes"),
            // Some tools append the public key to the private key.
            (Role::Private, 64) => bytes.truncate(32),
            (Role::Private, _) => return Err("is not a private key of 32 bytes"),
        }
        let secret = Secret::new(bytes).ok_or("must not be empty")?;
        Ok(Key { role, ..Key::new(label, secret) })
    }
}

/// The operations that a key supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Both sides have the secret, and both can sign.
    Shared,
    /// The key can verify, but not sign.
    Public,
    /// The key signs for the public key.
    Private,
}

/// A secret of a source.
#[derive(Debug, Clone)]
pub struct Key {
    /// The place of the secret (for example a variable), for metrics. Never a part of the secret itself.
    pub label: String,
    /// The bytes to compute with.
    pub secret: Secret,
    /// The name in requests signed with it, for providers that number their keys.
    pub id: Option<String>,
    /// The operations that it supports.
    pub role: Role,
    /// HMAC-SHA256 with this secret, precomputed.
    signing: SigningKey,
    uses: Arc<Uses>,
}

/// How often a secret verified a request, and the last time.
#[derive(Debug, Default)]
struct Uses {
    count: AtomicU64,
    last_seconds: AtomicI64,
}

impl Key {
    /// A secret under a name.
    pub fn new(label: &str, secret: Secret) -> Self {
        let signing = SigningKey::new(&secret);
        Self { label: label.to_owned(), secret, id: None, role: Role::Shared, signing, uses: Arc::default() }
    }

    /// HMAC-SHA256 by this secret.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Records that it verified a request.
    pub fn used(&self, now: Moment) {
        self.uses.count.fetch_add(1, Relaxed);
        self.uses.last_seconds.store(now.unix_seconds(), Relaxed);
    }

    /// Number of uses, and the last one in seconds since 1970; 0 is never.
    pub fn uses(&self) -> (u64, i64) {
        (self.uses.count.load(Relaxed), self.uses.last_seconds.load(Relaxed))
    }

    /// Continues the counts of equal keys of an earlier configuration.
    pub fn continue_counting(&mut self, earlier: &[Key]) {
        if let Some(same) = earlier.iter().find(|key| key.label == self.label && key.secret == self.secret) {
            self.uses = Arc::clone(&same.uses);
        }
    }
}

/// The index of the matching key, after trying all of them.
pub fn first_fitting(keys: &[Key], fits: impl Fn(&Key) -> bool) -> Result<usize, BadSignature> {
    let found = keys.iter().enumerate().fold(None, |found, (at, key)| match fits(key) {
        true => found.or(Some(at)),
        false => found,
    });
    found.ok_or(BadSignature::WrongSecret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_their_provider_writes_them() {
        let read = |form: SecretForm, text: &str| {
            form.read("x", &Secret::new(text).unwrap()).map(|key| (key.secret.expose().to_vec(), key.role))
        };
        assert_eq!(
            read(SecretForm::Text, " whsec_AP8= "),
            Ok((b" whsec_AP8= ".to_vec(), Role::Shared)),
            "nothing is trimmed"
        );
        for text in ["whsec_AP8=", "AP8=", "whsec_AP8", "AP8"] {
            assert_eq!(read(SecretForm::Standard, text), Ok((vec![0, 255], Role::Shared)), "{text}");
        }
        let public = format!("whpk_{}", "A".repeat(43) + "=");
        assert_eq!(read(SecretForm::Standard, &public), Ok((vec![0; 32], Role::Public)));
        assert_eq!(read(SecretForm::Hex, "00FF"), Ok((vec![0, 255], Role::Shared)));
        assert_eq!(read(SecretForm::Standard, "whsec_"), Err("must not be empty"));
        assert_eq!(read(SecretForm::Standard, "whsec_!"), Err("is not base64"));
        assert_eq!(read(SecretForm::PublicKey, "AP8="), Err("is not a public key of 32 bytes"));
        for text in ["A".repeat(43), format!("whsk_{}==", "A".repeat(86))] {
            assert_eq!(read(SecretForm::PrivateKey, &text), Ok((vec![0; 32], Role::Private)), "{text}");
        }
        assert_eq!(read(SecretForm::PrivateKey, "AP8="), Err("is not a private key of 32 bytes"));
    }

    #[test]
    fn an_equal_key_goes_on_counting_and_another_begins_anew() {
        let key = |label: &str, secret: &str| Key::new(label, Secret::new(secret).unwrap());
        let earlier = [key("NEW", "b"), key("OLD", "a")];
        earlier[1].used(Moment::from_microseconds(7_000_000));
        let (mut same, mut other) = (key("OLD", "a"), key("OLD", "c"));
        same.continue_counting(&earlier);
        other.continue_counting(&earlier);
        assert_eq!((same.uses(), other.uses()), ((1, 7), (0, 0)));
        assert!(!format!("{same:?}").contains("\"a\""));
    }
}
