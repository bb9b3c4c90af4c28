//! The fuzz targets as ordinary tests: over the committed corpus, and over inputs that are made from it by a seeded generator.
//! `make fuzz` lets libFuzzer look further.

use std::fs;
use std::path::PathBuf;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 6] = [
    ("body", postroom::providers::original::fuzz_parse),
    ("signature", postroom::providers::signature::fuzz_verify),
    ("provider_body", postroom::providers::fuzz::fuzz_parse),
    ("provider_signature", postroom::providers::fuzz::fuzz_verify),
    ("query", postroom::http::params::fuzz_page_request),
    ("head", postroom::http::head::fuzz_scan),
];
const MUTANTS_PER_INPUT: usize = 2_000;

/// A small generator of pseudo-random numbers (xorshift64*), so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(folder).expect("every target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

/// Some bytes changed, taken out, doubled, or joined from another input.
fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 if !bytes.is_empty() => bytes[at] = random.below(256) as u8,
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, b"\"\\{}[],:\n\r%&=+0Z\xff\0"[random.below(18)]),
            3 => bytes.truncate(at),
            _ => bytes.extend_from_slice(&other[random.below(other.len())..]),
        }
    }
    bytes
}

#[test]
fn parsers_keep_their_promises_on_the_corpus_and_its_mutants() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for input in &corpus {
            target(input);
            for _ in 0..MUTANTS_PER_INPUT {
                let other = &corpus[random.below(corpus.len())];
                target(&mutate(input, other, &mut random));
            }
        }
        assert!(corpus.len() > 2, "{name} has a corpus");
    }
}
