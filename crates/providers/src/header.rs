//! Strict parsing of the headers and times of a signature.

use std::borrow::Cow;

use http::HeaderMap;

use super::signature::BadSignature;
use domain::Moment;

/// The one value of a header. An absent header is `MissingHeader`. A repeated one is `DuplicateHeader`:
/// it is ambiguous which value counts.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], BadSignature> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(BadSignature::MissingHeader)?;
    if values.next().is_some() {
        return Err(BadSignature::DuplicateHeader);
    }
    Ok(value.as_bytes())
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Result<&[u8], BadSignature> {
    match single(headers, "authorization")?.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Ok(token),
        _ => Err(BadSignature::Malformed),
    }
}

/// Seconds or milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Whole seconds since 1970.
    Seconds,
    /// Whole milliseconds since 1970.
    Milliseconds,
}

impl TimeUnit {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since 1970",
            Self::Milliseconds => "milliseconds since 1970",
        }
    }
}

/// Maximum age of a signed time, and maximum time in the future, unless a source sets another. A time
/// exactly this far away is still valid.
pub const TOLERANCE_SECONDS: u32 = 300;

/// Parses a signed time in one form, a number without sign, leading zero, fraction or blanks, and checks that it is
/// within the window.
pub fn check_time(text: &[u8], unit: TimeUnit, tolerance_seconds: u32, now: Moment) -> Result<(), BadSignature> {
    let digits = match unit {
        TimeUnit::Seconds => 12,
        TimeUnit::Milliseconds => 15,
    };
    let plain = text.iter().all(u8::is_ascii_digit) && text.first().is_some_and(|first| *first != b'0');
    if !plain || text.len() > digits {
        return Err(BadSignature::MalformedTimestamp);
    }
    let number = text.iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    // The clock's fraction of a second is ignored, so that exactly the tolerance passes in both directions.
    let age_seconds = match unit {
        TimeUnit::Seconds => now.unix_seconds() - number,
        TimeUnit::Milliseconds => now.unix_seconds() - number.div_euclid(1000),
    };
    match age_seconds {
        age if age > i64::from(tolerance_seconds) => Err(BadSignature::StaleTimestamp),
        age if age < -i64::from(tolerance_seconds) => Err(BadSignature::FutureTimestamp),
        _ => Ok(()),
    }
}

/// A form's parameters (`application/x-www-form-urlencoded`), decoded, in the order of the body.
pub fn form(body: &[u8]) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(body).collect()
}

/// A form as URL-signing schemes sign it: sorted by name, bytewise, each name followed by its value without a
/// separator. Each distinct value of a repeated name counts once, in order.
pub fn sorted_form(body: &[u8]) -> String {
    let mut parameters = form(body);
    parameters.sort();
    parameters.dedup();
    parameters.into_iter().flat_map(|(name, value)| [name, value]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_form_and_a_window_that_includes_its_ends() {
        let now = Moment::from_microseconds(1_795_168_800_999_999);
        let check = |text: &str| check_time(text.as_bytes(), TimeUnit::Seconds, 300, now);
        for good in ["1795168800", "1795168500", "1795169100"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check("1795168499"), Err(BadSignature::StaleTimestamp));
        assert_eq!(check("1795169101"), Err(BadSignature::FutureTimestamp));
        let forms =
            ["", "0", "01795168800", "+1795168800", "-1", "1795168800.0", "1795168800abc", " 1795168800", "1e9"];
        for bad in forms.into_iter().chain(["१७९५१६८८००", "1795168800000"]) {
            assert_eq!(check(bad), Err(BadSignature::MalformedTimestamp), "{bad}");
        }
        let millis = |text: &str| check_time(text.as_bytes(), TimeUnit::Milliseconds, 300, now);
        assert_eq!((millis("1795168500000"), millis("1795168499999")), (Ok(()), Err(BadSignature::StaleTimestamp)));
        assert_eq!(check("999999999999"), Err(BadSignature::FutureTimestamp), "and no overflow");
    }

    #[test]
    fn a_form_is_sorted_by_bytes_and_every_value_counts_once() {
        assert_eq!(sorted_form(b"b=2&a=1&B=3"), "B3a1b2");
        assert_eq!(sorted_form(b"a=2&a=1&a=2&empty=&x=%2B1%20+"), "a1a2emptyx+1  ");
        assert_eq!(sorted_form(b""), "");
    }
}
