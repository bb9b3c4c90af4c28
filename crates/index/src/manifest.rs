//! The manifest: a file that names the files of an index and their coverage. Its last line is a checksum of
//! the other lines.

use std::io;

use serde::{Deserialize, Serialize};

use super::merge::LiveSegment;
use super::source::damaged;
use super::state::State;
use domain::fold::UNICODE_VERSION;

/// The format of the manifest; another one is not read, and the index is rebuilt.
const VERSION: u32 = 3;

/// A message of the table with a hash of its values, to detect whether an index was built from a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its row.
    pub row: i64,
    /// The hash of its values.
    pub hash: u32,
}

/// The content of the manifest: the fields of `State`, with files instead of their contents.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Unicode version of the case folding: another version gives other grams.
    unicode: (u64, u64, u64),
    pub epoch: String,
    pub tie: String,
    pub schema_version: i64,
    pub database: (u64, u64),
    pub log: (u64, u64),
    pub digest: u64,
    pub row: i64,
    pub note: i64,
    pub senders: u64,
    /// The checksum of the senders' file, which distinguishes it from an older file with the same number.
    pub senders_checksum: u32,
    pub segments: Vec<Listed>,
    pub samples: Vec<Sample>,
}

/// The first member of every format of the manifest.
#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

/// A segment in the manifest.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    pub file: u64,
    /// A checksum like that of the senders.
    pub checksum: u32,
    pub dead: Vec<u32>,
}

impl Manifest {
    /// The manifest of a state whose segments are all in files. `senders` has the counts' file and its checksum.
    pub fn new(state: &State, (senders, senders_checksum): (u64, u32), samples: Vec<Sample>) -> Self {
        let segments = state.files.iter().zip(&state.members);
        Self {
            version: VERSION,
            unicode: UNICODE_VERSION,
            epoch: state.epoch.clone(),
            tie: state.tie.clone(),
            schema_version: state.schema_version,
            database: state.database,
            log: state.log,
            digest: state.digest,
            row: state.row,
            note: state.note,
            senders,
            senders_checksum,
            segments: segments.map(|(file, member)| Listed::new(*file, member)).collect(),
            samples,
        }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(with_checksum(serde_json::to_vec(self)?))
    }

    /// Parses the output of `encode`. Bytes without a second line have the first version, without a checksum.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let other_version = || io::Error::new(io::ErrorKind::Unsupported, "the manifest has another version");
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.len() == bytes.len() && serde_json::from_slice::<Versioned>(bytes).is_ok_and(|it| it.version < VERSION)
        {
            return Err(other_version());
        }
        if with_checksum(line.to_vec()) != bytes {
            return Err(damaged("the checksum of the manifest does not match"));
        }
        if serde_json::from_slice::<Versioned>(line)?.version != VERSION {
            return Err(other_version());
        }
        let manifest: Self = serde_json::from_slice(line)?;
        if manifest.unicode != UNICODE_VERSION {
            return Err(other_version());
        }
        Ok(manifest)
    }
}

impl Listed {
    fn new(file: u64, member: &LiveSegment) -> Self {
        Self { file, checksum: member.segment.checksum(), dead: member.dead.to_vec() }
    }
}

/// A line of text, and a line with its checksum.
fn with_checksum(mut text: Vec<u8>) -> Vec<u8> {
    let checksum = crc32fast::hash(&text);
    text.extend_from_slice(format!("\n{checksum:08x}\n").as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_the_first_version_is_not_read_and_not_called_damaged() {
        let old =
            br#"{"version":1,"unicode":[16,0,0],"epoch":"e","row":1,"note":0,"senders":2,"segments":[],"samples":[]}"#;
        assert_eq!(Manifest::decode(old).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
