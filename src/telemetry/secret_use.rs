//! How often each secret was right, for `/metrics`.

use super::exposition::Exposition;

/// How often a secret was right.
#[derive(Debug, Clone)]
pub struct SecretUse {
    /// The door.
    pub source: String,
    /// Where the secret stands; nothing of the secret itself.
    pub secret: String,
    /// How often.
    pub count: u64,
    /// When last, in seconds since 1970; 0: never.
    pub last_seconds: i64,
}

/// An operator who changes a secret wants to know when nobody signs with the old one any more.
pub(super) fn encode_secrets(out: &mut Exposition, secrets: &[SecretUse]) {
    out.family("postroom_secret_uses_total", "counter", "Requests that a secret vouched for.");
    for used in secrets {
        out.sample("postroom_secret_uses_total", &[("source", &used.source), ("secret", &used.secret)], used.count);
    }
    let name = "postroom_secret_last_used_timestamp_seconds";
    out.family(name, "gauge", "When a secret was last used; 0: never.");
    for used in secrets {
        out.sample(name, &[("source", &used.source), ("secret", &used.secret)], used.last_seconds);
    }
}
