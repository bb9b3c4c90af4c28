//! The `Date` of responses. hyper would add one that it updates every second. After the clock was set back,
//! that value does not change until the clock has caught up.

use std::cell::RefCell;

use hyper::header::HeaderValue;

use domain::Moment;

thread_local! {
    /// The last second that was written, and its text.
    static LAST: RefCell<Option<(i64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The moment in the form of `Date` (RFC 9110, §5.6.7). The text is written again when the second changes,
/// forwards or backwards.
pub fn value(now: Moment) -> HeaderValue {
    let second = now.unix_seconds();
    LAST.with_borrow_mut(|last| match last {
        Some((known, value)) if *known == second => value.clone(),
        _ => {
            let value = HeaderValue::try_from(now.to_http_date()).expect("letters, digits, commas and colons");
            last.insert((second, value)).1.clone()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_clock_both_ways() {
        let at = |seconds: i64| value(Moment::from_microseconds(seconds * 1_000_000 + 999_999));
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (784_108_177, "Sun, 06 Nov 1994 07:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 GMT"),
            (1, "Thu, 01 Jan 1970 00:00:01 GMT"),
        ] {
            assert_eq!(at(seconds), text);
        }
        for far in [i64::MIN, i64::MAX] {
            assert_eq!(value(Moment::from_microseconds(far)).len(), 29);
        }
    }
}
