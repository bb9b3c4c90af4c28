//! The index on disk: a folder next to the database with a file per segment, and a manifest that names the
//! valid ones. A crash leaves the manifest before or after a change; unnamed files are removed. A checksum
//! covers every byte: in the manifest's last line, and after each part of a file. A read detects damage.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{NewFile, make_folder, new_file};
use super::manifest::{Manifest, Sample};
use super::merge::{LiveSegment, merge};
use super::segment::Segment;
use super::senders::{CountTable, Senders};
use super::source::{Source, damaged};
use super::state::State;

const MANIFEST: &str = "manifest.json";
/// The suffix of files of segments and senders.
const SUFFIX: &str = ".part";

/// The folder, locked by one process at a time.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked while it is open.
    _lock: File,
    next: u64,
    /// Files that no manifest names yet.
    unnamed: BTreeSet<u64>,
}

impl Folder {
    /// The folder of a database.
    pub fn path_of(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push("-index");
        PathBuf::from(name)
    }

    /// Bytes of all files in a folder.
    pub fn bytes(path: &Path) -> u64 {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Whether a folder contains anything built from messages.
    pub fn has_segments(path: &Path) -> bool {
        let mut entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.any(|path| path.ends_with(MANIFEST) || path.extension().is_some_and(|ending| ending == &SUFFIX[1..]))
    }

    /// Creates the folder if it is missing, and locks it; none if another process has locked it.
    pub fn take(path: PathBuf) -> io::Result<Option<Self>> {
        make_folder(&path)?;
        let lock = new_file(&path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path, _lock: lock, next: 1, unnamed: BTreeSet::new() })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The contents of the manifest, with its samples. An error if there is none (`NotFound`), it has another version
    /// (`Unsupported`), or anything is missing or damaged (`InvalidData`).
    pub fn load(path: &Path) -> io::Result<(State, Vec<Sample>)> {
        let manifest = Manifest::decode(&fs::read(path.join(MANIFEST))?)?;
        let open = |file: u64| match File::open(file_path(path, file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(damaged("a file is missing")),
            opened => opened.map(Source::File),
        };
        let mut members = Vec::new();
        for listed in &manifest.segments {
            let segment = Segment::open(open(listed.file)?)?;
            if segment.checksum() != listed.checksum {
                return Err(damaged("a file is not the file that the manifest names"));
            }
            if !listed.dead.is_sorted() || listed.dead.last().is_some_and(|last| *last >= segment.count()) {
                return Err(damaged("the manifest does not match a segment"));
            }
            members.push(LiveSegment { segment: Arc::new(segment), dead: Arc::new(listed.dead.clone()) });
        }
        let senders = CountTable::open(open(manifest.senders)?)?;
        if senders.checksum() != manifest.senders_checksum {
            return Err(damaged("a file is not the file that the manifest names"));
        }
        let state = State {
            epoch: manifest.epoch,
            tie: manifest.tie,
            schema_version: manifest.schema_version,
            database: manifest.database,
            log: manifest.log,
            digest: manifest.digest,
            row: manifest.row,
            note: manifest.note,
            files: manifest.segments.iter().map(|listed| listed.file).collect(),
            members,
            senders: Senders::new(senders),
        };
        Ok((state, manifest.samples))
    }

    /// Makes the whole state durable, and returns the state with all segments in files. `tie` gives the
    /// database a new name when the files exist, and returns it: the manifest is written with this name.
    pub fn save(
        &mut self,
        state: &State,
        samples: Vec<Sample>,
        tie: impl FnOnce() -> io::Result<String>,
    ) -> io::Result<State> {
        let mut saved = state.clone();
        let in_memory = saved.members.split_off(state.files.len());
        if !in_memory.is_empty() {
            let file = self.reserve();
            let written = file.write(|to| merge(&in_memory, to));
            let Ok(source) = written else { return Err(self.give_up(file.number, written)) };
            saved.members.push(LiveSegment::new(Segment::open(source)?));
            saved.files.push(file.number);
        }
        let senders = self.reserve();
        let written = senders.write(|to| state.senders.write(to));
        let Ok(source) = written else { return Err(self.give_up(senders.number, written)) };
        let table = CountTable::open(source)?;
        let senders_checksum = table.checksum();
        saved.senders = Senders::new(table);
        match tie() {
            Ok(name) => saved.tie = name,
            Err(error) => {
                let new = saved.files.split_off(state.files.len()).into_iter().chain([senders.number]);
                new.for_each(|number| self.release(number));
                return Err(error);
            }
        }
        let manifest = Manifest::new(&saved, (senders.number, senders_checksum), samples);
        self.write_manifest(&manifest)?;
        let named: BTreeSet<u64> = saved.files.iter().copied().chain([senders.number]).collect();
        self.unnamed.retain(|number| !named.contains(number));
        self.sweep(&named)?;
        Ok(saved)
    }

    fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let new = self.path.join("manifest.new");
        let mut file = new_file(&new)?;
        file.write_all(&manifest.encode()?)?;
        file.sync_all()?;
        fs::rename(new, self.path.join(MANIFEST))?;
        File::open(&self.path)?.sync_all()
    }

    /// A number for a new file, reserved until a manifest names it or it is abandoned.
    pub fn reserve(&mut self) -> NewFile {
        while file_path(&self.path, self.next).exists() {
            self.next += 1;
        }
        let number = self.next;
        self.next += 1;
        self.unnamed.insert(number);
        NewFile::new(file_path(&self.path, number), number)
    }

    /// Releases a reserved number: no manifest will name its file.
    pub fn release(&mut self, number: u64) {
        if self.unnamed.remove(&number) {
            // If the file cannot be removed now, the next sweep tries again.
            let _ = fs::remove_file(file_path(&self.path, number));
        }
    }

    fn give_up<T>(&mut self, number: u64, result: io::Result<T>) -> io::Error {
        self.release(number);
        result.err().unwrap_or_else(|| io::Error::other("the file was abandoned"))
    }

    /// Removes the files without a reference.
    fn sweep(&self, named: &BTreeSet<u64>) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(SUFFIX)?.parse::<u64>().ok());
            if number.is_some_and(|number| !named.contains(&number) && !self.unnamed.contains(&number)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes everything on disk.
    pub fn clear(&mut self) -> io::Result<()> {
        match fs::remove_file(self.path.join(MANIFEST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.sweep(&BTreeSet::new())
    }
}

fn file_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use super::super::build::Row;
    use super::super::key::{Value, place, single};
    use super::super::state::Home;
    use super::*;

    fn row(number: i64) -> Row {
        let text = |text: String| single(Value::Text(text.as_bytes()));
        let id = format!("m{number}");
        Row {
            row: number,
            place: place(Value::Text(b"2025-01-15T10:00:00Z"), Value::Text(id.as_bytes())),
            sender: text(format!("+{}", number % 3)),
            recipient: text("+9".to_owned()),
            text: Some(format!("Number {number}")),
            hash: number as u32,
        }
    }

    fn home() -> Home {
        let (epoch, tie) = ("epoch".to_owned(), "name".to_owned());
        Home { epoch, tie, schema_version: 1, database: (0, 0), log: (0, 0) }
    }

    fn name() -> io::Result<String> {
        Ok("name".to_owned())
    }

    /// A folder with two segments, one with a deleted message.
    fn saved(path: &Path) {
        let mut folder = Folder::take(path.to_owned()).unwrap().expect("nobody else has it");
        let mut state = State::empty(home(), 3);
        for rows in [1..6, 6..9] {
            state.row = rows.end - 1;
            state.add(rows.map(row).collect()).unwrap();
            state = folder.save(&state, vec![Sample { row: 8, hash: 8 }], name).unwrap();
        }
        state.members[0].dead = Arc::new(vec![1]);
        folder.save(&state, vec![Sample { row: 8, hash: 8 }], name).unwrap();
    }

    #[test]
    fn a_manifest_with_any_byte_changed_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        let path = folder.path().join(MANIFEST);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap().segments[0].dead, [1]);
        for at in 0..bytes.len() {
            for flip in [1, 2, 4, 0x20, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                assert!(Manifest::decode(&changed).is_err(), "byte {at} by {flip:#x}");
            }
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut to {at}");
        }
        assert!(Manifest::decode(&[bytes.as_slice(), b"\n"].concat()).is_err());
    }

    #[test]
    fn a_file_of_another_time_under_the_same_number_is_not_taken_for_the_one_that_is_named() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        saved(folder.path());
        let mut rest = Folder::take(other.path().to_owned()).unwrap().unwrap();
        let mut state = State::empty(home(), 3);
        state.add((1..4).map(row).collect()).unwrap();
        rest.save(&state, Vec::new(), name).unwrap();
        let (state, _) = Folder::load(folder.path()).unwrap();
        fs::copy(file_path(other.path(), 1), file_path(folder.path(), state.files[0])).unwrap();
        assert_eq!(Folder::load(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::remove_file(file_path(folder.path(), state.files[0])).unwrap();
        assert_eq!(Folder::load(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
