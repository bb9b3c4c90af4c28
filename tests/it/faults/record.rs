//! The record of the shim, and the files after a power cut at some moment.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::harness::random::Random;

const HEAD_BYTES: usize = 16;
/// The unit that a disk writes atomically.
const SECTOR_BYTES: usize = 512;

/// The files, by their numbers.
pub const DATABASE: u8 = 0;
pub const LOG: u8 = 1;
const NAMES: [&str; 3] = ["app.db", "app.db-wal", "app.db-journal"];

/// One event. Its order in the record is the order in which it happened.
pub enum Event {
    Write {
        file: u8,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: u8,
        size: usize,
    },
    Synced {
        file: u8,
    },
    SyncFailed {
        file: u8,
    },
    Removed {
        file: u8,
    },
    /// The test had read the 200 for this id.
    Acked(String),
}

/// Returns a function that appends a marker to the record when a response has been read.
pub fn marker(record: &Path) -> Arc<dyn Fn(&str) + Send + Sync> {
    let file = OpenOptions::new().append(true).create(true).open(record).expect("the record can be opened");
    Arc::new(move |id: &str| {
        let mut event = vec![b'M', 0, 0, 0];
        event.extend_from_slice(&(id.len() as u32).to_ne_bytes());
        event.extend_from_slice(&[0; 8]);
        event.extend_from_slice(id.as_bytes());
        // A single write in append mode: it is stored whole, between the events of the shim.
        (&file).write_all(&event).expect("the marker is written");
    })
}

pub fn read(record: &Path) -> Vec<Event> {
    let all = std::fs::read(record).expect("the record can be read");
    let (mut rest, mut events) = (all.as_slice(), Vec::new());
    // A killed program may have left a partial event at the end.
    while let Some((head, after)) = rest.split_at_checked(HEAD_BYTES) {
        let length = u32::from_ne_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        let offset = u64::from_ne_bytes(head[8..16].try_into().expect("eight bytes")) as usize;
        let Some((bytes, after)) = after.split_at_checked(length) else { break };
        let file = head[1];
        events.push(match head[0] {
            b'W' => Event::Write { file, offset, bytes: bytes.to_vec() },
            b'T' => Event::Truncate { file, size: offset },
            b'S' => Event::Synced { file },
            b'F' => Event::SyncFailed { file },
            b'U' => Event::Removed { file },
            b'M' => Event::Acked(String::from_utf8(bytes.to_vec()).expect("an id is text")),
            kind => panic!("the record has an event of kind {kind}"),
        });
        rest = after;
    }
    events
}

/// A file on a disk: its durable content, and the writes that may or may not have reached the disk.
#[derive(Default, Clone)]
struct OnDisk<'a> {
    safe: Vec<u8>,
    unsafe_yet: Vec<&'a Event>,
}

impl OnDisk<'_> {
    /// Everything written is durable now.
    fn sync(&mut self) {
        for event in self.unsafe_yet.drain(..) {
            apply(&mut self.safe, event, |_| true);
        }
    }

    /// Decides randomly, for each write and sector, whether it reached the disk or never will.
    fn settle(&mut self, random: &mut Random) {
        for event in self.unsafe_yet.drain(..) {
            match random.below(4) {
                0 => {}
                1 => apply(&mut self.safe, event, |_| random.one_in(2)),
                _ => apply(&mut self.safe, event, |_| true),
            }
        }
    }
}

fn apply(image: &mut Vec<u8>, event: &Event, mut arrived: impl FnMut(usize) -> bool) {
    match event {
        Event::Truncate { size, .. } => image.resize(*size, 0),
        Event::Write { offset, bytes, .. } => {
            let mut at = 0;
            while at < bytes.len() {
                let sector_end = SECTOR_BYTES - (offset + at) % SECTOR_BYTES + at;
                let end = sector_end.min(bytes.len());
                if arrived(at) {
                    image.resize(image.len().max(offset + end), 0);
                    image[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
                }
                at = end;
            }
        }
        _ => {}
    }
}

/// Replays a record once, and can write the files after a power cut at any event.
pub struct Disk<'a> {
    files: BTreeMap<u8, OnDisk<'a>>,
    /// The disk ignores syncs of the log.
    log_syncs_ignored: bool,
}

impl<'a> Disk<'a> {
    pub fn new(log_syncs_ignored: bool) -> Self {
        Self { files: BTreeMap::new(), log_syncs_ignored }
    }

    pub fn see(&mut self, event: &'a Event, random: &mut Random) {
        match event {
            Event::Write { file, .. } | Event::Truncate { file, .. } => {
                self.files.entry(*file).or_default().unsafe_yet.push(event);
            }
            Event::Synced { file: LOG } if self.log_syncs_ignored => {}
            Event::Synced { file } => self.files.entry(*file).or_default().sync(),
            // After this the kernel marks the pages clean: no later sync writes them to the disk.
            Event::SyncFailed { file } => self.files.entry(*file).or_default().settle(random),
            Event::Removed { file } => drop(self.files.remove(file)),
            Event::Acked(_) => {}
        }
    }

    /// Writes the files as they would be after a cut at this moment.
    pub fn cut(&self, folder: &Path, random: &mut Random) {
        for (file, mut on_disk) in self.files.clone() {
            on_disk.settle(random);
            let path = folder.join(NAMES[usize::from(file)]);
            File::create(path).and_then(|mut file| file.write_all(&on_disk.safe)).expect("a file can be written");
        }
    }
}
