//! Who may read: bearer tokens, in clear or as digests.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::given::Given;
use super::inputs::Inputs;
use super::{ConfigError, complaint, complaint_about, host};
use crate::providers::encoding::decode_hex;

/// Who may read what is stored, and how browsers and crowds are met.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// Bearer tokens, any of which opens; none leaves reading open to all.
    pub tokens: Vec<Token>,
    /// Whether `/metrics` asks for no token.
    pub metrics_public: bool,
    /// Origins whose pages may read with a browser, as browsers send them; `*` for all. None by default.
    pub cors_origins: Vec<String>,
    /// Most reads a minute from one address; 0 for no limit.
    pub reads_per_minute: u32,
    /// Most believed requests a second at one door; 0 for no limit.
    pub posts_per_second: u32,
}

/// A token, or its SHA-256: whoever sees the settings then still cannot read.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// `sha256:` and 64 lower-case hexadecimal digits, or the token itself.
    fn parse(text: &[u8]) -> Option<Self> {
        match text.strip_prefix(b"sha256:") {
            Some(hex) => decode_hex(hex)?.try_into().ok().map(Self),
            None => Some(Self(Sha256::digest(text).into())),
        }
    }

    /// Whether `given` is it. Digests are compared in constant time, so neither content nor length can be felt for.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(&Sha256::digest(given)).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads what was said of reading.
pub(super) fn load(inputs: &Inputs) -> Result<AccessConfig, ConfigError> {
    let mut tokens = Vec::new();
    for token in inputs.secrets("API_TOKEN")? {
        let problem =
            || complaint_about("API_TOKEN", "holds a sha256: that is not followed by 64 small hexadecimal digits");
        tokens.push(Token::parse(token.expose()).ok_or_else(problem)?);
    }
    let given = inputs.value("POSTROOM_METRICS_PUBLIC")?;
    let metrics_public = match given.value.to_ascii_lowercase().as_str() {
        "" => tokens.is_empty(),
        "true" => true,
        "false" => false,
        _ => return Err(complaint(given, |value| format!("must be true or false, not '{value}'"))),
    };
    Ok(AccessConfig {
        tokens,
        metrics_public,
        cors_origins: cors_origins(inputs.value("POSTROOM_SERVER_CORS_ORIGINS")?)?,
        reads_per_minute: inputs.number("POSTROOM_SERVER_READS_PER_MINUTE", 0, 1 << 30)? as u32,
        posts_per_second: inputs.number("POSTROOM_DOORS_POSTS_PER_SECOND", 0, 1 << 30)? as u32,
    })
}

/// A list of origins. What would never match is refused, not kept.
fn cors_origins(given: Given) -> Result<Vec<String>, ConfigError> {
    let mut origins = Vec::new();
    for written in given.value.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
        match host::origin(written) {
            Ok(origin) if origins.contains(&origin) => {}
            Ok(origin) => origins.push(origin),
            Err(why) => {
                let problem = format!("names '{written}', which no browser sends: it {why}");
                return Err(ConfigError::Setting { said_by: given.said_by, problem });
            }
        }
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_in_clear_and_by_its_digest() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for text in ["test".to_owned(), format!("sha256:{hex}")] {
            let token = Token::parse(text.as_bytes()).unwrap();
            assert!(token.matches(b"test") && !token.matches(b"tesu") && !token.matches(&text.as_bytes()[1..]));
            assert_eq!(format!("{token:?}"), "Token(…)");
        }
        for bad in [format!("sha256:{}", &hex[1..]), format!("sha256:{}", hex.to_uppercase()), "sha256:".to_owned()] {
            assert!(Token::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
