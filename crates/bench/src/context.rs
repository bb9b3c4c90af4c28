//! The common context of all sections.

use std::cell::Cell;
use std::sync::Arc;

use super::load::{Prepared, Requests, Writer};
use super::place::Workplace;
use super::plan::Plan;
use super::progress::Progress;

/// The servers, the data and the plan.
pub struct Bench {
    pub workplace: Arc<Workplace>,
    pub writer: Writer,
    pub plan: Plan,
    pub progress: Progress,
    /// The first fresh message that no server has seen.
    pub next_fresh: Cell<u64>,
}

/// Messages reserved for unlimited load: more than any load sends.
const ENDLESS: u64 = 1 << 28;

impl Bench {
    /// Requests with messages that no server has seen, created in advance.
    pub fn prepare(&self, count: u64) -> Prepared {
        Prepared::fresh(&self.writer, self.reserve(count), count)
    }

    /// The same, created when they are sent.
    pub fn endless(&self) -> Requests {
        Requests::Endless(self.writer.clone(), self.reserve(ENDLESS))
    }

    fn reserve(&self, count: u64) -> u64 {
        self.next_fresh.replace(self.next_fresh.get() + count)
    }
}
