//! Counters of observations in constant memory: fixed buckets for Prometheus, and a window for quantiles.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A Prometheus histogram with fixed upper bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One counter per bound and one above; not cumulative.
    buckets: Box<[AtomicU64]>,
    /// The sum in millionths, so that it can be an atomic integer.
    sum_millionths: AtomicU64,
}

impl Histogram {
    /// `bounds` ascend; a value belongs to the first bound that it does not exceed.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_millionths: AtomicU64::new(0) }
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_millionths.fetch_add((value * 1e6) as u64, Relaxed);
    }

    /// Upper bounds with the number of values at or below each, the last being infinity (all of them); and the sum.
    pub fn cumulative(&self) -> (Vec<(f64, u64)>, f64) {
        let mut seen = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = bounds.zip(&self.buckets).map(|(bound, bucket)| {
            seen += bucket.load(Relaxed);
            (bound, seen)
        });
        (counts.collect(), self.sum_millionths.load(Relaxed) as f64 / 1e6)
    }
}

/// Sub-buckets per power of two: quantiles are accurate to one part in 32.
const STEPS: u64 = 32;
const STEP_BITS: u32 = 5;
/// Values from here on (about 71 minutes in microseconds) share the last bucket.
const VALUE_MAX: u64 = u32::MAX as u64;
const SPREAD_BUCKETS: usize = ((32 - STEP_BITS + 1) as usize) * STEPS as usize;

/// A distribution of durations, for quantiles: a constant 7 KiB or so, without a lock.
#[derive(Debug)]
pub struct Spread(Box<[AtomicU64]>);

impl Spread {
    /// An empty distribution.
    pub fn new() -> Self {
        Self((0..SPREAD_BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Counts one duration. Returns it in whole microseconds.
    pub fn observe(&self, duration: Duration) -> u64 {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(VALUE_MAX).min(VALUE_MAX);
        self.0[bucket_of(microseconds)].fetch_add(1, Relaxed);
        microseconds
    }

    /// The quantiles in microseconds; none if nothing was counted.
    pub fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> Option<[f64; N]> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        (total > 0).then(|| {
            quantiles.map(|quantile| {
                let rank = ((quantile * total as f64).ceil() as u64).clamp(1, total);
                let mut seen = 0;
                let reached = counts.iter().position(|count| {
                    seen += count;
                    seen >= rank
                });
                middle_of(reached.unwrap_or(SPREAD_BUCKETS - 1))
            })
        })
    }

    /// Adds all counts of `other`.
    fn add(&self, other: &Self) {
        for (sum, count) in self.0.iter().zip(&other.0) {
            sum.fetch_add(count.load(Relaxed), Relaxed);
        }
    }

    fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self::new()
    }
}

/// The window consists of slices, so old values leave it in steps.
const SLICES: usize = 7;
const SLICE: Duration = Duration::from_secs(10);

/// Durations of the last 60 to 70 seconds, for quantiles. Constant memory (about 50 KiB), no lock.
#[derive(Debug)]
pub struct Window {
    started: Instant,
    slices: [Slice; SLICES],
    count: AtomicU64,
    sum_microseconds: AtomicU64,
}

#[derive(Debug, Default)]
struct Slice {
    /// The time slice of the counts.
    epoch: AtomicU64,
    spread: Spread,
}

impl Window {
    /// An empty window that begins now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            slices: Default::default(),
            count: AtomicU64::new(0),
            sum_microseconds: AtomicU64::new(0),
        }
    }

    /// Counts one duration that ended at `now`.
    pub fn observe(&self, duration: Duration, now: Instant) {
        let epoch = self.epoch(now);
        let slice = &self.slices[(epoch % SLICES as u64) as usize];
        let seen = slice.epoch.load(Relaxed);
        // The first observation of a new time slice empties the slice. A value that another thread counts at that
        // moment may be lost from the quantiles, which is acceptable; `count` and `sum` keep it.
        if seen < epoch && slice.epoch.compare_exchange(seen, epoch, Relaxed, Relaxed).is_ok() {
            slice.spread.clear();
        }
        let microseconds = slice.spread.observe(duration);
        self.count.fetch_add(1, Relaxed);
        self.sum_microseconds.fetch_add(microseconds, Relaxed);
    }

    /// The quantiles in microseconds of the window before `now`; none if it is empty.
    pub fn quantiles<const N: usize>(&self, quantiles: [f64; N], now: Instant) -> Option<[f64; N]> {
        let epoch = self.epoch(now);
        let recent = |slice: &&Slice| slice.epoch.load(Relaxed) + SLICES as u64 > epoch;
        let sum = Spread::new();
        self.slices.iter().filter(recent).for_each(|slice| sum.add(&slice.spread));
        sum.quantiles(quantiles)
    }

    /// All observations since the start: their number, and their sum in milliseconds.
    pub fn count_and_sum_ms(&self) -> (u64, f64) {
        (self.count.load(Relaxed), self.sum_microseconds.load(Relaxed) as f64 / 1e3)
    }

    fn epoch(&self, now: Instant) -> u64 {
        // The number begins at one: zero marks a slice that was never used.
        (now.saturating_duration_since(self.started).as_secs() / SLICE.as_secs()) + 1
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

/// Exact below 32, then 32 buckets per power of two.
fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

fn middle_of(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket as f64;
    }
    let shift = bucket / STEPS - 1;
    let low = (bucket % STEPS + STEPS) << shift;
    low as f64 + ((1u64 << shift) - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 9.0] {
            histogram.observe(value);
        }
        let (buckets, sum) = histogram.cumulative();
        assert_eq!(buckets, [(1.0, 2), (2.0, 3), (f64::INFINITY, 4)]);
        assert_eq!(sum, 12.0);
    }

    #[test]
    fn the_window_forgets_and_the_sum_does_not() {
        let window = Window::new();
        let start = window.started;
        window.observe(Duration::from_millis(100), start);
        window.observe(Duration::from_millis(200), start + Duration::from_secs(30));
        let is_near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 1.0 / 32.0;
        let [low, high] = window.quantiles([0.5, 0.99], start + Duration::from_secs(59)).unwrap();
        assert!(is_near(low, 100_000.0) && is_near(high, 200_000.0), "{low} {high}");
        let [low, _] = window.quantiles([0.5, 0.99], start + Duration::from_secs(75)).unwrap();
        assert!(is_near(low, 200_000.0), "{low}");
        assert_eq!(window.quantiles([0.5], start + Duration::from_secs(200)), None);
        window.observe(Duration::from_millis(1), start + Duration::from_secs(7_000));
        let [only] = window.quantiles([0.5], start + Duration::from_secs(7_000)).unwrap();
        assert!(is_near(only, 1_000.0));
        assert_eq!(window.count_and_sum_ms(), (3, 301.0));
    }

    proptest! {
        #[test]
        fn a_value_comes_back_from_its_bucket_nearly_itself(value in 0..=VALUE_MAX) {
            let bucket = bucket_of(value);
            prop_assert!(bucket < SPREAD_BUCKETS);
            prop_assert!((middle_of(bucket) - value as f64).abs() <= value as f64 / STEPS as f64);
        }
    }
}
