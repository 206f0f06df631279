//! Files of ours that must survive a crash whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file so that after a crash, of the process or of the machine, there is the old one or
/// the new one. It is on the disk when this returns.
///
/// # Errors
///
/// When it cannot be written; the old one then stays.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename is an entry of the directory.
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
