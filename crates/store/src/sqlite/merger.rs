//! The thread that merges many small segments into few large ones, so that a read searches only a few.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::control::{Control, give_way};
use domain::lock::lock;
use index::Index;
use index::file::{NewFile, NewFileWriter};
use index::merge::{LiveSegment, merge};
use index::segment::Segment;
use runtime::log;
use runtime::process::give_back_memory;

/// The running thread.
pub(super) struct Merger {
    work: Option<SyncSender<Vec<LiveSegment>>>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// Starts the thread.
    pub fn start(index: Arc<Index>, control: Arc<Control>) -> io::Result<Self> {
        // One merge at a time; a merge that is due meanwhile is requested again later.
        let (work, waiting) = sync_channel(0);
        let run = move || {
            give_way();
            attend(&waiting, &index, &control);
        };
        let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(run)?;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    /// Merges these segments, unless a merge is in progress.
    pub fn ask(&self, members: Vec<LiveSegment>) {
        if let Some(work) = &self.work {
            let _ = work.try_send(members);
        }
    }

    /// Ends the thread; a merge in progress is abandoned.
    pub fn close(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn attend(waiting: &Receiver<Vec<LiveSegment>>, index: &Index, control: &Control) {
    while let Ok(members) = waiting.recv() {
        let Some(file) = lock(&control.folder).as_mut().map(|folder| folder.reserve()) else { continue };
        let merged = write(&members, &file, control).and_then(|member| index.replace(&members, member, file.number));
        let is_used = merged.as_ref().is_ok_and(|used| *used);
        if is_used {
            control.save_wanted.store(true, Ordering::Relaxed);
        } else if let Some(folder) = lock(&control.folder).as_mut() {
            folder.release(file.number);
        }
        if let Err(error) = merged
            && !control.stop.load(Ordering::Relaxed)
        {
            log::error("segments of the index could not be merged").cause(&error).emit();
            if error.kind() == io::ErrorKind::InvalidData {
                index.distrust();
            }
        }
        drop(members);
        give_back_memory();
    }
}

fn write(members: &[LiveSegment], file: &NewFile, control: &Control) -> io::Result<LiveSegment> {
    let source = file.write(|to| merge(members, Stoppable { to, control }).map(|stoppable| stoppable.to))?;
    Segment::open(source).map(LiveSegment::new)
}

/// A file whose writing ends early when the service stops.
struct Stoppable<'a> {
    to: NewFileWriter,
    control: &'a Control,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.control.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the service stops"));
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
