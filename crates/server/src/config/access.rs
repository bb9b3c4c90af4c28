//! Access rights: tokens with a scope each, in clear or as digests.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::given::Given;
use super::inputs::Inputs;
use super::{ConfigError, complaint, complaint_about, host};
use providers::encoding::decode_hex;

/// Access to reads, with the rules for browsers and rates.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// The tokens and their scopes.
    pub tokens: Tokens,
    /// Whether `/metrics` needs no token.
    pub metrics_public: bool,
    /// Origins whose pages may read with a browser, in browsers' form; `*` for all. None by default.
    pub cors_origins: Vec<String>,
    /// Maximum reads per minute from one address; 0: no limit.
    pub reads_per_minute: u32,
    /// Maximum verified requests per second at one source; 0: no limit.
    pub posts_per_second: u32,
}

/// The rights of a token's owner. A higher scope includes the lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Read stored data.
    Read,
    /// Make the service act.
    Operate,
    /// Delete stored data.
    Admin,
}

impl Scope {
    /// All of them, from the lowest.
    const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// The setting that has its tokens.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Read => "API_TOKEN",
            Self::Operate => "POSTROOM_API_OPERATOR_TOKEN",
            Self::Admin => "POSTROOM_API_ADMIN_TOKEN",
        }
    }

    /// This scope and the higher ones.
    pub fn sufficient(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |scope| *scope >= self)
    }
}

/// All tokens.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<(Scope, Token)>);

impl Tokens {
    /// Reads the settings of all scopes.
    fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        let mut tokens = Vec::new();
        for scope in Scope::ALL {
            let setting = scope.setting();
            let problem = || {
                complaint_about(setting, "contains a sha256: that is not followed by 64 lower-case hexadecimal digits")
            };
            for secret in inputs.secrets(setting)? {
                let token = Token::parse(secret.expose()).ok_or_else(problem)?;
                if let Some((lower, _)) = tokens.iter().find(|(lower, known)| *lower < scope && *known == token) {
                    inputs.caution(setting, shared_with(*lower));
                }
                tokens.push((scope, token));
            }
        }
        Ok(Self(tokens))
    }

    /// Tokens of these scopes.
    #[cfg(test)]
    pub fn of(tokens: &[(Scope, &str)]) -> Self {
        let parsed = |(scope, text): &(Scope, &str)| Some((*scope, Token::parse(text.as_bytes())?));
        Self(tokens.iter().filter_map(parsed).collect())
    }

    /// Whether everyone may read. Only tokens for reading restrict it.
    pub fn leave_reading_open(&self) -> bool {
        !self.0.iter().any(|(scope, _)| *scope == Scope::Read)
    }

    /// Whether any token has a scope.
    pub fn has(&self, needed: Scope) -> bool {
        self.0.iter().any(|(scope, _)| *scope >= needed)
    }

    /// The highest scope of a token; none for an unknown one. Every token is compared, each in constant time.
    pub fn scope_of(&self, given: &[u8]) -> Option<Scope> {
        self.0.iter().filter(|(_, token)| token.matches(given)).map(|(scope, _)| *scope).max()
    }
}

/// A caution about a token that is in two settings.
fn shared_with(lower: Scope) -> &'static str {
    match lower {
        Scope::Read => "has a token that API_TOKEN has too: it has the higher scope for everyone who knows it",
        _ => "has a token that POSTROOM_API_OPERATOR_TOKEN has too: it has the higher scope for everyone who knows it",
    }
}

/// A token, or its SHA-256: a reader of the settings still cannot read messages.
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

    /// Whether `given` matches. Digests are compared in constant time, so neither content nor length leaks.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(&Sha256::digest(given)).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads the settings of access.
pub(super) fn load(inputs: &Inputs) -> Result<AccessConfig, ConfigError> {
    let tokens = Tokens::load(inputs)?;
    let given = inputs.value("POSTROOM_METRICS_PUBLIC")?;
    let metrics_public = match given.value.to_ascii_lowercase().as_str() {
        "" => tokens.leave_reading_open(),
        "true" => true,
        "false" => false,
        _ => return Err(complaint(given, |value| format!("must be true or false, not '{value}'"))),
    };
    Ok(AccessConfig {
        tokens,
        metrics_public,
        cors_origins: cors_origins(inputs.value("POSTROOM_SERVER_CORS_ORIGINS")?)?,
        reads_per_minute: inputs.number("POSTROOM_SERVER_READS_PER_MINUTE", 0, 1 << 30)? as u32,
        posts_per_second: inputs.number("POSTROOM_SOURCES_POSTS_PER_SECOND", 0, 1 << 30)? as u32,
    })
}

/// A list of origins. One that could never match is refused.
fn cors_origins(given: Given) -> Result<Vec<String>, ConfigError> {
    let mut origins = Vec::new();
    for written in given.value.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
        match host::origin(written) {
            Ok(origin) if origins.contains(&origin) => {}
            Ok(origin) => origins.push(origin),
            Err(why) => {
                let problem = format!("contains '{written}', which no browser sends: it {why}");
                return Err(ConfigError::Setting { origin: given.origin, problem });
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
