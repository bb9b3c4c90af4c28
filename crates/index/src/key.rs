//! Stored values as byte strings that sort like SQLite's values: NULL before numbers, numbers before texts, texts
//! before blobs, texts and blobs bytewise.

/// A stored value of a row. Rows of other programs may contain any value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text, which need not be UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

const NULL: u8 = 1;
const NUMBER: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

/// Appends a value. Bytes that follow do not change the order: the end of a text sorts before other bytes.
pub fn put(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Integer(number) => put_real(number as f64, out),
        Value::Real(number) => put_real(number, out),
        Value::Text(bytes) => put_bytes(TEXT, bytes, out),
        Value::Blob(bytes) => put_bytes(BLOB, bytes, out),
    }
}

fn put_real(number: f64, out: &mut Vec<u8>) {
    let bits = number.to_bits();
    let sortable = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    out.push(NUMBER);
    out.extend(sortable.to_be_bytes());
}

/// Zero bytes are written as 00 FF, and the end as 00.
fn put_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    if memchr::memchr(0, bytes).is_none() {
        out.extend_from_slice(bytes);
    } else {
        bytes.iter().for_each(|byte| if *byte == 0 { out.extend([0, 0xff]) } else { out.push(*byte) });
    }
    out.push(0);
}

/// The place of a message in the order of listings: `ts`, then `message_id`.
pub fn place(ts: Value<'_>, id: Value<'_>) -> Vec<u8> {
    let length = |value| match value {
        Value::Text(bytes) | Value::Blob(bytes) => bytes.len() + 2,
        _ => 9,
    };
    let mut key = Vec::with_capacity(length(ts) + length(id));
    put(ts, &mut key);
    put(id, &mut key);
    key
}

/// A single value: a sender, or the prefix of every place with this `ts`.
pub fn single(value: Value<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    put(value, &mut key);
    key
}

/// The length of the first value of a key; the whole length if the value is cut off.
pub fn length_of_first(key: &[u8]) -> usize {
    match key.first() {
        Some(&TEXT | &BLOB) => {
            let mut at = 1;
            while let Some(zero) = key.get(at..).and_then(|rest| memchr::memchr(0, rest)) {
                at += zero + 1;
                if key.get(at) != Some(&0xff) {
                    return at;
                }
                at += 1;
            }
            key.len()
        }
        Some(&NUMBER) => key.len().min(9),
        _ => key.len().min(1),
    }
}

/// The bytes of the first value of a key, if it is a text or a blob.
pub fn text_of(key: &[u8]) -> Option<Vec<u8>> {
    let (&tag, rest) = key.split_first()?;
    if tag != TEXT && tag != BLOB {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = rest.iter();
    loop {
        match (rest.next()?, rest.as_slice()) {
            (0, [0xff, ..]) => {
                rest.next();
                bytes.push(0);
            }
            (0, _) => return Some(bytes),
            (byte, _) => bytes.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 2, 0x61, 0xfe, 0xff]), 0..5)
    }

    /// Kind 0 is NULL, 1 and 2 are numbers, 3 a text, 4 a blob.
    fn value<'a>(kind: u8, number: i64, bytes: &'a [u8]) -> Value<'a> {
        match kind {
            0 => Value::Null,
            1 => Value::Integer(number),
            2 => Value::Real(number as f64 + 0.5),
            3 => Value::Text(bytes),
            _ => Value::Blob(bytes),
        }
    }

    fn compare(a: Value<'_>, b: Value<'_>) -> Ordering {
        let real = |value| match value {
            Value::Integer(number) => Some(number as f64),
            Value::Real(number) => Some(number),
            _ => None,
        };
        let rank = |value| match value {
            Value::Null => 0,
            Value::Integer(_) | Value::Real(_) => 1,
            Value::Text(_) => 2,
            Value::Blob(_) => 3,
        };
        let bytes = |value: Value<'_>| match value {
            Value::Text(bytes) | Value::Blob(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        };
        rank(a).cmp(&rank(b)).then_with(|| match (real(a), real(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => bytes(a).cmp(&bytes(b)),
        })
    }

    proptest! {
        #[test]
        fn keys_sort_as_the_values_do(
            kinds in prop::array::uniform4(0u8..5), numbers in prop::array::uniform4(-9i64..9),
            texts in prop::array::uniform4(any_bytes()),
        ) {
            let values: Vec<_> = (0..4).map(|at| value(kinds[at], numbers[at], &texts[at])).collect();
            let expected = compare(values[0], values[2]).then(compare(values[1], values[3]));
            prop_assert_eq!(place(values[0], values[1]).cmp(&place(values[2], values[3])), expected);
            prop_assert!(single(values[0]) < place(values[0], values[1]));
            prop_assert_eq!(length_of_first(&place(values[0], values[1])), single(values[0]).len());
        }

        #[test]
        fn a_text_comes_back(bytes in any_bytes()) {
            prop_assert_eq!(text_of(&place(Value::Text(&bytes), Value::Null)), Some(bytes.clone()));
            prop_assert_eq!(text_of(&single(Value::Blob(&bytes))), Some(bytes));
        }
    }
}
