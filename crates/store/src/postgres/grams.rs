//! The n-grams of a text: an index of them finds the candidates of a search, which
//! are then checked against the folded text, unless the whole term is one n-gram.
//!
//! N-grams have one to three characters of any script, so that words of one
//! or two Chinese, Japanese or Korean characters are found like any other.

use domain::fold::fold_into;

/// The longest n-gram.
pub(super) const LENGTH_MAX: usize = 3;
/// Bits that a character needs.
const CHARACTER_BITS: u32 = 21;

/// The folded text, and the numbers of all n-grams in it, each once.
pub(super) fn of_text(text: &str) -> (String, Vec<i64>) {
    let mut folded = String::new();
    fold_into(text, &mut folded);
    let runs = of_folded(&folded);
    (folded, runs)
}

/// The numbers of all n-grams in a folded text, each once, ascending.
pub(super) fn of_folded(folded: &str) -> Vec<i64> {
    let characters: Vec<char> = folded.chars().collect();
    let mut runs: Vec<i64> = Vec::with_capacity(LENGTH_MAX * characters.len());
    (1..=LENGTH_MAX).for_each(|length| runs.extend(characters.windows(length).map(number)));
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// Numbers that every text with this folded term has: those of its longest n-grams, which are the most
/// selective. If a term has up to `LENGTH_MAX` characters, a text with its only number contains the term.
pub(super) fn of_term(folded: &str) -> Vec<i64> {
    let characters: Vec<char> = folded.chars().collect();
    let length = characters.len().clamp(1, LENGTH_MAX);
    let mut runs: Vec<i64> = characters.windows(length).map(number).collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// The code points, each plus one, so that different n-grams have different numbers.
fn number(run: &[char]) -> i64 {
    run.iter().fold(0, |number, character| number << CHARACTER_BITS | (i64::from(u32::from(*character)) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Needle;
    use proptest::prelude::*;

    #[test]
    fn short_words_of_any_script_have_numbers_of_their_own() {
        let terms = ["a", "好", "明天", "ab", "ba", "\0a", "\0\0a", "\0", "\u{10FFFF}\u{10FFFF}\u{10FFFF}"];
        let numbers: std::collections::BTreeSet<_> = terms.map(|term| of_term(term)[0]).into();
        assert_eq!(numbers.len(), terms.len());
        assert!(numbers.iter().all(|number| *number > 0));
        assert_eq!(of_term("hello").len(), 3);
    }

    proptest! {
        #[test]
        fn a_text_has_every_number_of_a_term_in_it(
            text in any::<String>(),
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
        ) {
            let characters: Vec<char> = text.chars().collect();
            let (a, b) = (from.index(characters.len() + 1), to.index(characters.len() + 1));
            let part: String = characters[a.min(b)..a.max(b)].iter().collect();
            let (_, all) = of_text(&text);
            prop_assert!(of_term(Needle::new(&part).folded()).iter().all(|run| all.binary_search(run).is_ok()));
        }

        #[test]
        fn a_short_term_is_in_the_texts_that_have_its_number(text in "[abé明]{0,6}", term in "[abé明]{1,3}") {
            let (folded, all) = of_text(&text);
            prop_assert_eq!(all.contains(&of_term(&term)[0]), folded.contains(&term));
        }
    }
}
