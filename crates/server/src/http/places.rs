//! The connection limit. When all places are taken and another connection arrives, one without progress is
//! closed: idle clients must not exclude others, especially health probes.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::watchdog::Watchdog;
use runtime::log;

/// How soon to try again if no connection could be closed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A scan of all connections selects this part of them, so that scans are rare when many arrive.
const CHOSEN_PART: usize = 16;
/// Minimum time between two log lines about full places.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
    /// A connection waits, and no other one can be closed: the next response ends its connection.
    wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Taken {
    pulses: HashMap<u64, Arc<Watchdog>>,
    next_number: u64,
    /// The connections to close next, selected at the last scan.
    chosen: VecDeque<u64>,
    warned: Option<Instant>,
}

/// One place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    /// The state of its connection.
    pub watchdog: Arc<Watchdog>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// This many places, all of them free.
    pub fn new(count: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count));
        Arc::new(Self { free, taken: Mutex::default(), wanted: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for a place, and frees one if none is free.
    pub async fn take(self: &Arc<Self>) -> Place {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.make_room().await,
        };
        let watchdog = Arc::new(Watchdog::new());
        let mut taken = self.lock();
        let number = taken.next_number;
        taken.next_number += 1;
        taken.pulses.insert(number, Arc::clone(&watchdog));
        drop(taken);
        Place { places: Arc::clone(self), number, watchdog, _permit: permit }
    }

    async fn make_room(&self) -> OwnedSemaphorePermit {
        self.warn();
        let mut freed = pin!(Arc::clone(&self.free).acquire_owned());
        loop {
            let asked = self.lock().ask_one_to_give_way(Instant::now());
            self.wanted.store(!asked, Ordering::Relaxed);
            if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, freed.as_mut()).await {
                self.wanted.store(false, Ordering::Relaxed);
                return permit.expect("the semaphore is never closed");
            }
        }
    }

    fn warn(&self) {
        let mut taken = self.lock();
        if taken.warned.is_none_or(|warned| warned.elapsed() >= WARNING_PAUSE) {
            taken.warned = Some(Instant::now());
            log::warning("all connections are in use: connections without progress are closed for new ones")
                .value("connections", taken.pulses.len())
                .emit();
        }
    }
}

impl Taken {
    /// Whether a connection was selected.
    fn ask_one_to_give_way(&mut self, now: Instant) -> bool {
        for _ in 0..2 {
            while let Some(number) = self.chosen.pop_front() {
                if self.pulses.get(&number).is_some_and(|watchdog| watchdog.give_way(now)) {
                    return true;
                }
            }
            self.choose(now);
        }
        false
    }

    /// Selects the connections to close first.
    fn choose(&mut self, now: Instant) {
        let turns = self.pulses.iter().filter_map(|(number, watchdog)| Some((watchdog.turn(now)?, *number)));
        let mut turns: Vec<_> = turns.collect();
        turns.sort_unstable();
        turns.truncate(self.pulses.len() / CHOSEN_PART + 1);
        self.chosen.extend(turns.into_iter().map(|(_, number)| number));
    }
}

impl Place {
    /// Whether the connection should end with its response, to free its place. True once per waiting connection.
    pub fn is_wanted(&self) -> bool {
        let wanted = &self.places.wanted;
        wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().pulses.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_ends_and_an_answer_makes_room() {
        let places = Places::new(1);
        let first = places.take().await;
        first.watchdog.request_began();
        let second = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        while !first.is_wanted() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        drop(first);
        let second = second.await.expect("it has its place");
        assert!(!second.is_wanted(), "nobody waits any more");
        assert_eq!(places.lock().pulses.len(), 1);
    }

    #[test]
    fn the_first_turn_is_asked_first_and_nobody_twice_in_a_row_while_others_can() {
        let mut taken = Taken::default();
        for number in 0..3 {
            let watchdog = Arc::new(Watchdog::new());
            if number != 1 {
                watchdog.request_began();
                watchdog.answer_ready(false);
            }
            taken.pulses.insert(number, watchdog);
        }
        let later = Instant::now() + Duration::from_secs(60);
        assert!(taken.ask_one_to_give_way(later));
        let asked = |taken: &Taken, number| taken.pulses[&number].leaves().is_some();
        assert!(!asked(&taken, 0) && asked(&taken, 1) && !asked(&taken, 2), "what never asked anything goes first");
        taken.pulses.remove(&1);
        assert!(taken.ask_one_to_give_way(later));
        assert!(asked(&taken, 0) && !asked(&taken, 2), "then what has rested longest");
    }
}
