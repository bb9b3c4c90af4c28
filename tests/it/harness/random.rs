//! Reproducible randomness: a test prints its seed, and takes one from `POSTROOM_TEST_SEED`.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (splitmix64). Good enough to choose moments, and deterministic.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A seed from the environment or the clock; printed, so that a failure can be reproduced.
    pub fn announced(test: &str) -> Self {
        let given = std::env::var("POSTROOM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let seed = given.unwrap_or_else(clock);
        println!("{test}: POSTROOM_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end` - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Whether the long form of the crash and fault tests is requested.
pub fn long_run() -> bool {
    std::env::var_os("POSTROOM_TEST_LONG").is_some_and(|value| value == "1")
}
