//! An index over the messages of a table, outside the database: their order, their senders, their words. It is made of
//! segments that never change, so that building it needs no lock and reading it sees one state. Nothing here knows SQL.

pub mod answer;
pub mod build;
pub mod file;
pub mod folder;
pub(crate) mod grams;
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
pub(crate) mod table;
pub mod verify;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::domain::lock::lock;
pub use manifest::Sample;
use merge::Member;
pub use state::Limits;
use state::State;

/// The index as it is now, for whoever reads it.
#[derive(Debug, Default)]
pub struct Index {
    current: Mutex<Option<Arc<State>>>,
    /// Held while a new state is made from the current one.
    change: Mutex<()>,
    /// Held while that is waited for: who has just made one, and goes on, comes after who waits.
    turn: Mutex<()>,
    distrusted: AtomicBool,
    /// Rows that differ from what was taken in, as far as that was logged.
    reported: Mutex<HashSet<i64>>,
}

/// So many rows that differ are logged, one by one.
const REPORTED_MAX: usize = 1_000;

impl Index {
    /// The current state; none while nothing is known.
    pub fn current(&self) -> Option<Arc<State>> {
        lock(&self.current).clone()
    }

    /// Keeps others from publishing, until dropped.
    pub fn change(&self) -> MutexGuard<'_, ()> {
        let _turn = lock(&self.turn);
        lock(&self.change)
    }

    /// Replaces the current state.
    pub fn publish(&self, state: Option<State>) {
        let before = std::mem::replace(&mut *lock(&self.current), state.map(Arc::new));
        // What only it held is given back here, outside the lock.
        drop(before);
    }

    /// Whether a row that differs from what was taken in was not reported yet, and is to be.
    pub fn is_news(&self, row: i64) -> bool {
        let mut reported = lock(&self.reported);
        reported.len() < REPORTED_MAX && reported.insert(row)
    }

    /// Something read from it was damaged: it has to be built anew.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
        *lock(&self.current) = None;
    }

    /// Whether that was said since the last time this was asked.
    pub fn take_distrust(&self) -> bool {
        self.distrusted.swap(false, Ordering::Relaxed)
    }

    /// Puts a segment in the place of those that it was made from. What died in them meanwhile is dead in it, too. Answers
    /// whether it was: they may be gone.
    pub fn replace(&self, old: &[Member], new: Member, file: u64) -> io::Result<bool> {
        let _changing = self.change();
        let Some(current) = self.current() else { return Ok(false) };
        let place = |member: &Member| {
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
            state.members.insert(state.files.len(), Member { dead: Arc::new(dead), ..new });
            state.files.push(file);
        }
        self.publish(Some(state));
        Ok(true)
    }
}
