//! Escaping of external text: no character of it moves a cursor, ends a line, changes the direction of the
//! following text, or is invisible. The one place for log lines and for the output of commands.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Controls, Unicode line ends, direction marks, and all code points that Unicode calls ignorable because they are
/// invisible: first and last of each range, in order.
const HIDDEN: [(char, char); 21] = [
    ('\0', '\u{1f}'),
    ('\u{7f}', '\u{9f}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{13430}', '\u{1345f}'),
    ('\u{16fe4}', '\u{16fe4}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

fn is_hidden(character: char) -> bool {
    let at = HIDDEN.partition_point(|(_, last)| *last < character);
    HIDDEN.get(at).is_some_and(|(first, _)| *first <= character)
}

/// Appends `value` as a JSON string in which only visible characters stay unescaped.
pub fn push_json(out: &mut String, value: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    out.push('"');
    if value.bytes().all(plain) {
        out.push_str(value);
    } else {
        value.chars().for_each(|character| match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character => push(out, character),
        });
    }
    out.push('"');
}

/// The same text for a terminal: lines and tabs stay, other invisible characters are escaped. Escaped JSON is
/// still equal JSON.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    let stays = |character: char| matches!(character, '\n' | '\t') || !is_hidden(character);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|character| if stays(character) { out.push(character) } else { push(&mut out, character) });
    Cow::Owned(out)
}

/// A character, unescaped or in JSON's escape (in two halves beyond the first 65,536).
fn push(out: &mut String, character: char) {
    if !is_hidden(character) {
        return out.push(character);
    }
    for unit in character.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_escaped_or_seen_and_comes_back() {
        for character in '\0'..=char::MAX {
            let value = format!("a{character}b");
            let mut out = String::new();
            push_json(&mut out, &value);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), value);
            assert_eq!(out.is_ascii() && out.contains("\\u"), is_hidden(character) && !"\n\r\t".contains(character));
            assert!(!out.contains(is_hidden), "{out:?}");
            let told = for_terminal(&value);
            assert!(told == value || !told.contains(character), "{told:?}");
        }
        assert!(is_hidden('\u{85}') && is_hidden('\u{2028}') && is_hidden('\u{202e}') && is_hidden('\u{200d}'));
        assert!(!is_hidden('é') && !is_hidden('😀') && !is_hidden('ع') && !is_hidden(' '));
        assert!(HIDDEN.is_sorted() && HIDDEN.iter().all(|(first, last)| first <= last));
    }

    #[test]
    fn a_line_for_people_keeps_its_lines() {
        assert_eq!(for_terminal("a\n\tb"), "a\n\tb");
        assert_eq!(for_terminal("\u{1b}[2J\r\u{9b}\u{e0041}"), "\\u001b[2J\\u000d\\u009b\\udb40\\udc41");
    }
}
