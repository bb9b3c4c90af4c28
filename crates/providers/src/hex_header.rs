//! One header with the hexadecimal HMAC-SHA256 of the body: the original protocol's signature.

use http::HeaderMap;

use super::header::single;
use super::key::{Key, first_fitting};
use super::signature::BadSignature;

/// Checks that exactly one header `name` has the hexadecimal signature of `body` by one of `keys`; returns
/// its index. A `Rule` would give the same result; the original source uses this, which allocates nothing.
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
    use domain::Secret;
    use proptest::prelude::*;

    fn key(secret: &str) -> Key {
        Key::new(secret, Secret::new(secret).unwrap())
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-signature", http::header::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn verify(values: &[&[u8]], body: &[u8], keys: &[Key]) -> Result<usize, BadSignature> {
        verify_hex_header(&headers(values), "x-signature", body, keys)
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
