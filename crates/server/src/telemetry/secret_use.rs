//! How often each secret verified a request, for `/metrics`.

use super::exposition::Exposition;

/// How often a secret verified a request.
#[derive(Debug, Clone)]
pub struct SecretUse {
    /// The source.
    pub source: String,
    /// The place of the secret, without any part of the secret.
    pub secret: String,
    /// How often.
    pub count: u64,
    /// The last time, in seconds since 1970; 0: never.
    pub last_seconds: i64,
}

/// An operator who rotates a secret needs to know when the old one is no longer used.
pub(super) fn encode_secrets(out: &mut Exposition, secrets: &[SecretUse]) {
    out.family("postroom_secret_uses_total", "counter", "Requests verified by a secret.");
    for used in secrets {
        out.sample("postroom_secret_uses_total", &[("source", &used.source), ("secret", &used.secret)], used.count);
    }
    let name = "postroom_secret_last_used_timestamp_seconds";
    out.family(name, "gauge", "Time of the last use of a secret; 0: never.");
    for used in secrets {
        out.sample(name, &[("source", &used.source), ("secret", &used.secret)], used.last_seconds);
    }
}
