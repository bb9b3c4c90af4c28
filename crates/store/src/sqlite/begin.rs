//! The initial index at a start, or after a change of the database: the files next to it, if they belong to
//! these messages, or nothing.

use std::io;

use rusqlite::Connection;

use super::coverage::{Compared, Extent, Failure, compare, compare_samples};
use super::file::FileIdentity;
use super::indexer::IndexMaintainer;
use super::verifier::report;
use crate::observer::DamageKind;
use domain::lock::lock;
use index::folder::Folder;
use index::state::{Home, State};
use runtime::log;

/// Maximum differing rows that are logged before a mismatching index is dropped.
const REPORTED_MAX: usize = 16;

impl IndexMaintainer {
    /// The initial state: that of the files, if they belong to this database, or an empty one.
    pub(super) fn begin(
        &mut self,
        connection: &Connection,
        extent: &Extent,
        database: (u64, u64),
        distrusted: bool,
    ) -> Result<State, Failure> {
        let found = self.found.take();
        let loaded = if distrusted { None } else { Some(Folder::load(&self.folder_path)) };
        let (mut state, samples) = match loaded {
            Some(Ok(loaded)) => loaded,
            Some(Err(error)) => {
                self.tell_of_unusable(&error);
                return self.begin_empty(extent, database);
            }
            None => {
                self.count_damage();
                log::error("the index was wrong, and is rebuilt").emit();
                return self.begin_empty(extent, database);
            }
        };
        let continues = found.is_some_and(|found| found.continues(&state)) && extent.suits(&state, database);
        let Home { schema_version, database, log, .. } = self.home(extent, database);
        (state.schema_version, state.database, state.log) = (schema_version, database, log);
        if !extent.suits(&state, database) {
            return self.begin_anew(extent, database, "it belongs to an earlier state, or to another copy of the file");
        }
        let sampled = compare_samples(connection, &state, &samples)?;
        if let Some(reason) = self.other_rows(connection, &state, sampled.into(), continues) {
            return self.begin_anew(extent, database, &reason);
        }
        self.compare = continues && state.live() > self.pace.compared_first;
        if !self.compare
            && let Some(reason) = self.other_rows(connection, &state, compare(connection, &state)?, continues)
        {
            return self.begin_anew(extent, database, &reason);
        }
        self.saved_note = state.note;
        self.index.publish(Some(state.clone()));
        Ok(state)
    }

    /// Logs why the index cannot be used, and starts with an empty one.
    pub(super) fn begin_anew(&mut self, extent: &Extent, database: (u64, u64), reason: &str) -> Result<State, Failure> {
        log::warning("the index does not match this database, and is rebuilt").text("reason", reason).emit();
        self.begin_empty(extent, database)
    }

    fn begin_empty(&mut self, extent: &Extent, database: (u64, u64)) -> Result<State, Failure> {
        self.compare = false;
        self.index.publish(None);
        if let Some(folder) = lock(&self.control.folder).as_mut() {
            folder.clear()?;
        }
        let state = State::empty(self.home(extent, database), extent.last_note);
        self.saved_note = state.note;
        self.index.publish(Some(state.clone()));
        Ok(state)
    }

    /// The database that a new state belongs to.
    fn home(&self, extent: &Extent, database: (u64, u64)) -> Home {
        let log = FileIdentity::of(&self.path).map_or((0, 0), |files| files.numbers().1);
        let (epoch, tie) = (extent.epoch.clone(), extent.tie().to_owned());
        Home { epoch, tie, schema_version: extent.schema_version, database, log }
    }

    /// Why the table has other rows than a state covers, if so. In the very file of the save, changed rows
    /// are damaged: the index has the right values, and is kept. In another file the changes may be legitimate.
    pub(super) fn other_rows(
        &self,
        connection: &Connection,
        state: &State,
        compared: Compared,
        same_file: bool,
    ) -> Option<String> {
        match compared {
            Compared::Same => None,
            Compared::Differing(rows) if same_file => {
                rows.iter().for_each(|row| report(connection, state, &self.index, *row));
                None
            }
            Compared::Differing(rows) => {
                // A few damaged bytes in a file that was modified since are
                // also possible; the log then contains the values of the index.
                rows.iter().take(REPORTED_MAX).for_each(|row| report(connection, state, &self.index, *row));
                Some("it has other messages than the table".to_owned())
            }
            Compared::Other(reason) => Some(reason),
        }
    }

    fn tell_of_unusable(&self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::NotFound => {}
            io::ErrorKind::Unsupported => log::info("the index has another version, and is rebuilt").emit(),
            _ => {
                self.count_damage();
                log::error("the index on disk is damaged, and is rebuilt").cause(error).emit();
            }
        }
    }

    fn count_damage(&self) {
        if let Some(shared) = &self.shared {
            shared.observer.damaged(DamageKind::Index);
        }
    }
}
