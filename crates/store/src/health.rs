//! The health of the store, as far as known, and the state that its threads share.

use std::sync::atomic::{AtomicU8, Ordering};

/// The store's state, as readiness reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Writes and reads work, as far as known.
    Ready,
    /// The last write found no space.
    DiskFull,
    /// The write-ahead log has its maximum length, and another program's open read prevents moving it.
    LogFull,
    /// The database, its file or its table is missing or broken.
    Broken,
    /// The database itself refuses all messages: a constraint or a trigger of another program.
    Refusing,
}

impl Health {
    const ALL: [Self; 5] = [Self::Ready, Self::DiskFull, Self::LogFull, Self::Broken, Self::Refusing];
}

/// The state that requests and the threads of an engine share.
#[derive(Debug)]
pub(super) struct SharedHealth(AtomicU8);

impl SharedHealth {
    pub fn new() -> Self {
        Self(AtomicU8::new(Health::Ready as u8))
    }

    pub fn get(&self) -> Health {
        Health::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    /// Sets the health; returns the previous one.
    pub fn set(&self, health: Health) -> Health {
        Health::ALL[usize::from(self.0.swap(health as u8, Ordering::Relaxed))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_shared_as_it_is() {
        let shared = SharedHealth::new();
        let mut before = Health::Ready;
        for health in Health::ALL {
            assert_eq!((shared.set(health), shared.get()), (before, health));
            before = health;
        }
    }
}
