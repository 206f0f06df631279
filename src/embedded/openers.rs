//! Who has the database open: an application's connections of a replica's time stay read-only when its
//! node becomes the primary, for as long as they are open.
//!
//! Asks the kernel, through `/proc`, and opens nothing: closing it would drop SQLite's locks (see
//! [`super::observe`]). Processes of other users are seen by root only, those of another container by
//! nobody.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::observe::file_at;

/// A file descriptor of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opener {
    pub(crate) pid: u32,
    pub(crate) descriptor: u32,
}

/// The descriptors by which other processes have the database at `path` open, in order. Reads all of
/// `/proc`: takes milliseconds, and blocks.
///
/// # Errors
///
/// When the database or `/proc` cannot be looked at. No database is opened by nobody.
pub(crate) fn openers(path: &Path) -> io::Result<Vec<Opener>> {
    let Some(file) = file_at(path)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let Some(pid) = number(&process?.file_name()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        // It may have ended, or be none of our business.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in descriptors.flatten() {
            let here = fs::metadata(entry.path()).is_ok_and(|f| (f.dev(), f.ino()) == file);
            if let Some(descriptor) = number(&entry.file_name()).filter(|_| here) {
                found.push(Opener { pid, descriptor });
            }
        }
    }
    found.sort();
    Ok(found)
}

fn number(name: &std::ffi::OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}
