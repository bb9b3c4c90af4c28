//! What searches look up: numbers for short runs of characters. An index of them finds candidates, which are then checked
//! against the folded text, so a collision costs time and changes no answer.
//!
//! Runs of two and three characters are numbered, and single characters beyond ASCII, so that words of one and two Chinese,
//! Japanese or Korean characters are found like any other.

use crate::domain::fold::fold_into;

/// The folded text, and the numbers of all runs in it, each once.
pub(super) fn of_text(text: &str) -> (String, Vec<i32>) {
    let mut folded = String::new();
    fold_into(text, &mut folded);
    let characters: Vec<char> = folded.chars().collect();
    let mut grams: Vec<i32> = Vec::with_capacity(2 * characters.len());
    grams.extend(characters.iter().filter(|character| !character.is_ascii()).map(|character| number(&[*character])));
    grams.extend(characters.windows(2).map(number));
    grams.extend(characters.windows(3).map(number));
    grams.sort_unstable();
    grams.dedup();
    (folded, grams)
}

/// Numbers that every text with this folded term has; none where the index cannot help. The longest runs say the most.
pub(super) fn of_term(folded: &str) -> Vec<i32> {
    let characters: Vec<char> = folded.chars().collect();
    let mut grams: Vec<i32> = match characters.len() {
        0 => Vec::new(),
        1 if characters[0].is_ascii() => Vec::new(),
        1 | 2 => vec![number(&characters)],
        _ => characters.windows(3).map(number).collect(),
    };
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// FNV-1a over the code points, the length first.
fn number(run: &[char]) -> i32 {
    let step = |sum: u32, value: u32| (sum ^ value).wrapping_mul(0x0100_0193);
    let sum = run.iter().fold(step(0x811c_9dc5, run.len() as u32), |sum, character| {
        let code = u32::from(*character);
        step(step(step(sum, code & 0xff), code >> 8 & 0xff), code >> 16)
    });
    sum.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Needle;
    use proptest::prelude::*;

    #[test]
    fn short_words_of_any_script_have_numbers() {
        assert!(of_term("a").is_empty());
        assert_eq!(of_term("好").len(), 1);
        assert_eq!(of_term("明天").len(), 1);
        assert_eq!(of_term("hello").len(), 3);
        assert_ne!(of_term("ab"), of_term("ba"));
    }

    proptest! {
        #[test]
        fn a_text_has_every_number_of_a_term_in_it(text in any::<String>(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
            let characters: Vec<char> = text.chars().collect();
            let (a, b) = (from.index(characters.len() + 1), to.index(characters.len() + 1));
            let part: String = characters[a.min(b)..a.max(b)].iter().collect();
            let (_, all) = of_text(&text);
            prop_assert!(of_term(Needle::new(&part).folded()).iter().all(|gram| all.binary_search(gram).is_ok()));
        }
    }
}
