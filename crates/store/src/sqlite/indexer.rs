//! The thread that maintains the index: it adds rows that the index does not cover yet. No request waits
//! for it, because reads take the rest from the table.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::batch::{Batch, Pace, message, tail};
use super::control::{Control, give_way};
use super::coverage::{Extent, Failure, by_notes, compare, samples};
use super::merger::Merger;
use super::reader::Reader;
use super::schema::OpenError;
use super::shared::{Forget, Shared};
use super::tie::{self, Found};
use crate::Health;
use domain::lock::lock;
use index::folder::Folder;
use index::state::State;
use index::{Index, Sample};
use runtime::log;
use runtime::process::give_back_memory;

/// Interval of the thread's checks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// With at most this many uncovered messages, the thread waits until
/// the writer is less busy; with more, it competes with the writer.
const LAG_POLITE: i64 = 65_536;
/// If more messages than this are committed between two checks, the writer counts as busy.
const BUSY: i64 = 800;
/// Change records that are kept for a crash before the files are updated.
const SAVE_AT_NOTES: i64 = 10_000;
/// The fraction of a file's limit that is written when no more messages arrive, to release its memory.
const RESTING_PART: f64 = 1.0 / 8.0;
/// If files cannot be written, the index stops at this many times the messages of a file.
const IN_MEMORY_FACTOR: u64 = 4;
/// With more uncovered messages than this, progress is logged.
const LAG_TOLD: i64 = 2 * LAG_POLITE;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The running threads.
#[derive(Debug)]
pub(super) struct Indexer {
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

impl Indexer {
    /// Starts the threads. The database must exist.
    pub fn start(path: PathBuf, shared: Arc<Shared>, index: Arc<Index>, found: Found) -> Result<Self, OpenError> {
        let mut maintainer =
            IndexMaintainer::new(path, Some(shared), index, Pace::PRODUCTION).map_err(OpenError::Thread)?;
        maintainer.found = Some(found);
        let control = Arc::clone(&maintainer.control);
        let thread = std::thread::Builder::new().name("index".to_owned()).spawn(move || maintainer.run());
        Ok(Self { control, thread: thread.map_err(OpenError::Thread)? })
    }

    /// Ends the threads; segments in memory are written to a file first.
    pub fn close(self) {
        self.control.stop();
        let _ = self.thread.join();
    }
}

/// Builds the missing parts of the index, and calls `tell` with the number of messages after
/// each step. Returns false if a running service owns the index, which then builds it.
pub(super) fn build_now(path: PathBuf, mut tell: impl FnMut(u64)) -> Result<bool, Failure> {
    let index = Arc::new(Index::default());
    let mut maintainer = IndexMaintainer::new(path, None, Arc::clone(&index), Pace::PRODUCTION)?;
    maintainer.take_folder()?;
    let is_ours = lock(&maintainer.control.folder).is_some();
    while is_ours && maintainer.advance(false)? {
        tell(index.current().map_or(0, |state| state.live()));
    }
    maintainer.advance(true)?;
    Ok(is_ours)
}

/// Maintains an index, step by step.
pub(super) struct IndexMaintainer {
    /// The writer that has priority, if any.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) index: Arc<Index>,
    pub(super) pace: Pace,
    pub(super) control: Arc<Control>,
    reader: Reader,
    pub(super) path: PathBuf,
    pub(super) folder_path: PathBuf,
    merger: Merger,
    /// The files found at the start, until the index is first loaded.
    pub(super) found: Option<Found>,
    /// The index is in use, but not yet compared with the table.
    pub(super) compare: bool,
    /// The last change record that the files cover.
    pub(super) saved_note: i64,
    /// When messages were last added; none after a long idle time.
    added: Option<Instant>,
    /// The greatest committed row at the last check.
    committed_row: i64,
    /// An error was logged.
    trouble: bool,
    /// The error that the folder cannot be used was logged.
    no_folder: bool,
    /// Start of a long build, and time of its last log line.
    building: Option<(Instant, Instant)>,
}

/// The result of a step.
struct Step {
    /// More rows are waiting.
    again: bool,
    /// The state that should be written to files, if any.
    save: Option<Save>,
}

/// The data that are written to files.
struct Save {
    state: State,
    samples: Vec<Sample>,
    /// The name of the save.
    tie: String,
}

impl IndexMaintainer {
    /// Initial state, without reading.
    pub fn new(path: PathBuf, shared: Option<Arc<Shared>>, index: Arc<Index>, pace: Pace) -> io::Result<Self> {
        let control = Arc::new(Control::default());
        Ok(Self {
            merger: Merger::start(Arc::clone(&index), Arc::clone(&control))?,
            folder_path: Folder::path_of(&path),
            reader: Reader::new(path.clone(), Arc::default()),
            path,
            found: None,
            compare: false,
            shared,
            index,
            pace,
            control,
            saved_note: 0,
            added: Some(Instant::now()),
            committed_row: 0,
            trouble: false,
            no_folder: false,
            building: None,
        })
    }

    fn run(mut self) {
        give_way();
        loop {
            let again = self.step(false);
            if self.control.wait(if again { Duration::ZERO } else { LOOK_INTERVAL }) {
                break;
            }
        }
        self.end();
    }

    /// Stops merging, and writes segments in memory to a file.
    pub fn end(mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        self.merger.close();
        self.step(true);
    }

    /// Covers more rows; returns whether more remain. At the `end` nothing is added, only saved.
    pub fn step(&mut self, end: bool) -> bool {
        if self.shared.as_ref().is_some_and(|shared| shared.health() == Health::Broken) {
            // The writer may need exclusive access to the file.
            self.reader.let_go();
            return false;
        }
        match self.take_folder() {
            Ok(()) => self.no_folder = false,
            Err(error) => {
                if !std::mem::replace(&mut self.no_folder, true) {
                    let path = self.folder_path.display().to_string();
                    log::error("the folder of the index cannot be used").text("path", &path).cause(&error).emit();
                }
            }
        }
        match self.advance(end) {
            Ok(again) => {
                if std::mem::take(&mut self.trouble) {
                    log::info("the index can be written again").emit();
                }
                again
            }
            Err(error) => {
                // After any error, a fresh connection sees the current file.
                self.reader.let_go();
                if !std::mem::replace(&mut self.trouble, true) {
                    log::error("the index cannot be written; reads stay correct and get slower").cause(&error).emit();
                }
                if matches!(&error, Failure::Index(error) if error.kind() == io::ErrorKind::InvalidData) {
                    self.index.distrust();
                }
                false
            }
        }
    }

    /// Another process on the same database may hold the folder. Until it is released, nothing is written.
    fn take_folder(&mut self) -> io::Result<()> {
        let mut folder = lock(&self.control.folder);
        if folder.is_none() {
            *folder = Folder::take(self.folder_path.clone())?;
            if folder.is_some() {
                // The files of the other process are newer than the state in memory.
                self.index.publish(None);
            }
        }
        Ok(())
    }

    fn advance(&mut self, end: bool) -> Result<bool, Failure> {
        let index = Arc::clone(&self.index);
        let _changing = index.change();
        let (control, shared) = (Arc::clone(&self.control), self.shared.clone());
        let is_broken = move || shared.as_ref().is_some_and(|shared| shared.health() == Health::Broken);
        let over = move || !end && control.stop.load(Ordering::Relaxed) || is_broken();
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(PathBuf::new(), Arc::default()));
        let stepped = reader.read(over, |snapshot| Ok(self.cover(snapshot.connection, snapshot.database, end)));
        self.reader = reader;
        let step = match stepped {
            Ok(step) => step?,
            // The writer, or the next request, identifies the problem of the database and reports it.
            Err(_) if self.shared.is_some() => return Ok(false),
            Err(error) => return Err(io::Error::other(error).into()),
        };
        if let Some(save) = step.save {
            self.save(save)?;
        }
        Ok(step.again && !end)
    }

    /// One step within a snapshot.
    fn cover(&mut self, connection: &Connection, database: (u64, u64), end: bool) -> Result<Step, Failure> {
        let extent = Extent::read(connection)?;
        let Some(extent) = extent else { return Ok(Step { again: false, save: None }) };
        let distrusted = self.index.take_distrust();
        let mut state = match self.index.current().filter(|state| !distrusted && extent.suits(state, database)) {
            Some(state) => State::clone(&state),
            None => self.begin(connection, &extent, database, distrusted)?,
        };
        if self.compare {
            let compared = compare(connection, &state)?;
            if let Some(reason) = self.other_rows(connection, &state, compared, true) {
                state = self.begin_anew(&extent, database, &reason)?;
            }
            self.compare = false;
        }
        if state.tie != extent.tie() {
            // The process that holds the folder has saved meanwhile. As long as the
            // file is continuous between two checks, each of its names is valid.
            extent.tie().clone_into(&mut state.tie);
            self.index.publish(Some(state.clone()));
        }
        let lag = extent.behind(state.row);
        let is_full = self.in_memory(&state)? >= IN_MEMORY_FACTOR as f64;
        let polite = lag < LAG_POLITE && self.writer_is_busy();
        let mut again = false;
        if !end && !is_full && !polite && (lag > 0 || extent.last_note > state.note) {
            if extent.last_note > state.note {
                self.apply_notes(connection, &mut state)?;
                state.note = extent.last_note;
            }
            let batch = tail(connection, state.row, self.pace)?;
            again = batch.is_full();
            if let Some(last) = batch.rows.last() {
                (state.row, self.added) = (last.row, Some(Instant::now()));
            }
            state.add(batch.rows)?;
            self.index.publish(Some(state.clone()));
        }
        self.tell(&state, extent.behind(state.row));
        let rests = self.added.take_if(|added| added.elapsed() >= self.pace.rest).is_some();
        if rests {
            // This also releases memory that other threads have freed.
            give_back_memory();
        }
        let in_memory = self.in_memory(&state)?;
        let is_due = in_memory >= 1.0
            || rests && in_memory >= RESTING_PART
            || state.senders.changed() as u64 >= self.pace.save_at
            || state.note >= self.saved_note + SAVE_AT_NOTES
            || self.control.save_wanted.load(Ordering::Relaxed)
            || end && (state.in_memory() > 0 || state.note > self.saved_note);
        let can_write = self.shared.as_ref().is_none_or(|shared| shared.health() == Health::Ready);
        let save = (is_due && can_write && lock(&self.control.folder).is_some()).then(|| {
            let samples = samples(connection, &state)?;
            let tie = connection.query_row("SELECT lower(hex(randomblob(16)))", [], |row| row.get(0))?;
            Ok::<_, Failure>(Save { state, samples, tie })
        });
        Ok(Step { again, save: save.transpose()? })
    }

    fn writer_is_busy(&mut self) -> bool {
        let Some(shared) = &self.shared else { return false };
        let committed = shared.committed_row.load(Ordering::Relaxed);
        let since = committed.saturating_sub(std::mem::replace(&mut self.committed_row, committed));
        since > BUSY
    }

    /// Applies change records: covered rows become tombstones, and each row is read again.
    fn apply_notes(&self, connection: &Connection, state: &mut State) -> Result<(), Failure> {
        let gone = by_notes(connection, state)?;
        state.members = state.without(&gone.dead);
        state.senders.apply(&gone.changes)?;
        state.digest = state.digest.wrapping_sub(gone.digest);
        let sql = "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages
                   WHERE rowid IN (SELECT row FROM postroom_changes WHERE change > ?1 AND row <= ?2)";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([state.note, state.row])?;
        let mut again = Batch::new(self.pace);
        while let Some(row) = rows.next()? {
            again.push(message(row)?);
            if again.is_full() {
                state.add(std::mem::replace(&mut again, Batch::new(self.pace)).rows)?;
            }
        }
        Ok(state.add(again.rows)?)
    }

    /// How much of a state is only in memory, relative to the limit.
    fn in_memory(&self, state: &State) -> io::Result<f64> {
        let messages = state.in_memory() as f64 / self.pace.save_at as f64;
        Ok(messages.max(state.in_memory_bytes()? as f64 / self.pace.save_at_bytes as f64))
    }

    fn save(&mut self, save: Save) -> io::Result<()> {
        let Save { state, samples, tie } = save;
        // The published and saved state precedes this name in the history of the file.
        let tie = || {
            match &self.shared {
                Some(shared) => shared.tie.commit(&tie, || shared.queue.nudge())?,
                None => tie::put_alone(&self.path, &tie).map_err(io::Error::other)?,
            }
            Ok(tie)
        };
        let saved = match lock(&self.control.folder).as_mut() {
            Some(folder) => folder.save(&state, samples, tie)?,
            None => return Ok(()),
        };
        self.control.save_wanted.store(false, Ordering::Relaxed);
        self.saved_note = saved.note;
        if let Some(shared) = &self.shared {
            shared.forget(Forget { epoch: saved.epoch.clone(), change: saved.note });
        }
        let merge = saved.merge_due(&self.pace.index);
        self.index.publish(Some(saved));
        if let Some(members) = merge {
            self.merger.ask(members);
        }
        give_back_memory();
        Ok(())
    }

    /// Logs the progress of a long build.
    fn tell(&mut self, state: &State, lag: i64) {
        if lag > LAG_TOLD {
            let (since, told) = self.building.get_or_insert_with(|| {
                log::info("indexing messages").value("behind", lag).emit();
                (Instant::now(), Instant::now())
            });
            if told.elapsed() >= PROGRESS_INTERVAL {
                *told = Instant::now();
                let seconds = since.elapsed().as_secs();
                log::info("indexing messages")
                    .value("indexed", state.live())
                    .value("behind", lag)
                    .value("elapsed_seconds", seconds)
                    .emit();
            }
        } else if lag < self.pace.batch as i64
            && let Some((since, _)) = self.building.take()
        {
            let seconds = format!("{:.3}", since.elapsed().as_secs_f64());
            log::info("indexed all messages").value("indexed", state.live()).value("elapsed_seconds", seconds).emit();
            give_back_memory();
        }
    }
}
