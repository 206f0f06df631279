//! Files of ours that must survive a crash whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file so that after a crash, of the process or of the machine, there is the old one or
/// the new one. It is on the disk when this returns.
///
/// # Errors
///
/// When it cannot be written; the old one then stays.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_with_mode(path, contents, 0o666)
}

/// As [`replace`], with a new file that only its owner can read.
pub(crate) fn replace_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_with_mode(path, contents, 0o600)
}

/// `mode` is less what the process' mask takes away.
fn replace_with_mode(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    // One that was left behind keeps its own mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename is an entry of the directory.
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
