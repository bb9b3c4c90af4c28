//! What came in at each door. Doors can be added while the service runs; the counts of one that was taken away stay,
//! because counters never go back.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::exposition::Exposition;
use crate::domain::Outcome;
use crate::domain::lock::unpoisoned;

/// The counts of all sources since the start, in the order of their creation.
#[derive(Debug)]
pub(super) struct DoorCounts(RwLock<Vec<Door>>);

#[derive(Debug, Default)]
struct Door {
    name: String,
    messages: [AtomicU64; Outcome::ALL.len()],
    statuses: AtomicU64,
    events: AtomicU64,
}

impl DoorCounts {
    /// All zero.
    pub fn new(names: Vec<String>) -> Self {
        Self(RwLock::new(names.into_iter().map(Door::named).collect()))
    }

    /// Starts counts for new sources; the others continue.
    pub fn add(&self, names: Vec<String>) {
        let mut doors = unpoisoned(self.0.write());
        for name in names {
            if !doors.iter().any(|door| door.name == name) {
                doors.push(Door::named(name));
            }
        }
    }

    /// Counts the outcome of a message of the source `name`.
    pub fn message(&self, name: &str, outcome: Outcome) {
        self.count(name, |door| &door.messages[outcome as usize], 1);
    }

    /// Counts new statuses and events of the source `name`.
    pub fn extras(&self, name: &str, statuses: usize, events: usize) {
        self.count(name, |door| &door.statuses, statuses);
        self.count(name, |door| &door.events, events);
    }

    fn count(&self, name: &str, counter: impl Fn(&Door) -> &AtomicU64, more: usize) {
        let doors = unpoisoned(self.0.read());
        if let Some(door) = doors.iter().find(|door| door.name == name) {
            counter(door).fetch_add(more as u64, Relaxed);
        }
    }

    pub fn encode(&self, out: &mut Exposition) {
        let doors = unpoisoned(self.0.read());
        let name = "postroom_messages_total";
        out.family(name, "counter", "Messages by source and outcome; conflict: known id, other content.");
        for door in doors.iter() {
            for outcome in Outcome::ALL {
                let count = door.messages[*outcome as usize].load(Relaxed);
                out.sample(name, &[("source", &door.name), ("outcome", outcome.name())], count);
            }
        }
        let name = "postroom_statuses_total";
        out.family(name, "counter", "New statuses of sent messages, by source.");
        for door in doors.iter() {
            out.sample(name, &[("source", &door.name)], door.statuses.load(Relaxed));
        }
        let name = "postroom_events_total";
        out.family(name, "counter", "New events that are neither message nor status, by source.");
        for door in doors.iter() {
            out.sample(name, &[("source", &door.name)], door.events.load(Relaxed));
        }
    }
}

impl Door {
    fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }
}
