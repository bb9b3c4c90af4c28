//! Two kinds of time: the sender's (`Timestamp`, a fixed text form that sorts bytewise) and our clock's (`Moment`).

use super::Invalid;

/// The contract's one form of time: `YYYY-MM-DDTHH:MM:SSZ`, an existing date and time. Bytewise order is time order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp([u8; 20]);

impl Timestamp {
    /// Parses exactly that form: no fraction, offset, leap second, hour 24 or lower case, because each of these
    /// would break the order of text.
    pub fn parse(raw: &str) -> Result<Self, Invalid> {
        if !raw.ends_with('Z') {
            return Err(Invalid::Rule("timestamp must be ISO-8601 UTC with Z suffix"));
        }
        const FORM: Invalid = Invalid::Rule("timestamp must be ISO-8601 format: YYYY-MM-DDTHH:MM:SSZ");
        let bytes: [u8; 20] = raw.as_bytes().try_into().map_err(|_| FORM)?;
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().try_fold(0u16, |sum, byte| match byte {
                b'0'..=b'9' => Ok(sum * 10 + u16::from(byte - b'0')),
                _ => Err(FORM),
            })
        };
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if separators.iter().any(|(at, expected)| bytes[*at] != *expected) {
            return Err(FORM);
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let date = jiff::civil::Date::new(year as i16, month as i8, day as i8);
        if date.is_err() || year == 0 || hour > 23 || minute > 59 || second > 59 {
            return Err(Invalid::Rule("timestamp must be a real date and time"));
        }
        Ok(Self(bytes))
    }

    /// The first whole second that is not before a time in RFC 3339 form: with `Z` or an offset, with or without
    /// a fraction. A blank is read as `+`: a URL decodes an unescaped `+` as a blank. An offset needs no colon.
    ///
    /// Stored times are whole seconds, so the next second is correct for both ends of a range. A time outside the
    /// years 1 to 9999 becomes the nearest valid time.
    pub fn at_or_after(raw: &str) -> Result<Self, Invalid> {
        const FORM: Invalid =
            Invalid::Rule("timestamp must be a date and time with Z or an offset, such as 2025-01-15T10:00:00Z");
        let (whole, rest) = raw.split_at_checked(19).ok_or(FORM)?;
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("0", rest),
        };
        let offset_seconds = if zone == "Z" { Some(0) } else { offset_seconds(zone) };
        let (Some(offset_seconds), false) = (offset_seconds, fraction.is_empty()) else { return Err(FORM) };
        let second = Self::parse(&format!("{whole}Z")).map_err(|error| match error {
            Invalid::Rule(rule) if rule.contains("real") => error,
            _ => FORM,
        })?;
        let rest = i64::from(fraction.bytes().any(|digit| digit != b'0'));
        Ok(second.plus(rest - offset_seconds))
    }

    /// This many seconds later, or the latest time.
    fn plus(self, seconds: i64) -> Self {
        let (first, last) = (*b"0001-01-01T00:00:00Z", *b"9999-12-31T23:59:59Z");
        let local = self.as_str().trim_end_matches('Z').parse::<jiff::civil::DateTime>().expect("it was parsed before");
        let end = if seconds < 0 { first } else { last };
        let moved = local.saturating_add(jiff::SignedDuration::from_secs(seconds));
        Self::parse(&format!("{moved}Z")).unwrap_or(Self(end))
    }

    /// The second this many seconds after 1970. None outside the years 1 to 9999.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let text = jiff::Timestamp::from_second(seconds).ok()?.to_string();
        Self::parse(&text).ok()
    }

    /// The timestamp as written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII was accepted")
    }
}

/// The seconds of a local time ahead of UTC, from an offset such as `+02:00`.
fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, digits) = match zone.as_bytes().first()? {
        b'+' | b' ' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        5 => digits.split_once(':').filter(|(hours, _)| hours.len() == 2)?,
        4 => digits.split_at_checked(2)?,
        _ => return None,
    };
    let number = |digits: &str, most: i64| {
        let number: i64 = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
        (number <= most).then_some(number)
    };
    Some(sign * (number(hours, 23)? * 3600 + number(minutes, 59)? * 60))
}

impl std::fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reading of our own clock (UTC). Read once per request, then passed as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(jiff::Timestamp);

impl Moment {
    /// Reads the clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// A date and time with an offset, as in RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// A known moment, in microseconds since 1970, for tests. It is limited to the years -9999 to 9999.
    pub fn from_microseconds(microseconds: i64) -> Self {
        let end = if microseconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Self(jiff::Timestamp::from_microsecond(microseconds).unwrap_or(end))
    }

    /// The contract's form, without the fraction of a second.
    pub fn to_timestamp(self) -> Timestamp {
        let clamped = self.unix_seconds().clamp(-62_135_596_800, 253_402_207_200);
        Timestamp::from_unix_seconds(clamped).expect("within the years 1 to 9999")
    }

    /// Whole seconds since 1970, for metrics.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Whole milliseconds since 1970; 0 before that.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.as_millisecond()).unwrap_or(0)
    }

    /// `YYYY-MM-DDTHH:MM:SS.ffffffZ`, the form of `created_at`.
    pub fn to_iso_micros(self) -> String {
        format!("{:.6}", self.0)
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`, the form of HTTP. It supports no years before 0, so 1970 is the minimum.
    pub fn to_http_date(self) -> String {
        let moment = self.0.max(jiff::Timestamp::UNIX_EPOCH);
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        printer.timestamp_to_rfc9110_string(&moment).expect("the years 1970 to 9999 have this form")
    }

    /// `YYYY-MM-DDTHH:MM:SS.fffZ`, the form of log lines, appended to `out`.
    pub fn write_iso_millis(self, out: &mut String) {
        use std::fmt::Write;
        write!(out, "{:.3}", self.0).expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(raw: &str) -> &'static str {
        match Timestamp::parse(raw) {
            Err(Invalid::Rule(rule)) => rule,
            other => panic!("{raw}: {other:?}"),
        }
    }

    #[test]
    fn the_contracts_form_and_nothing_else() {
        for good in ["2025-01-15T10:00:00Z", "2024-02-29T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert_eq!(Timestamp::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "2025-01-15T10:00:00", "2025-01-15T10:00:00z", "2025-01-15T10:00:00+00:00"] {
            assert_eq!(rule(bad), "timestamp must be ISO-8601 UTC with Z suffix", "{bad}");
        }
        for bad in [
            "Z",
            "2025-1-5T1:0:0Z",
            "2025-01-15 10:00:00Z",
            "2025-01-15t10:00:00Z",
            "2025-01-15T10:00Z",
            "20250115T100000Z",
            "2025-01-15T10:00:00.5Z",
            "2025-01-15T10:00:0१Z",
            "+025-01-15T10:00:00Z",
        ] {
            assert_eq!(rule(bad), "timestamp must be ISO-8601 format: YYYY-MM-DDTHH:MM:SSZ", "{bad}");
        }
        for bad in [
            "2025-02-30T10:00:00Z",
            "2025-02-29T10:00:00Z",
            "2025-13-01T10:00:00Z",
            "2025-00-01T10:00:00Z",
            "2025-01-15T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "2025-01-15T10:60:00Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(rule(bad), "timestamp must be a real date and time", "{bad}");
        }
    }

    #[test]
    fn times_in_questions_have_fractions_and_offsets() {
        let cases = [
            ("2025-01-15T10:00:00Z", "2025-01-15T10:00:00Z"),
            ("2025-01-15T10:00:00.000Z", "2025-01-15T10:00:00Z"),
            ("2025-01-15T10:00:00.001Z", "2025-01-15T10:00:01Z"),
            ("2025-12-31T23:59:59.9999999Z", "2026-01-01T00:00:00Z"),
            ("2025-01-15T12:00:00+02:00", "2025-01-15T10:00:00Z"),
            ("2025-01-15T12:00:00 02:00", "2025-01-15T10:00:00Z"),
            ("2025-01-15T12:00:00+0200", "2025-01-15T10:00:00Z"),
            ("2025-01-15T04:30:00.5-05:30", "2025-01-15T10:00:01Z"),
            ("2025-01-15T10:00:00-00:00", "2025-01-15T10:00:00Z"),
            ("2025-01-01T00:30:00+01:00", "2024-12-31T23:30:00Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00Z"),
        ];
        for (raw, expected) in cases {
            assert_eq!(
                Timestamp::at_or_after(raw).map(|time| time.as_str().to_owned()).as_deref(),
                Ok(expected),
                "{raw}"
            );
        }
        for bad in [
            "",
            "yesterday",
            "2025-01-15",
            "2025-01-15T10:00:00",
            "2025-01-15T10:00:00.Z",
            "2025-01-15T10:00:00.5",
            "2025-01-15T10:00:00,5Z",
            "2025-01-15t10:00:00Z",
            "2025-01-15 10:00:00Z",
            "2025-01-15T10:00:00z",
            "2025-01-15T10:00:00+2:00",
            "2025-01-15T10:00:00+24:00",
            "2025-01-15T10:00:00+02:60",
            "2025-01-15T10:00:00+02:00Z",
            "2025-01-15T10:00:00+0é0",
            "2025-01-15T10:00:00é",
            " 2025-01-15T10:00:00Z",
            "2025-02-30T10:00:00+01:00",
        ] {
            assert!(matches!(Timestamp::at_or_after(bad), Err(Invalid::Rule(_))), "{bad:?}");
        }
    }

    #[test]
    fn seconds_since_1970_become_the_contracts_form() {
        let text = |seconds| Timestamp::from_unix_seconds(seconds).map(|timestamp| timestamp.as_str().to_owned());
        assert_eq!(text(1_736_935_200).unwrap(), "2025-01-15T10:00:00Z");
        assert_eq!(text(0).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(text(-62_135_596_800).unwrap(), "0001-01-01T00:00:00Z");
        for beyond in [i64::MIN, -62_135_596_801, 253_402_300_800, i64::MAX] {
            assert_eq!(text(beyond), None, "{beyond}");
        }
        assert_eq!(Moment::from_microseconds(1_999_999).to_timestamp().as_str(), "1970-01-01T00:00:01Z");
        for far in [i64::MIN, i64::MAX] {
            Moment::from_microseconds(far).to_timestamp();
        }
    }

    #[test]
    fn our_clock_is_written_with_a_fixed_number_of_digits() {
        let moment = Moment::from_microseconds(1_736_935_200_000_000);
        assert_eq!(moment.to_iso_micros(), "2025-01-15T10:00:00.000000Z");
        let mut line = String::new();
        Moment::from_microseconds(1_736_935_200_123_456).write_iso_millis(&mut line);
        assert_eq!(line, "2025-01-15T10:00:00.123Z");
        assert!(Moment::from_microseconds(i64::MAX).to_iso_micros().starts_with("9999-"));
    }
}
