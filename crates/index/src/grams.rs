//! The search index's view of a text: its grams, three consecutive code points of the folded text. The text's end
//! counts as up to two more, so each code point begins exactly one gram, and a term of one or two code points is the
//! prefix of some.

/// Three code points, 21 bits each, each raised by one; 0 is after the end of the text.
pub type Gram = u64;

const BITS: u32 = 21;
const MASK: u64 = (1 << (2 * BITS)) - 1;

/// Code points of a gram.
pub const GRAM_LENGTH: usize = 3;

/// Calls `found` for the gram that begins at each code point of a folded text, in order, including repetitions.
pub fn of_text(folded: &str, mut found: impl FnMut(Gram)) {
    let mut window = 0;
    let mut taken = 0;
    for character in folded.chars() {
        window = (window & MASK) << BITS | (u64::from(character) + 1);
        taken += 1;
        if taken >= GRAM_LENGTH {
            found(window);
        }
    }
    for _ in 1..GRAM_LENGTH {
        window = (window & MASK) << BITS;
        taken += 1;
        if taken >= GRAM_LENGTH {
            found(window);
        }
    }
}

/// The lists to look up for a search term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// One or two code points: every gram from the first to the last of these.
    Beginning(Gram, Gram),
    /// Three: exactly this gram. A text with it contains the term.
    Exact(Gram),
    /// More: all of these, each once. A text with all of them may contain the term.
    All(Vec<Gram>),
}

/// The look-up for a folded term, which must not be empty.
pub fn of_term(folded: &str) -> Lookup {
    let mut points: Vec<u64> = folded.chars().take(GRAM_LENGTH + 1).map(|character| u64::from(character) + 1).collect();
    if points.len() < GRAM_LENGTH {
        let free = (GRAM_LENGTH - points.len()) as u32 * BITS;
        points.resize(GRAM_LENGTH, 0);
        let first = points.iter().fold(0, |gram, point| gram << BITS | point);
        return Lookup::Beginning(first, first | ((1 << free) - 1));
    }
    let mut grams = Vec::new();
    of_text(folded, |gram| {
        if gram & ((1 << BITS) - 1) != 0 {
            grams.push(gram)
        }
    });
    grams.sort_unstable();
    grams.dedup();
    if points.len() == GRAM_LENGTH { Lookup::Exact(grams[0]) } else { Lookup::All(grams) }
}

/// A gram as the key of a table.
pub fn key(gram: Gram) -> [u8; 8] {
    gram.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grams(text: &str) -> Vec<Gram> {
        let mut grams = Vec::new();
        of_text(text, |gram| grams.push(gram));
        grams
    }

    /// Whether a text with these grams may contain the term.
    fn admits(grams: &[Gram], term: &str) -> bool {
        match of_term(term) {
            Lookup::Beginning(first, last) => grams.iter().any(|gram| (first..=last).contains(gram)),
            Lookup::Exact(gram) => grams.contains(&gram),
            Lookup::All(all) => all.iter().all(|gram| grams.contains(gram)),
        }
    }

    #[test]
    fn every_code_point_begins_a_gram() {
        assert_eq!(grams("").len(), 0);
        assert_eq!(grams("a"), [98 << 42]);
        assert_eq!(grams("ab"), [98 << 42 | 99 << 21, 99 << 42]);
        assert_eq!(grams("abc"), [98 << 42 | 99 << 21 | 100, 99 << 42 | 100 << 21, 100 << 42]);
    }

    proptest! {
        #[test]
        fn nothing_that_contains_a_term_is_missed(text in "[ab明\u{0}\u{10ffff}]{0,9}", term in "[ab明\u{0}\u{10ffff}]{1,5}") {
            let grams = grams(&text);
            prop_assert_eq!(grams.len(), text.chars().count());
            let contains = text.contains(&term);
            prop_assert!(!contains || admits(&grams, &term));
            if term.chars().count() <= GRAM_LENGTH {
                prop_assert_eq!(admits(&grams, &term), contains);
            }
        }
    }
}
