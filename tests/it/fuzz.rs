//! The fuzz targets as ordinary tests: on the committed
//! corpus, and on inputs that a seeded generator derives
//! from it. `make fuzz` searches further with libFuzzer.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use providers::{SCHEMES, fuzz};

/// The number of mutants of all inputs of a target.
const MUTANTS: usize = 6_000;

/// A small generator of pseudo-random numbers (xorshift64*), so that failures can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// All files of the existing folders.
fn corpus(folders: &[&str]) -> Vec<Vec<u8>> {
    let entries = folders.iter().filter_map(|folder| fs::read_dir(root().join(folder)).ok()).flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

/// Changes, removes or duplicates some bytes, or joins them with another input.
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

/// Runs a target on its corpus, and on inputs derived from it.
fn run(target: impl Fn(&[u8]), folders: &[&str]) {
    let corpus = corpus(folders);
    assert!(!corpus.is_empty(), "{folders:?} is a corpus");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    if let Some(seconds) = std::env::var("TEST_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()) {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            let (input, other) = (&corpus[random.below(corpus.len())], &corpus[random.below(corpus.len())]);
            target(&mutate(input, other, &mut random));
        }
    }
    for input in &corpus {
        target(input);
        for _ in 0..MUTANTS / corpus.len() {
            let other = &corpus[random.below(corpus.len())];
            target(&mutate(input, other, &mut random));
        }
    }
}

/// Whether this target is selected: all are, unless `TEST_FUZZ_ONLY` names some.
fn is_asked_for(kind: &str) -> bool {
    std::env::var("TEST_FUZZ_ONLY").map_or(true, |kinds| kinds.split(',').any(|asked| asked == kind))
}

#[test]
fn parsers_keep_their_promises_on_their_samples_and_mutants_of_them() {
    for scheme in SCHEMES.iter().filter(|scheme| is_asked_for(scheme.kind)) {
        let (samples, more) =
            (format!("testdata/providers/{}", scheme.kind), format!("fuzz/corpus/parse_{}", scheme.kind));
        run(|body| fuzz::parse(scheme.kind, body), &[&samples, &more]);
    }
    run(server::http::params::fuzz_page_request, &["fuzz/corpus/query"]);
    run(server::http::head::fuzz_scan, &["fuzz/corpus/head"]);
}

#[test]
fn verifiers_believe_what_was_signed_and_nothing_that_was_altered_since() {
    for scheme in SCHEMES {
        run(|data| fuzz::verify(scheme.kind, data), &["fuzz/corpus/verify"]);
    }
}

#[test]
fn the_fuzz_targets_reach_every_parser_and_every_verifier() {
    let script = fs::read_to_string(root().join("fuzz/run.sh")).unwrap();
    let listed = script.lines().find_map(|line| line.strip_prefix("kinds=(")?.strip_suffix(')')).expect("a list");
    let kinds: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.kind).collect();
    assert_eq!(listed.split(' ').collect::<Vec<_>>(), kinds);
    for (place, kind) in kinds.into_iter().enumerate() {
        let input = [place as u8, b'x'];
        let (scheme, rest) = fuzz::pick(&input).expect("it has a first byte");
        assert_eq!((scheme.kind, rest), (kind, &b"x"[..]));
    }
    for what in ["parse", "verify"] {
        let target = fs::read_to_string(root().join(format!("fuzz/fuzz_targets/{what}.rs"))).expect(what);
        assert!(target.contains(&format!("fuzz::{what}(scheme.kind, rest)")), "{what}");
    }
}
