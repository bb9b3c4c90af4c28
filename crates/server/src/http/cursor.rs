//! Cursors: a position in a listing as opaque text. The format may change with any version; clients only return them.

use domain::{Invalid, Order, Position, Stored};

/// The format of this program, the prefix of every cursor.
const VERSION: u8 = 1;
const NOT_OURS: Invalid = Invalid::Rule("cursor must come from a Link header of this service, with the same order");

/// A position as text that needs no escaping in a URL.
pub fn encode(position: &Position) -> String {
    let mut bytes = vec![VERSION];
    match position {
        Position::Arrival(number) => {
            bytes.push(b'a');
            bytes.extend(number.to_be_bytes());
        }
        Position::Time { ts, id } => {
            bytes.push(b't');
            bytes.extend((ts.bytes.len() as u32).to_be_bytes());
            bytes.extend([u8::from(ts.is_blob), u8::from(id.is_blob)]);
            bytes.extend(&ts.bytes);
            bytes.extend(&id.bytes);
        }
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The position in `text`, if `text` is one of our cursors for this order.
pub fn decode(text: &str, order: Order) -> Result<Position, Invalid> {
    decoded(text)
        .filter(|position| (order == Order::Arrival) == matches!(position, Position::Arrival(_)))
        .ok_or(NOT_OURS)
}

fn decoded(text: &str) -> Option<Position> {
    let digits = text.as_bytes();
    if !digits.iter().all(u8::is_ascii_hexdigit) || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let bytes: Vec<u8> = digits.chunks(2).filter_map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    let (&[version, kind], rest) = bytes.split_first_chunk()?;
    match (version, kind) {
        (VERSION, b'a') => Some(Position::Arrival(i64::from_be_bytes(rest.try_into().ok()?))),
        (VERSION, b't') => {
            let (length, rest) = rest.split_first_chunk()?;
            let (&[ts_is_blob, id_is_blob], rest) = rest.split_first_chunk()?;
            let (ts, id) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            let stored = |bytes: &[u8], is_blob| Stored { bytes: bytes.to_vec(), is_blob: is_blob != 0 };
            Some(Position::Time { ts: stored(ts, ts_is_blob), id: stored(id, id_is_blob) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_stored() -> impl Strategy<Value = Stored> {
        (any::<Vec<u8>>(), any::<bool>()).prop_map(|(bytes, is_blob)| Stored { bytes, is_blob })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_for_its_own_order_only(ts in any_stored(), id in any_stored(), number in any::<i64>()) {
            let (time, arrival) = (Position::Time { ts, id }, Position::Arrival(number));
            prop_assert_eq!(decode(&encode(&time), Order::Time), Ok(time.clone()));
            prop_assert_eq!(decode(&encode(&arrival), Order::Arrival), Ok(arrival.clone()));
            prop_assert_eq!(decode(&encode(&time), Order::Arrival), Err(NOT_OURS));
            prop_assert_eq!(decode(&encode(&arrival), Order::Time), Err(NOT_OURS));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(01(74|61))?([0-9a-f]{2}){0,24}|.{0,8}") {
            let _ = (decode(&text, Order::Time), decode(&text, Order::Arrival));
        }
    }
}
