//! Sealed proofs. Some proofs are secrets, or as good as one for a while. A seal lets us keep a refused
//! request and verify it later without revealing the proof. It is an HMAC with the keeper's key. It can only
//! be compared with the proofs that our own secrets produce.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use super::algorithm::Algorithm;
use super::encoding::{decode_hex, encode_hex};
use super::header::single;
use super::rule::Proof;
use super::{Source, jwt};

/// Bytes of the sealing key.
pub const KEY_BYTES: usize = 32;

/// A proof as received. It may only be written as a seal.
pub struct Presented {
    header: HeaderName,
    value: Vec<u8>,
    /// Its public part: for a token, everything except its signature.
    shown: String,
}

/// A proof that only our own secrets can reproduce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its header.
    pub header: String,
    /// Its public part.
    pub shown: String,
    /// The seal, in hexadecimal.
    pub seal: String,
}

impl Presented {
    /// The same, sealed.
    pub fn seal(&self, key: &[u8; KEY_BYTES]) -> Sealed {
        let seal = encode_hex(&seal(key, &self.value));
        Sealed { header: self.header.as_str().to_owned(), shown: self.shown.clone(), seal }
    }
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Presented(…)")
    }
}

impl Source {
    /// Whether the proof of a request is the secret itself: then any header may contain it by mistake.
    pub fn shows_secret(&self) -> bool {
        self.options.header.is_some() || self.rule().is_some_and(|rule| rule.proof == Proof::Secret)
    }

    /// The proof of a request, if it must not be kept in clear. None if it is a signature of the
    /// body, which is useless for other bodies, or if it is repeated.
    pub fn presented(&self, headers: &HeaderMap) -> Option<Presented> {
        let header = self.sealed_header()?;
        let value = single(headers, &header).ok()?.to_vec();
        let shown = match self.shows_secret() {
            true => String::new(),
            false => {
                let token = std::str::from_utf8(&value).ok()?;
                token[..=token.rfind('.')?].to_owned()
            }
        };
        Some(Presented { header: HeaderName::try_from(header).ok()?, value, shown })
    }

    /// The sealed header, if one of this source's secrets produces the same seal. All secrets are tried.
    pub fn unseal(&self, sealed: &Sealed, key: &[u8; KEY_BYTES]) -> Option<(HeaderName, HeaderValue)> {
        let header = self.sealed_header().filter(|header| *header == sealed.header)?;
        let expected = decode_hex(sealed.seal.as_bytes())?;
        let candidates: Vec<Vec<u8>> = match self.shows_secret() {
            true => {
                let prefix = self.options.header.is_none().then(|| self.rule()).flatten().map(|rule| &rule.prefix);
                let prefix = prefix.map(|prefix| prefix.as_bytes()).unwrap_or_default();
                self.keys.iter().map(|own| [prefix, own.secret.expose()].concat()).collect()
            }
            false => jwt::completions(&sealed.shown, &self.keys).into_iter().map(String::into_bytes).collect(),
        };
        let found = candidates.into_iter().fold(None, |found, candidate| {
            let fits: bool = seal(key, &candidate).ct_eq(&expected).into();
            if fits { Some(candidate) } else { found }
        });
        Some((HeaderName::try_from(header).ok()?, HeaderValue::try_from(found?).ok()?))
    }

    /// The header whose value must not be kept in clear.
    pub fn sealed_header(&self) -> Option<String> {
        let rule = self.rule().filter(|rule| matches!(rule.proof, Proof::Secret | Proof::Token { .. }));
        let token = self.scheme.by_bearer.then(|| AUTHORIZATION.as_str().to_owned());
        self.options.header.clone().or_else(|| rule.map(|rule| rule.header.to_string())).or(token)
    }
}

fn seal(key: &[u8; KEY_BYTES], value: &[u8]) -> Vec<u8> {
    Algorithm::HmacSha256.sign(key, &[value]).expect("a secret can sign")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Request, Scheme};
    use domain::{Moment, Secret};

    const KEY: [u8; KEY_BYTES] = [9; KEY_BYTES];

    fn source(kind: &str, secrets: &[&str]) -> Source {
        let keys = secrets.iter().map(|secret| Key::new(secret, Secret::new(*secret).unwrap())).collect();
        Source::new("x", Scheme::find(kind).unwrap(), keys)
    }

    fn sealed(sender: &Source) -> (HeaderMap, Sealed) {
        let own = HeaderMap::new();
        let request = Request { headers: &own, body: b"{}", base_url: None, target: "/" };
        let headers = sender.sign(&request, "1", Moment::from_microseconds(1_736_935_200_000_000)).unwrap();
        let sealed = sender.presented(&headers).unwrap().seal(&KEY);
        (headers, sealed)
    }

    #[test]
    fn only_the_secret_that_was_shown_opens_the_seal() {
        for kind in ["telegram", "evolution", "vonage"] {
            let (headers, sealed) = sealed(&source(kind, &["right"]));
            let (name, value) = source(kind, &["wrong", "right", "other"]).unseal(&sealed, &KEY).expect(kind);
            assert_eq!(headers[&name], value, "{kind}: as it came");
            assert!(!format!("{sealed:?}").contains("right"), "{sealed:?}");
            assert!(!sealed.shown.contains(headers[&name].to_str().unwrap().rsplit('.').next().unwrap()), "{sealed:?}");
            assert_eq!(source(kind, &["wrong"]).unseal(&sealed, &KEY), None, "{kind}");
            assert_eq!(source(kind, &["right"]).unseal(&sealed, &[8; KEY_BYTES]), None, "{kind}: of another keeper");
            let moved = Sealed { header: "x-other".to_owned(), ..sealed };
            assert_eq!(source(kind, &["right"]).unseal(&moved, &KEY), None, "{kind}: in another header");
        }
    }

    #[test]
    fn signatures_of_bodies_need_no_seal_and_broken_tokens_have_none() {
        assert!(source("whatsapp", &["s"]).presented(&sealed(&source("telegram", &["s"])).0).is_none());
        let mut headers = HeaderMap::new();
        for broken in ["Bearer", "Bearer abc", ""] {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(broken));
            assert!(source("vonage", &["s"]).presented(&headers).is_none(), "{broken}");
        }
        let sealed = Sealed { header: "authorization".into(), shown: "Bearer e30.x.".into(), seal: "zz".into() };
        assert_eq!(source("vonage", &["s"]).unseal(&sealed, &KEY), None);
    }
}
