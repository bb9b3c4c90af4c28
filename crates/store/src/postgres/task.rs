//! The state of each task that works for requests: its progress, and the fault that prevents its work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::failure::Failure;

/// The state of a task.
#[derive(Debug, Default)]
pub(super) struct Task {
    /// Whether it writes.
    pub writes: bool,
    /// The maximum time of its work: until then a lock may delay it; after that it reports a failure itself.
    pub patience: Duration,
    /// Its progress.
    done: AtomicU64,
    /// Its fault.
    fault: Mutex<Option<Failure>>,
}

impl Task {
    pub fn new(writes: bool, patience: Duration) -> Self {
        Self { writes, patience, ..Self::default() }
    }

    /// Records progress.
    pub fn works(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Its progress.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn fault(&self) -> Option<Failure> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_fault(&self, fault: Option<Failure>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// The fault of any task: the first one that is worse than a full disk, otherwise a full disk.
pub(super) fn fault(tasks: &[Arc<Task>]) -> Option<Failure> {
    let mut faults: Vec<_> = tasks.iter().filter_map(|task| task.fault()).collect();
    let worst = faults.iter().position(|fault| !matches!(fault, Failure::DiskFull(_))).unwrap_or(0);
    (!faults.is_empty()).then(|| faults.swap_remove(worst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_only_where_nothing_is_worse() {
        let tasks: Vec<_> = (0..3).map(|_| Arc::new(Task::new(true, Duration::ZERO))).collect();
        assert_eq!(fault(&tasks), None);
        tasks[0].set_fault(Some(Failure::DiskFull("full".to_owned())));
        assert_eq!(fault(&tasks), Some(Failure::DiskFull("full".to_owned())));
        tasks[2].set_fault(Some(Failure::Broken("no right".to_owned())));
        assert_eq!(fault(&tasks), Some(Failure::Broken("no right".to_owned())));
    }
}
