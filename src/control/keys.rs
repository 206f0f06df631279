//! What was done once, on a node whose data_dir is where everybody looks: `data_dir/once`, a key on
//! each line, the newest last.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::key::OnceKey;
use crate::files::{self, at};

const NAME: &str = "once";
/// So many are kept; the oldest are forgotten first.
const KEPT: usize = 1024;
/// Bytes; above what [`KEPT`] of the longest keys take.
const MAX_FILE: u64 = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Keys {
    path: PathBuf,
    /// Held while it is written.
    writing: Mutex<()>,
}

impl Keys {
    /// Those in `data_dir`.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(NAME), writing: Mutex::new(()) }
    }

    /// Whether a key is there. Blocks.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds something else: to take it for empty would do things
    /// twice.
    pub(crate) fn contains(&self, key: &OnceKey) -> io::Result<bool> {
        Ok(self.read()?.contains(key))
    }

    /// Adds a key. It is on the disk when this returns. Blocks.
    ///
    /// # Errors
    ///
    /// When the file can be neither read nor written.
    pub(crate) fn add(&self, key: OnceKey) -> io::Result<()> {
        let _writing = self.writing.lock();
        let mut keys = self.read()?;
        if keys.contains(&key) {
            return Ok(());
        }
        keys.push(key);
        let first = keys.len().saturating_sub(KEPT);
        let text: String = keys[first..].iter().map(|key| format!("{key}\n")).collect();
        files::replace(&self.path, text.as_bytes()).map_err(|error| at(&self.path, error))
    }

    fn read(&self) -> io::Result<Vec<OnceKey>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.path, error)),
        };
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).map_err(|error| at(&self.path, error))?;
        let text = String::from_utf8_lossy(&text);
        let keys: Result<_, _> = text.lines().map(str::parse).collect();
        keys.map_err(|_| {
            let what = "it should hold a key on each line: restore it, or delete it, and what was done once may be done again";
            at(&self.path, io::Error::new(io::ErrorKind::InvalidData, what))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn key(text: &str) -> OnceKey {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_stays_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Keys::new(dir.path()).contains(&key("v1")).unwrap());
        Keys::new(dir.path()).add(key("v1")).unwrap();
        Keys::new(dir.path()).add(key("v1")).unwrap();
        Keys::new(dir.path()).add(key("v2")).unwrap();
        assert!(Keys::new(dir.path()).contains(&key("v1")).unwrap());
        assert!(!Keys::new(dir.path()).contains(&key("v")).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join(NAME)).unwrap(), "v1\nv2\n");
    }

    #[test]
    fn the_oldest_are_forgotten_before_it_grows_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let longest = |i: usize| format!("{i:0>128}\n");
        let full: String = (0..KEPT).map(longest).collect();
        fs::write(dir.path().join(NAME), full).unwrap();
        let keys = Keys::new(dir.path());
        keys.add(key("new")).unwrap();
        assert!(keys.contains(&key("new")).unwrap());
        assert!(!keys.contains(&key(longest(0).trim())).unwrap());
        assert!(keys.contains(&key(longest(1).trim())).unwrap());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        for bad in [&b"v1\nno key\n"[..], b"v1\n\nv2\n", b"\xff\n"] {
            fs::write(&path, bad).unwrap();
            let keys = Keys::new(dir.path());
            let error = keys.contains(&key("v1")).unwrap_err().to_string();
            assert!(error.contains("delete it") && error.contains("/once"), "{error}");
            keys.add(key("v2")).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }
}
