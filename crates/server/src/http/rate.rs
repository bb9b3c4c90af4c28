//! Rate limits, off by default. Reads are limited by address. At a source only verified requests count, and
//! only against that source: without a provider's secret, nobody can use up its share, even from its address.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::AccessConfig;

/// Maximum keys. Beyond it, the key whose bucket would be full again first is dropped: it loses the least,
/// and a key at its limit is dropped last.
const KEYS_MAX: usize = 10_000;

/// The limits and their use.
#[derive(Debug)]
pub struct Rates {
    reads: Option<Rate<IpAddr>>,
    posts: Option<Rate<String>>,
}

impl Rates {
    /// From the settings.
    pub fn new(access: &AccessConfig) -> Self {
        let every = |count: u32, per: Duration| (count > 0).then(|| per / count);
        Self {
            reads: every(access.reads_per_minute, Duration::from_secs(60))
                .map(|gap| Rate::new(gap, access.reads_per_minute)),
            posts: every(access.posts_per_second, Duration::from_secs(1))
                .map(|gap| Rate::new(gap, access.posts_per_second)),
        }
    }

    /// Whether this address may read now; if not, how long it must wait.
    pub fn read(&self, peer: IpAddr) -> Result<(), Duration> {
        self.reads.as_ref().map_or(Ok(()), |rate| rate.take(&rate_limit_key(peer), Instant::now()))
    }

    /// Whether a verified request may be stored now.
    pub fn post(&self, source: &str) -> Result<(), Duration> {
        self.posts.as_ref().map_or(Ok(()), |rate| rate.take(source, Instant::now()))
    }
}

/// IPv6 clients are limited per /64.
fn rate_limit_key(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// A bucket per key that fills at an even rate (GCRA: it stores only the moment at which a bucket is full).
#[derive(Debug)]
struct Rate<K> {
    gap: Duration,
    burst: Duration,
    buckets: Mutex<Buckets<K>>,
}

/// The same moments twice: by key, and in their order.
#[derive(Debug)]
struct Buckets<K> {
    full_at: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Hash + Ord + Clone> Rate<K> {
    fn new(gap: Duration, burst: u32) -> Self {
        let buckets = Buckets { full_at: HashMap::new(), order: BTreeSet::new() };
        Self { gap, burst: gap * burst, buckets: Mutex::new(buckets) }
    }

    fn take<Q>(&self, key: &Q, now: Instant) -> Result<(), Duration>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut buckets = self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = buckets.full_at.get(key).copied();
        let next = known.unwrap_or(now).max(now) + self.gap;
        if next > now + self.burst {
            return Err(next - now - self.burst);
        }
        buckets.set(key.to_owned(), known, next);
        Ok(())
    }
}

impl<K: Hash + Ord + Clone> Buckets<K> {
    /// Replaces the moment of a key, and drops another key if there is no place for a new one.
    fn set(&mut self, key: K, known: Option<Instant>, next: Instant) {
        match known {
            Some(known) => drop(self.order.remove(&(known, key.clone()))),
            None if self.full_at.len() >= KEYS_MAX => {
                if let Some((_, forgotten)) = self.order.pop_first() {
                    self.full_at.remove(&forgotten);
                }
            }
            None => {}
        }
        self.order.insert((next, key.clone()));
        self.full_at.insert(key, next);
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
        for at in 0..3 * KEYS_MAX as u32 {
            assert_eq!(rate.take(&IpAddr::from(at.to_be_bytes()), now), Ok(()));
        }
        let buckets = rate.buckets.lock().unwrap();
        assert_eq!((buckets.full_at.len(), buckets.order.len()), (KEYS_MAX, KEYS_MAX));
        let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert_eq!(rate_limit_key(one), rate_limit_key(other));
    }

    #[test]
    fn a_crowd_of_addresses_resets_nobodys_limit() {
        let rate: Rate<IpAddr> = Rate::new(Duration::from_secs(1), 3);
        let now = Instant::now();
        let limited: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        for address in &limited {
            (0..3).for_each(|_| assert_eq!(rate.take(address, now), Ok(())));
        }
        for at in 0..5 * KEYS_MAX as u32 {
            let stranger = IpAddr::from((0x2000_0000 + at).to_be_bytes());
            assert_eq!(rate.take(&stranger, now), Ok(()), "a new address is served");
            for address in &limited {
                assert_eq!(rate.take(address, now), Err(Duration::from_secs(1)), "after {at} others");
            }
        }
        assert_eq!(rate.take(&limited[0], now + Duration::from_secs(1)), Ok(()), "the limit itself goes on");
    }
}
