//! Limits on how often, off by default. Reads are limited by address. At a door only requests that were believed count, and
//! only against their own door: so nobody can use up a provider's share without its secret, whatever address they share.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::AccessConfig;

/// Addresses remembered at once. Beyond it, those that have used up nothing are forgotten first, and then all.
const ADDRESSES_MAX: usize = 10_000;

/// The limits and who has used up how much of them.
#[derive(Debug)]
pub struct Rates {
    reads: Option<Rate<IpAddr>>,
    posts: Option<Rate<String>>,
}

impl Rates {
    /// As the settings say.
    pub fn new(access: &AccessConfig) -> Self {
        let every = |count: u32, per: Duration| (count > 0).then(|| per / count);
        Self {
            reads: every(access.reads_per_minute, Duration::from_secs(60))
                .map(|gap| Rate::new(gap, access.reads_per_minute)),
            posts: every(access.posts_per_second, Duration::from_secs(1))
                .map(|gap| Rate::new(gap, access.posts_per_second)),
        }
    }

    /// Whether this address may read now; if not, how long it has to wait.
    pub fn read(&self, peer: IpAddr) -> Result<(), Duration> {
        self.reads.as_ref().map_or(Ok(()), |rate| rate.take(&household(peer), Instant::now()))
    }

    /// Whether a request that was believed may be stored now.
    pub fn post(&self, source: &str) -> Result<(), Duration> {
        self.posts.as_ref().map_or(Ok(()), |rate| rate.take(source, Instant::now()))
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn household(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// A bucket per key that fills at an even pace (GCRA: of each key only the moment is kept at which its bucket is full again).
#[derive(Debug)]
struct Rate<K> {
    gap: Duration,
    burst: Duration,
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq> Rate<K> {
    fn new(gap: Duration, burst: u32) -> Self {
        Self { gap, burst: gap * burst, full_at: Mutex::default() }
    }

    fn take<Q>(&self, key: &Q, now: Instant) -> Result<(), Duration>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut full_at = self.full_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = full_at.get(key).copied().unwrap_or(now).max(now) + self.gap;
        if next > now + self.burst {
            return Err(next - now - self.burst);
        }
        if full_at.len() >= ADDRESSES_MAX && !full_at.contains_key(key) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= ADDRESSES_MAX {
                full_at.clear();
            }
        }
        full_at.insert(key.to_owned(), next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_at_a_time() {
        let rate: Rate<String> = Rate::new(Duration::from_secs(1), 3);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rate.take("a", now), Ok(()));
        }
        assert_eq!(rate.take("a", now), Err(Duration::from_secs(1)));
        assert_eq!(rate.take("b", now), Ok(()), "others are not touched");
        assert_eq!(rate.take("a", now + Duration::from_secs(1)), Ok(()));
        assert!(rate.take("a", now + Duration::from_secs(1)).is_err());
        assert_eq!(rate.take("a", now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn memory_does_not_grow_with_addresses() {
        let rate: Rate<IpAddr> = Rate::new(Duration::from_secs(1), 1);
        let now = Instant::now();
        for at in 0..3 * ADDRESSES_MAX as u32 {
            assert_eq!(rate.take(&IpAddr::from(at.to_be_bytes()), now), Ok(()));
        }
        assert!(rate.full_at.lock().unwrap().len() <= ADDRESSES_MAX);
        let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert_eq!(household(one), household(other));
    }
}
