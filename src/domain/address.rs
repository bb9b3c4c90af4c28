//! Who sent a message, or to whom it went.

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
}
