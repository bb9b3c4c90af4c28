//! Snapshots of the visible output in files of the repository, so that a review shows each change.

use std::path::Path;

/// Compares `actual` with the file at `path` of the repository. With `UPDATE_SNAPSHOTS=1` writes the file.
pub fn assert_snapshot(path: &str, actual: &str) {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, actual).expect("the snapshot can be written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    let first = expected.lines().zip(actual.lines()).find(|(expected, actual)| expected != actual);
    assert!(
        expected == actual,
        "{path} is not what it was; first difference: {first:?}. If that is meant, run the test with UPDATE_SNAPSHOTS=1"
    );
}
