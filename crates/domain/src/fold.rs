//! Case-insensitive search with Unicode *simple case folding* (statuses C and S of CaseFolding.txt), code point by code
//! point: no normalisation, no locale, and never a change in the number of characters.
//!
//! Source: The Unicode Standard, §5.18 "Case Mappings"; the table is that of the crate `unicode-case-mapping`.

use memchr::memmem::Finder;

/// The Unicode version of the folding table, for objects that must be rebuilt when it changes.
pub const UNICODE_VERSION: (u64, u64, u64) = unicode_case_mapping::UNICODE_VERSION;

/// Folds one code point.
pub fn fold_char(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    unicode_case_mapping::case_folded(character).and_then(|folded| char::from_u32(folded.get())).unwrap_or(character)
}

/// Appends the folded `text` to `out`.
pub fn fold_into(text: &str, out: &mut String) {
    out.reserve(text.len());
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text);
        out[start..].make_ascii_lowercase();
    } else {
        out.extend(text.chars().map(fold_char));
    }
}

/// A folded search term, prepared for many texts. Every character is literal.
#[derive(Debug, Clone)]
pub struct Needle {
    folded: String,
    finder: Finder<'static>,
}

impl Needle {
    /// Folds the term and prepares the search. Every text contains an empty term.
    pub fn new(term: &str) -> Self {
        let mut folded = String::new();
        fold_into(term, &mut folded);
        let finder = Finder::new(folded.as_bytes()).into_owned();
        Self { folded, finder }
    }

    /// The folded term.
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// Whether an already folded text contains the term.
    pub fn is_in_folded(&self, folded: &[u8]) -> bool {
        // UTF-8 is self-synchronising: a match of bytes is a match of characters.
        self.finder.find(folded).is_some()
    }

    /// Whether `text` contains the term. `scratch` is a buffer that callers reuse from text to text.
    pub fn is_in(&self, text: &str, scratch: &mut String) -> bool {
        scratch.clear();
        fold_into(text, scratch);
        self.is_in_folded(scratch.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(term: &str, text: &str) -> bool {
        Needle::new(term).is_in(text, &mut String::new())
    }

    #[test]
    fn case_is_folded_beyond_ascii_and_everything_else_is_literal() {
        assert!(found("hello", "Well, HELLO there"));
        assert!(found("ÉCOLE", "école"));
        assert!(found("привет", "ПРИВЕТ, мир"));
        assert!(found("σ", "ΜΆΪΟΣ") && found("ς", "Σ"));
        assert!(found("明天", "我明天来"));
        assert!(found("ẞ", "straße"));
        assert!(found("100%", "a 100% b") && !found("100%", "1000"));
        assert!(found("a_b", "a_b") && !found("a_b", "axb"));
        assert!(!found("ss", "straße"), "simple folding keeps ß one character");
        assert!(!found("é", "e\u{301}"), "no normalisation");
        assert!(!found("İ", "i"), "no locale");
    }

    proptest! {
        #[test]
        fn folding_is_idempotent_and_goes_character_by_character(text in any::<String>()) {
            let (mut once, mut twice) = (String::new(), String::new());
            fold_into(&text, &mut once);
            fold_into(&once, &mut twice);
            prop_assert_eq!(&once, &twice);
            prop_assert_eq!(once.chars().count(), text.chars().count());
        }

        #[test]
        fn every_part_of_a_text_is_found_in_it(text in any::<String>(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
            let characters: Vec<char> = text.chars().collect();
            let (a, b) = (from.index(characters.len() + 1), to.index(characters.len() + 1));
            let part: String = characters[a.min(b)..a.max(b)].iter().collect();
            prop_assert!(found(&part, &text));
        }
    }
}
