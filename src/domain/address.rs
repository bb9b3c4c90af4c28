//! Who sent a message, or to whom it went.

use sha2::{Digest, Sha256};

use super::Invalid;

/// Most characters of an address.
pub const ADDRESS_CHARACTERS_MAX: usize = 64;

/// A sender or recipient. At the original door always a phone number: `+` and ASCII digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(String);

impl Address {
    /// A phone number in the contract's form: `+` and one or more ASCII digits, at most 64 characters in all.
    ///
    /// The contract calls it E.164; it does not limit the digits to fifteen, and neither do we.
    pub fn phone(raw: &str) -> Result<Self, Invalid> {
        let digits = raw.strip_prefix('+').unwrap_or("");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Invalid::Rule("must be E.164 format: + followed by digits"));
        }
        if raw.len() > ADDRESS_CHARACTERS_MAX {
            return Err(Invalid::TooLong { most: ADDRESS_CHARACTERS_MAX, unit: "characters" });
        }
        Ok(Self(raw.to_owned()))
    }

    /// A phone number written in any way: with or without `+`, with blanks, dots, hyphens and brackets. None if it is anything else.
    pub fn loose_phone(raw: &str) -> Option<Self> {
        let mut phone = String::with_capacity(raw.len() + 1);
        phone.push('+');
        for character in raw.strip_prefix('+').unwrap_or(raw).chars() {
            match character {
                '0'..='9' => phone.push(character),
                ' ' | '-' | '.' | '(' | ')' | '\u{a0}' => {}
                _ => return None,
            }
        }
        Self::phone(&phone).ok()
    }

    /// Somebody without a phone number: `tag:id`. The tag says which platform's id it is. An id that is too long is cut, and a
    /// digest of the whole stands for the rest, so that different ids stay different; the details keep the whole.
    pub fn tagged(tag: &str, id: &str) -> Self {
        let whole = format!("{tag}:{}", id.replace('\0', "\u{fffd}"));
        if whole.chars().count() <= ADDRESS_CHARACTERS_MAX {
            return Self(whole);
        }
        let digest = Sha256::digest(&whole);
        let kept: String = whole.chars().take(ADDRESS_CHARACTERS_MAX - 17).collect();
        Self(digest[..8].iter().fold(kept + "~", |address, byte| format!("{address}{byte:02x}")))
    }

    /// The address as it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plus_and_ascii_digits_make_a_phone_number() {
        for good in ["+1", "+919876543210", &format!("+{}", "9".repeat(63))] {
            assert_eq!(Address::phone(good).unwrap().as_str(), good);
        }
        for bad in ["", "+", "1", "919876543210", "+12 3", "+123\n", "+१२३", "＋123", "+1-2", " +1", "+1 "] {
            assert!(matches!(Address::phone(bad), Err(Invalid::Rule(_))), "{bad:?}");
        }
        assert!(matches!(Address::phone(&format!("+{}", "9".repeat(64))), Err(Invalid::TooLong { most: 64, .. })));
    }

    #[test]
    fn providers_write_numbers_in_many_ways() {
        for good in ["15550783881", "+1 (555) 078-3881", "1.555.078.3881"] {
            assert_eq!(Address::loose_phone(good).unwrap().as_str(), "+15550783881", "{good}");
        }
        for bad in ["", "+", "++1", "1+2", "US.123", "+1x", "१२३", &"9".repeat(64)] {
            assert!(Address::loose_phone(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn ids_without_a_number_carry_a_tag_and_stay_different_when_cut() {
        assert_eq!(Address::tagged("bsuid", "US.13491208655302741918").as_str(), "bsuid:US.13491208655302741918");
        assert_eq!(Address::tagged("alpha", "A\0B").as_str(), "alpha:A\u{fffd}B");
        let long = "é".repeat(100);
        let (one, other) = (Address::tagged("lid", &format!("{long}1")), Address::tagged("lid", &format!("{long}2")));
        assert_eq!(one.as_str().chars().count(), ADDRESS_CHARACTERS_MAX);
        assert_ne!(one, other);
        assert_eq!(one, Address::tagged("lid", &format!("{long}1")));
    }
}
