//! Counts of each source. Sources can be added while the service runs. The counts of a removed source
//! stay,
//! because counters never decrease.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::exposition::Exposition;
use domain::Outcome;
use domain::lock::unpoisoned;

/// The counts of all sources since the start, in the order of their creation.
#[derive(Debug)]
pub(super) struct SourceCounts(RwLock<Vec<Source>>);

#[derive(Debug, Default)]
struct Source {
    name: String,
    messages: [AtomicU64; Outcome::ALL.len()],
    statuses: AtomicU64,
    events: AtomicU64,
}

impl SourceCounts {
    /// All zero.
    pub fn new(names: Vec<String>) -> Self {
        Self(RwLock::new(names.into_iter().map(Source::named).collect()))
    }

    /// Starts counts for new sources; the others continue.
    pub fn add(&self, names: Vec<String>) {
        let mut sources = unpoisoned(self.0.write());
        for name in names {
            if !sources.iter().any(|source| source.name == name) {
                sources.push(Source::named(name));
            }
        }
    }

    /// Counts the outcome of a message of the source `name`.
    pub fn message(&self, name: &str, outcome: Outcome) {
        self.count(name, |source| &source.messages[outcome as usize], 1);
    }

    /// Counts new statuses and events of the source `name`.
    pub fn extras(&self, name: &str, statuses: usize, events: usize) {
        self.count(name, |source| &source.statuses, statuses);
        self.count(name, |source| &source.events, events);
    }

    fn count(&self, name: &str, counter: impl Fn(&Source) -> &AtomicU64, more: usize) {
        let sources = unpoisoned(self.0.read());
        if let Some(source) = sources.iter().find(|source| source.name == name) {
            counter(source).fetch_add(more as u64, Relaxed);
        }
    }

    pub fn encode(&self, out: &mut Exposition) {
        let sources = unpoisoned(self.0.read());
        let name = "postroom_messages_total";
        out.family(name, "counter", "Messages by source and outcome; conflict: known id, other content.");
        for source in sources.iter() {
            for outcome in Outcome::ALL {
                let count = source.messages[*outcome as usize].load(Relaxed);
                out.sample(name, &[("source", &source.name), ("outcome", outcome.name())], count);
            }
        }
        let name = "postroom_statuses_total";
        out.family(name, "counter", "New statuses of sent messages, by source.");
        for source in sources.iter() {
            out.sample(name, &[("source", &source.name)], source.statuses.load(Relaxed));
        }
        let name = "postroom_events_total";
        out.family(name, "counter", "New events that are neither message nor status, by source.");
        for source in sources.iter() {
            out.sample(name, &[("source", &source.name)], source.events.load(Relaxed));
        }
    }
}

impl Source {
    fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }
}
