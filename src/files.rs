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

/// Work that waits for the disk, or takes a while: not on the control thread.
///
/// # Errors
///
/// When it was ended.
pub(crate) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// An error, with the file that it is about, and what can be done about a disk.
pub(crate) fn at(path: &Path, error: io::Error) -> io::Error {
    let fails = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": make room",
        io::ErrorKind::ReadOnlyFilesystem => ": mount that disk so that it can be written",
        _ if fails => ": that disk fails: look into the kernel's log, and replace it",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{}: {error}{remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_disk_says_what_to_do() {
        let said =
            |number| at(Path::new("/data/x"), io::Error::from_raw_os_error(number)).to_string();
        assert!(said(28).starts_with("/data/x: ") && said(28).ends_with(": make room"));
        assert!(said(5).contains("replace it"));
        assert!(said(2).ends_with("(os error 2)"));
    }
}
