//! Reproducible pseudo-random numbers.

/// SplitMix64 (Steele, Lea and Flood, 2014): one addition and two multiplications, good enough for test data.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a stream and a position in it: row 7 does not depend on whether row 6 was created.
    pub fn at(stream: u64, index: u64) -> Self {
        let mut random = Self(stream.wrapping_mul(0xd134_2543_de82_ef95) ^ index.wrapping_mul(0x2545_f491_4f6c_dd1d));
        // Neighbouring positions begin with different numbers.
        random.0 = random.next();
        random
    }

    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is above zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from 0 to 1 (exclusive).
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `choices`, with equal probability.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// One of `choices`, earlier ones more often, like words of a language.
    pub fn pick_early<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = self.fraction();
        choices[(place * place * choices.len() as f64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn numbers_repeat_and_keep_their_limits() {
        let numbers = |stream, index| {
            let mut random = Random::at(stream, index);
            [random.next(), random.below(10), random.below(1)]
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2)[0], numbers(2, 1)[0]);
        let mut random = Random::at(1, 1);
        let mut seen = [0; 10];
        (0..10_000).for_each(|_| seen[random.below(10) as usize] += 1);
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.fraction())));
    }
}
