//! The sender or recipient of a message.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::Invalid;

/// Maximum characters of an address.
pub const ADDRESS_CHARACTERS_MAX: usize = 64;

/// Maximum digits of a phone number (E.164).
const NUMBER_DIGITS_MAX: usize = 15;
/// Minimum digits of a phone number that is written without `+`.
const NUMBER_DIGITS_MIN: usize = 7;
/// Minimum digits of a short code.
const SHORT_CODE_DIGITS_MIN: usize = 3;
/// Maximum characters of a sender's name in a text message (3GPP TS 23.040, 9.1.2.5).
const NAME_CHARACTERS_MAX: usize = 11;

/// The tags of addresses that are not phone numbers: `tag:id`. An address in this form is kept as it is.
pub const TAGS: &[&str] = &[
    "account",
    "alpha",
    "bsuid",
    "channel",
    "conversation",
    "email",
    "evolution",
    "group",
    "id",
    "instagram",
    "jid",
    "lid",
    "line",
    "messagebird",
    "messenger",
    "newsletter",
    "phone_number_id",
    "rcs",
    "short",
    "slack",
    "telegram",
    "telnyx",
    "unknown",
    "viber",
    "waha",
    "wechat",
];

/// A sender or recipient: a phone number (`+` and digits), or a tag and an id (`tag:id`). Addresses at the
/// original source are always phone numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(String);

impl Address {
    /// A phone number in the contract's form: `+` and one or more ASCII digits, at most 64 characters in total.
    ///
    /// The contract calls it E.164 but does not limit it to 15 digits; this parser has no such limit either.
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

    /// Normalises addresses of all sources except the original one: a person has the same address in every
    /// provider's spelling.
    ///
    /// White space, invisible marks, hyphens, dots and brackets in numbers are ignored. `00` means `+`. Digits
    /// are a number (7 to 15, or fewer after a `+`) or a short code (3 to 6). `tel:`, `sms:`, `whatsapp:`,
    /// `…@c.us` and `…@s.whatsapp.net` are numbers. A short name is `alpha:…`, other text `id:…`. Providers tag
    /// ids of channels without numbers, as such ids may look like numbers. Normalising twice changes nothing.
    pub fn read(raw: &str) -> Self {
        let mut raw = trim(raw);
        // Earlier versions put this prefix before values that they could not parse.
        while let Some(rest) = raw.strip_prefix("id:") {
            raw = trim(rest);
        }
        if let Some((tag, id)) = raw.split_once(':')
            && TAGS.contains(&tag)
        {
            return Self::tagged(tag, trim(id));
        }
        read_uri(raw)
            .or_else(|| read_jid(raw))
            .or_else(|| read_digits(raw))
            .or_else(|| read_name(raw))
            .unwrap_or_else(|| Self::tagged("id", raw))
    }

    /// A phone number, in any spelling that `read` supports. None for anything else.
    pub fn number(raw: &str) -> Option<Self> {
        Some(Self::read(raw)).filter(Self::is_number)
    }

    /// A phone number of a channel that always writes the country code and never `+`, like WhatsApp. No number is
    /// too short there, and no number is a short code.
    pub fn international(raw: &str) -> Option<Self> {
        let digits = plain_digits(trim(raw))?;
        let digits = digits.strip_prefix('+').unwrap_or(&digits);
        Self::number(&format!("+{digits}"))
    }

    /// An address without a phone number: `tag:id`. The tag names the id's platform. An id that is too long is
    /// cut and ends with a digest of the whole id, so that different ids stay different. Details keep all of it.
    pub fn tagged(tag: &str, id: &str) -> Self {
        let whole = format!("{tag}:{}", id.replace('\0', "\u{fffd}"));
        if whole.chars().count() <= ADDRESS_CHARACTERS_MAX {
            return Self(whole);
        }
        let digest = Sha256::digest(&whole);
        let kept: String = whole.chars().take(ADDRESS_CHARACTERS_MAX - 17).collect();
        Self(digest[..8].iter().fold(kept + "~", |address, byte| format!("{address}{byte:02x}")))
    }

    /// The address in its stored form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a phone number.
    pub fn is_number(&self) -> bool {
        self.0.starts_with('+')
    }

    /// Whether a row with `stored` was written for this address, possibly by an earlier version in its own form:
    /// `+68849` for `short:68849`, `id: +49170123 ` for `+49170123`.
    pub fn was_stored_as(&self, stored: &str) -> bool {
        const VAGUE: &[&str] = &["alpha", "id", "jid", "short"];
        let is_vague = || stored.split_once(':').is_none_or(|(tag, _)| VAGUE.contains(&tag) || !TAGS.contains(&tag));
        let read = || Self::read(stored);
        stored == self.0 || is_vague() && read().without_form() == self.without_form()
    }

    /// The forms in which this or an earlier version may have stored this address as a status's recipient. The
    /// current form is first.
    pub fn recipient_forms(&self) -> [String; 6] {
        let id = self.without_form();
        let jid = |server: &str| format!("{id}@{server}");
        [self.0.clone(), id.to_owned(), format!("+{id}"), jid("c.us"), jid("s.whatsapp.net"), jid("lid")]
    }

    /// The address without tag and `+`.
    fn without_form(&self) -> &str {
        let id = self.0.split_once(':').filter(|(tag, _)| TAGS.contains(tag)).map_or(self.0.as_str(), |(_, id)| id);
        id.strip_prefix('+').unwrap_or(id)
    }
}

/// Without white space and marks at both ends.
fn trim(raw: &str) -> &str {
    raw.trim_matches(|character: char| character.is_whitespace() || is_invisible(character))
}

/// Marks that have no width: direction, joiners, soft hyphens, byte order marks.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn is_hyphen(character: char) -> bool {
    matches!(character, '-' | '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}')
}

/// The digits, after an optional `+`, without the separators between them. None if there is anything else.
fn plain_digits(raw: &str) -> Option<Cow<'_, str>> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain(raw.strip_prefix('+').unwrap_or(raw)) {
        return Some(raw.into());
    }
    let between = |character: char| {
        let is_bracket = matches!(character, '.' | '(' | ')' | '[' | ']');
        is_bracket || character.is_whitespace() || is_hyphen(character) || is_invisible(character)
    };
    let plain: String = raw.chars().filter(|character| !between(*character)).collect();
    is_plain(plain.strip_prefix('+').unwrap_or(&plain)).then_some(plain.into())
}

/// A number or a short code.
fn read_digits(raw: &str) -> Option<Address> {
    let digits = plain_digits(raw)?;
    let (has_plus, digits) = digits.strip_prefix('+').map_or((false, &*digits), |digits| (true, digits));
    let is_number = |digits: &str| (NUMBER_DIGITS_MIN..=NUMBER_DIGITS_MAX).contains(&digits.len());
    // `00` is the prefix of international calls. No country code begins with a zero.
    let abroad = digits.strip_prefix("00").filter(|digits| is_number(digits) && !digits.starts_with('0'));
    match (abroad, digits.len()) {
        (Some(number), _) => Some(Address(format!("+{number}"))),
        (None, 1..=NUMBER_DIGITS_MAX) if has_plus || is_number(digits) => Some(Address(format!("+{digits}"))),
        (None, SHORT_CODE_DIGITS_MIN..NUMBER_DIGITS_MIN) if !has_plus => Some(Address::tagged("short", digits)),
        _ => None,
    }
}

/// `tel:+49…;ext=1`, `sms:+49…?body=x`, `whatsapp:+49…`.
fn read_uri(raw: &str) -> Option<Address> {
    let (scheme, rest) = raw.split_once(':')?;
    let own = rest.split([';', '?']).next().unwrap_or(rest);
    match scheme.to_ascii_lowercase().as_str() {
        "tel" | "sms" => read_digits(trim(own)),
        "whatsapp" => Address::international(own),
        _ => None,
    }
}

/// `49…@s.whatsapp.net`, `49…:12@c.us`: the number after the colon is a device of the person.
fn read_jid(raw: &str) -> Option<Address> {
    let (user, server) = raw.rsplit_once('@')?;
    let person = user.split([':', '.']).next().unwrap_or(user);
    match server {
        "c.us" | "s.whatsapp.net" => Address::international(person),
        _ => None,
    }
}

/// A name under which companies send text messages.
fn read_name(raw: &str) -> Option<Address> {
    let shown = raw.chars().filter(|character| !is_invisible(*character));
    let name: String = shown
        .map(|character| match character {
            character if character.is_whitespace() => ' ',
            character if is_hyphen(character) => '-',
            character => character,
        })
        .collect();
    let is_short = name.chars().count() <= NAME_CHARACTERS_MAX;
    let has_letter = name.chars().any(char::is_alphabetic);
    let of_name = |character: char| character.is_alphanumeric() || " -_.&'+!".contains(character);
    (is_short && has_letter && name.chars().all(of_name)).then(|| Address::tagged("alpha", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn the_same_person_has_the_same_address_however_it_is_written() {
        let forms: &[(&str, &[&str])] = &[
            (
                "+15550783881",
                &[
                    "+15550783881",
                    "15550783881",
                    "+1 (555) 078-3881",
                    "1.555.078.3881",
                    "(+1) [555] 078 3881",
                    "0015550783881",
                    "+0015550783881",
                    " +15550783881\t\r\n",
                    "+1\u{a0}555\u{2009}078\u{202f}3881",
                    "+1\u{2011}555\u{2013}078\u{2212}3881",
                    "\u{202a}+1 555 078 3881\u{202c}",
                    "\u{200e}+1\u{200b}5550783881\u{feff}",
                    "+1555\u{ad}0783881",
                    "tel:+1-555-078-3881",
                    "TEL:+15550783881;ext=7",
                    "sms:+15550783881?body=hi",
                    "whatsapp:+15550783881",
                    "whatsapp:15550783881",
                    "15550783881@s.whatsapp.net",
                    "15550783881:12@s.whatsapp.net",
                    "15550783881@c.us",
                    "id: +15550783881 ",
                    "id:15550783881",
                ],
            ),
            ("short:68849", &["68849", " 68-849 ", "short:68849", "tel:68849", "id:68849"]),
            ("short:911", &["911"]),
            ("short:123456", &["123456"]),
            ("+1234567", &["1234567", "+1234567"]),
            ("+123456789012345", &["123456789012345", "+123456789012345", "00123456789012345"]),
            ("+68849", &["+68849", "whatsapp:68849", "68849@c.us"]),
            ("+1", &["+1", " + 1 "]),
            ("alpha:MyBank", &["MyBank", " MyBank\u{200b}", "id:MyBank", "alpha:MyBank"]),
            ("alpha:My Bank", &["My Bank", "My\u{a0}Bank"]),
            ("alpha:Booking.com", &["Booking.com"]),
            ("alpha:Łódź-24", &["Łódź-24", "Łódź\u{2011}24"]),
            ("alpha:1x", &["1x"]),
            ("id:12", &["12", "id:12", "id:id: 12"]),
            ("id:1234567890123456", &["1234567890123456"]),
            ("id:+1234567890123456", &["+1234567890123456"]),
            ("id:jane@example.com", &["jane@example.com", " jane@example.com"]),
            ("id:507f1f77bcf86cd799439011", &["507f1f77bcf86cd799439011"]),
            ("id:sip:bob@example.com", &["sip:bob@example.com"]),
            ("id:tel:none;ext=1", &["tel:none;ext=1"]),
            ("id:server@c.us", &["server@c.us"]),
            ("id:++15550783881", &["++15550783881"]),
            ("id:1+5550783881", &["1+5550783881"]),
            ("id:१२३४५६७", &["१२३४५६७"]),
            ("id:", &["", " ", "id:", "\u{200b}"]),
            ("id:+", &["+"]),
            ("id:()", &["()"]),
            ("telegram:-100123", &["telegram:-100123", " telegram: -100123 "]),
            ("lid:123456789012345", &["lid:123456789012345"]),
        ];
        for (expected, raws) in forms {
            for raw in *raws {
                assert_eq!(Address::read(raw).as_str(), *expected, "{raw:?}");
                let number = expected.starts_with('+').then_some(*expected);
                assert_eq!(Address::number(raw).as_ref().map(Address::as_str), number, "{raw:?}");
            }
        }
    }

    #[test]
    fn a_channel_of_numbers_has_no_short_codes() {
        for (raw, expected) in
            [("1650", Some("+1650")), ("+1650", Some("+1650")), ("004912345678", Some("+4912345678"))]
        {
            assert_eq!(Address::international(raw).as_ref().map(Address::as_str), expected, "{raw}");
        }
        for bad in ["", "+", "US.123", "1234567890123456"] {
            assert_eq!(Address::international(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_earlier_versions_form_is_the_same_address() {
        let pairs = [
            ("short:68849", "+68849"),
            ("short:68849", "id:68849"),
            ("+49170123456", "id: +49170123456 "),
            ("+49170123456", "+0049170123456"),
            ("+49170123456", "id:tel:+49170123456"),
            ("+49170123456", "49170123456@s.whatsapp.net"),
            ("+49170123456", "49170123456"),
            ("alpha:MyBank", "id:MyBank"),
            ("messenger:1234567890", "+1234567890"),
            ("id:1234567890123456", "+1234567890123456"),
            ("id:x@example.com", "id:x@example.com"),
            ("lid:123", "lid:123"),
        ];
        for (new, old) in pairs {
            assert!(Address::read(new).was_stored_as(old), "{new} {old}");
        }
        for (new, old) in [
            ("+49170123456", "+49170123457"),
            ("short:68849", "+688490"),
            ("+1234567890", "messenger:1234567890"),
            ("lid:123", "telegram:123"),
            ("alpha:A", ""),
            ("+1", "+2"),
        ] {
            assert!(!Address::read(new).was_stored_as(old), "{new} {old}");
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

    #[test]
    fn the_tags_are_sorted() {
        assert!(TAGS.is_sorted());
    }

    proptest! {
        #[test]
        fn reading_what_was_read_changes_nothing(
            raw in prop_oneof![
                ".{0,40}",
                "[ +0-9().\u{200b}\u{2011}-]{0,24}",
                "(id:|tel:|whatsapp:|lid:|x:| ){0,4}[+0-9a-zA-Z@. -]{0,70}(@c.us|@s.whatsapp.net|;ext=1)?",
            ],
        ) {
            let read = Address::read(&raw);
            prop_assert!(read.as_str().chars().count() <= ADDRESS_CHARACTERS_MAX);
            prop_assert!(read.was_stored_as(read.as_str()));
            prop_assert_eq!(Address::read(read.as_str()), read);
        }

        #[test]
        fn what_stands_between_the_digits_does_not_count(
            digits in "[1-9][0-9]{6,14}",
            between in "[ .()\u{2010}\u{200e}\u{a0}\\[\\]-]{1,4}",
            at in 0usize..7,
        ) {
            let written = format!("+{}{between}{}", &digits[..at], &digits[at..]);
            prop_assert_eq!(Address::read(&written), Address(format!("+{digits}")));
        }
    }
}
