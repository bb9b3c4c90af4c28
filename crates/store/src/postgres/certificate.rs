//! The parts of an X.509 certificate that verification needs, of any
//! version. The TLS library requires extensions, which version 1 lacks.
//!
//! Source: RFC 5280, 4.1; ITU-T X.690.

use rustls::pki_types::{SignatureVerificationAlgorithm, UnixTime};

/// The tags that are parsed here.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// A parsed certificate. Nothing in it is verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certificate<'a> {
    /// Whether it is of version 1, and so without extensions.
    pub is_first_version: bool,
    /// The signed bytes.
    signed: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    /// Seconds since 1970.
    not_before: u64,
    not_after: u64,
    /// The key with its algorithm, as a whole.
    pub key: &'a [u8],
    key_algorithm: &'a [u8],
    key_bits: &'a [u8],
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Parses the parts.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = only(der, SEQUENCE)?;
        let start = outer;
        let mut fields = take(&mut outer, SEQUENCE)?;
        let signed = &start[..start.len() - outer.len()];
        let signature_algorithm = take(&mut outer, SEQUENCE)?;
        let signature = bits(take(&mut outer, BIT_STRING)?)?;
        let is_first_version = fields.first() != Some(&VERSION);
        if !is_first_version {
            any(&mut fields)?;
        }
        let _serial = any(&mut fields)?;
        let _algorithm = any(&mut fields)?;
        let issuer = take(&mut fields, SEQUENCE)?;
        let mut validity = take(&mut fields, SEQUENCE)?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let subject = take(&mut fields, SEQUENCE)?;
        let start = fields;
        let mut key_fields = take(&mut fields, SEQUENCE)?;
        let key = &start[..start.len() - fields.len()];
        let key_algorithm = take(&mut key_fields, SEQUENCE)?;
        let key_bits = bits(take(&mut key_fields, BIT_STRING)?)?;
        Some(Self {
            is_first_version,
            signed,
            issuer,
            subject,
            not_before,
            not_after,
            key,
            key_algorithm,
            key_bits,
            signature_algorithm,
            signature,
        })
    }

    /// Whether it is valid at that time.
    pub fn holds_at(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_secs())
    }

    /// Whether the key of `issuer` signed it, and it names that issuer.
    pub fn is_signed_by(&self, issuer: &Certificate<'_>, known: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        self.issuer == issuer.subject
            && known.iter().any(|algorithm| {
                algorithm.signature_alg_id().as_ref() == self.signature_algorithm
                    && algorithm.public_key_alg_id().as_ref() == issuer.key_algorithm
                    && algorithm.verify_signature(issuer.key_bits, self.signed, self.signature).is_ok()
            })
    }

    /// Whether its key made that signature, with one of these algorithms.
    pub fn signed(&self, message: &[u8], signature: &[u8], known: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        known.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == self.key_algorithm
                && algorithm.verify_signature(self.key_bits, message, signature).is_ok()
        })
    }
}

/// The next element, of any kind: its tag and its content.
fn any<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, length, rest) = match input {
        [tag, length @ ..=0x7f, rest @ ..] => (*tag, usize::from(*length), rest),
        [tag, 0x81, length, rest @ ..] => (*tag, usize::from(*length), rest),
        [tag, 0x82, high, low, rest @ ..] => (*tag, usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

fn take<'a>(input: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    any(input).filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
}

/// The content of an input that consists of one element.
fn only(mut input: &[u8], wanted: u8) -> Option<&[u8]> {
    let content = take(&mut input, wanted)?;
    input.is_empty().then_some(content)
}

/// A bit string of whole octets.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

/// `YYMMDDHHMMSSZ` (1950 to 2049) or `YYYYMMDDHHMMSSZ`; a time before 1970 counts as 1970.
fn time(input: &mut &[u8]) -> Option<u64> {
    let (tag, text) = any(input)?;
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<i16>().ok();
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (number(0, 2).map(|year| if year < 50 { 2_000 + year } else { 1_900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |at: usize| number(rest + 2 * at, rest + 2 * at + 2).and_then(|part| i8::try_from(part).ok());
    let date = jiff::civil::DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(date).ok()?.as_second();
    Some(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_none() {
        for der in
            [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x00], &[0x30, 0x03, 0x30, 0x05, 0x00], &[0x30, 0x84, 1, 1, 1, 1]]
        {
            assert_eq!(Certificate::read(der), None, "{der:?}");
        }
    }

    #[test]
    fn times_of_both_sorts() {
        let read = |tag: u8, text: &str| {
            let der = [&[tag, text.len() as u8], text.as_bytes()].concat();
            time(&mut der.as_slice())
        };
        assert_eq!(read(UTC_TIME, "700101000001Z"), Some(1));
        assert_eq!(read(UTC_TIME, "490101000000Z"), Some(2_493_072_000));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Some(0));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        for bad in ["7001010000Z", "701301000000Z", "700101000000", "70010100000éZ"] {
            assert_eq!(read(UTC_TIME, bad), None, "{bad}");
        }
    }
}
