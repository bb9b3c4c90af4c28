//! An index over the messages of a table, outside the database: order, senders and texts. It consists of immutable
//! segments, so that building needs no lock and a read sees one state. This module contains no SQL.

pub mod answer;
pub mod build;
pub mod file;
pub mod folder;
pub mod grams;
pub mod key;
mod manifest;
pub mod merge;
pub mod postings;
pub mod run;
pub mod search;
pub mod segment;
pub mod senders;
pub mod source;
pub mod state;
pub mod table;
pub mod verify;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use domain::lock::lock;
pub use manifest::Sample;
use merge::LiveSegment;
pub use state::Limits;
use state::State;

/// The current index, for all readers.
#[derive(Debug, Default)]
pub struct Index {
    current: Mutex<Option<Arc<State>>>,
    /// Locked while a new state is created from the current one.
    change: Mutex<()>,
    /// Locked while waiting for `change`: a thread that has just finished goes behind the waiting threads.
    turn: Mutex<()>,
    distrusted: AtomicBool,
    /// Rows that differ from their indexed values and were logged.
    reported: Mutex<HashSet<i64>>,
}

/// Maximum differing rows that are logged one by one.
const REPORTED_MAX: usize = 1_000;

impl Index {
    /// The current state; none before the index is loaded.
    pub fn current(&self) -> Option<Arc<State>> {
        lock(&self.current).clone()
    }

    /// Prevents other threads from publishing, until dropped.
    pub fn change(&self) -> MutexGuard<'_, ()> {
        let _turn = lock(&self.turn);
        lock(&self.change)
    }

    /// Replaces the current state.
    pub fn publish(&self, state: Option<State>) {
        let before = std::mem::replace(&mut *lock(&self.current), state.map(Arc::new));
        // Memory that only the old state used is freed here, outside the lock.
        drop(before);
    }

    /// Whether a row that differs from its indexed values still has to be logged.
    pub fn is_news(&self, row: i64) -> bool {
        let mut reported = lock(&self.reported);
        reported.len() < REPORTED_MAX && reported.insert(row)
    }

    /// Marks the index as damaged: it must be rebuilt.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
        *lock(&self.current) = None;
    }

    /// Whether it was marked since the last call.
    pub fn take_distrust(&self) -> bool {
        self.distrusted.swap(false, Ordering::Relaxed)
    }

    /// Replaces the source segments with the merged one. Messages deleted meanwhile are deleted in it, too. Returns
    /// false if the source segments are no longer there.
    pub fn replace(&self, old: &[LiveSegment], new: LiveSegment, file: u64) -> io::Result<bool> {
        let _changing = self.change();
        let Some(current) = self.current() else { return Ok(false) };
        let place = |member: &LiveSegment| {
            current.members[..current.files.len()].iter().position(|other| Arc::ptr_eq(&other.segment, &member.segment))
        };
        let Some(places) = old.iter().map(place).collect::<Option<Vec<usize>>>() else { return Ok(false) };
        let mut state = State::clone(&current);
        let mut dead = Vec::new();
        for (member, at) in old.iter().zip(&places) {
            let (mut entries, mut rows) = (member.segment.entries(), member.segment.rows());
            for rank in current.members[*at].dead.iter().filter(|rank| member.dead.binary_search(rank).is_err()) {
                let (place, _) = entries.at((*rank).into())?;
                dead.extend(new.segment.rank_of(place, rows.row(*rank)?)?);
            }
        }
        dead.sort_unstable();
        let is_old = |at: usize| places.contains(&at);
        let mut at = 0..;
        state.members.retain(|_| !is_old(at.next().expect("there is no end")));
        let mut at = 0..;
        state.files.retain(|_| !is_old(at.next().expect("there is no end")));
        if new.segment.count() > 0 {
            state.members.insert(state.files.len(), LiveSegment { dead: Arc::new(dead), ..new });
            state.files.push(file);
        }
        self.publish(Some(state));
        Ok(true)
    }
}
