//! JSON Web Tokens (RFC 7519) signed by HMAC (RFC 7515, RFC 7518 §3.2), as far as providers use them.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::algorithm::Algorithm;
use super::encoding::{decode_base64url, encode_base64url, encode_hex};
use super::header::TOLERANCE_SECONDS;
use super::key::Key;
use super::key::first_fitting;
use super::signature::BadSignature;
use domain::Moment;

/// Maximum bytes of a token.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// The claims of a token, and the key that verified it.
#[derive(Debug)]
pub struct Token {
    /// The index of the key.
    pub key: usize,
    /// The claims.
    pub claims: Map<String, Value>,
}

impl Token {
    /// Whether the claim is the SHA-256 of these bytes, in hexadecimal.
    pub fn digests(&self, claim: &str, bytes: &[u8]) -> bool {
        self.claims.get(claim).and_then(Value::as_str) == Some(&encode_hex(&Sha256::digest(bytes)))
    }
}

/// Verifies a token's signature and times. `allowed` has the permitted values of `alg`, never `none`. The
/// token's own `alg` is not trusted.
pub fn verify(token: &[u8], allowed: &[&str], keys: &[Key], now: Moment) -> Result<Token, BadSignature> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(BadSignature::Malformed);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadSignature::Malformed);
    };
    let header = object(head)?;
    let name = header.get("alg").and_then(Value::as_str).ok_or(BadSignature::Malformed)?;
    let algorithm = named(name).filter(|_| allowed.contains(&name)).ok_or(BadSignature::WrongAlgorithm)?;
    // A critical extension must be understood, and this verifier supports none (RFC 7515, §4.1.11).
    if header.contains_key("crit") {
        return Err(BadSignature::Malformed);
    }
    let signature = decode_base64url(signature).ok_or(BadSignature::Malformed)?;
    if signature.len() != algorithm.signature_bytes() {
        return Err(BadSignature::Malformed);
    }
    let key = first_fitting(keys, |key| algorithm.verifies(key.secret.expose(), &[head, b".", body], &signature))?;
    let claims = object(body)?;
    check_times(&claims, now)?;
    Ok(Token { key, claims })
}

fn named(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HmacSha256),
        "HS384" => Some(Algorithm::HmacSha384),
        "HS512" => Some(Algorithm::HmacSha512),
        _ => None,
    }
}

fn object(part: &[u8]) -> Result<Map<String, Value>, BadSignature> {
    let bytes = decode_base64url(part).ok_or(BadSignature::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| BadSignature::Malformed)
}

/// Checks `exp`, `nbf` and `iat`, with leeway for clocks. A token without `exp` and `iat` would never expire.
fn check_times(claims: &Map<String, Value>, now: Moment) -> Result<(), BadSignature> {
    let (now, leeway) = (now.unix_seconds(), i64::from(TOLERANCE_SECONDS));
    let claim = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let number = value.as_i64().or_else(|| value.as_f64().map(|number| number as i64));
            number.map(|number| Some(number.clamp(0, 1 << 40))).ok_or(BadSignature::MalformedTimestamp)
        }
    };
    let (expires, begins, issued) = (claim("exp")?, claim("nbf")?, claim("iat")?);
    match (expires, issued) {
        (Some(expires), _) if now > expires + leeway => return Err(BadSignature::StaleTimestamp),
        (None, Some(issued)) if now > issued + leeway => return Err(BadSignature::StaleTimestamp),
        (None, None) => return Err(BadSignature::MalformedTimestamp),
        _ => {}
    }
    let ahead = |time: Option<i64>| time.is_some_and(|time| time > now + leeway);
    if ahead(begins) || ahead(issued) { Err(BadSignature::FutureTimestamp) } else { Ok(()) }
}

/// `Bearer` and a token without its signature, completed with the signature by each key.
pub fn completions(bearer: &str, keys: &[Key]) -> Vec<String> {
    let content = bearer.split_once(' ').map(|(_, token)| token.trim_end_matches('.')).unwrap_or_default();
    let header = content.split('.').next().and_then(|head| object(head.as_bytes()).ok());
    let name = header.as_ref().and_then(|header| header.get("alg")?.as_str());
    let Some(algorithm) = name.and_then(named) else { return Vec::new() };
    let signatures = keys.iter().filter_map(|key| algorithm.sign(key.secret.expose(), &[content.as_bytes()]));
    signatures.map(|signature| format!("{bearer}{}", encode_base64url(&signature))).collect()
}

/// A token that `key` signs with HS256, for tests.
pub fn sign(claims: &Value, key: &Key) -> String {
    let head = encode_base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let content = format!("{head}.{}", encode_base64url(claims.to_string().as_bytes()));
    let signature = Algorithm::HmacSha256.sign(key.secret.expose(), &[content.as_bytes()]).unwrap_or_default();
    format!("{content}.{}", encode_base64url(&signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Secret;
    use serde_json::json;

    const NOW: i64 = 1_795_168_800;

    fn keys() -> Vec<Key> {
        ["old", "new"].map(|secret| Key::new(secret, Secret::new(secret).unwrap())).to_vec()
    }

    fn check(token: &str) -> Result<usize, BadSignature> {
        let now = Moment::from_microseconds(NOW * 1_000_000);
        verify(token.as_bytes(), &["HS256"], &keys(), now).map(|token| token.key)
    }

    #[test]
    fn the_published_example_verifies() {
        // RFC 7515, appendix A.1.
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let secret =
            decode_base64url(b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
                .unwrap();
        let keys = [Key::new("rfc", Secret::new(secret).unwrap())];
        let at =
            |seconds: i64| verify(token.as_bytes(), &["HS256"], &keys, Moment::from_microseconds(seconds * 1_000_000));
        assert_eq!(at(1_300_819_380).unwrap().claims["iss"], "joe");
        assert_eq!(at(1_300_819_380 + 301).unwrap_err(), BadSignature::StaleTimestamp);
    }

    #[test]
    fn every_other_token_is_refused_with_its_reason() {
        let key = &keys()[1];
        let good = sign(&json!({"iat": NOW}), key);
        assert_eq!(check(&good), Ok(1));
        assert_eq!(
            check(&sign(&json!({"iat": NOW}), &Key::new("x", Secret::new("x").unwrap()))),
            Err(BadSignature::WrongSecret)
        );
        let cases = [
            (json!({}), BadSignature::MalformedTimestamp),
            (json!({"exp": "soon"}), BadSignature::MalformedTimestamp),
            (json!({"exp": NOW - 301}), BadSignature::StaleTimestamp),
            (json!({"iat": NOW - 301}), BadSignature::StaleTimestamp),
            (json!({"iat": NOW + 301}), BadSignature::FutureTimestamp),
            (json!({"exp": NOW + 900, "nbf": NOW + 301}), BadSignature::FutureTimestamp),
        ];
        for (claims, expected) in cases {
            assert_eq!(check(&sign(&claims, key)), Err(expected), "{claims}");
        }
        let (head, rest) = good.split_once('.').unwrap();
        for (alg, expected) in [("none", BadSignature::WrongAlgorithm), ("HS512", BadSignature::WrongAlgorithm)] {
            let forged = encode_base64url(format!(r#"{{"alg":"{alg}"}}"#).as_bytes());
            assert_eq!(check(&format!("{forged}.{rest}")), Err(expected), "{alg}");
        }
        let body = rest.split_once('.').unwrap().0;
        for bad in [
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            format!("{good}.x"),
            format!("{good}="),
            String::new(),
        ] {
            assert_eq!(check(&bad), Err(BadSignature::Malformed), "{bad}");
        }
    }
}
