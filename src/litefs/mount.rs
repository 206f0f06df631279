//! The directory in which LiteFS' file system is mounted: whether it is, and its removal.
//!
//! The kernel's list of mounts is read rather than the directory itself: whatever touches a mount whose
//! LiteFS hangs, hangs too.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// The mounts of this process, proc_pid_mountinfo(5).
const MOUNTS: &str = "/proc/self/mountinfo";
/// statfs' type of FUSE.
const FUSE: u64 = 0x6573_5546;
/// How long a file system may take to show that it is alive.
const PATIENCE: Duration = Duration::from_secs(1);
/// More mounts on top of each other than restarts without cleaning up leave behind.
const MOST: usize = 64;

/// Whether a FUSE file system is mounted just there.
///
/// # Errors
///
/// When the list of mounts cannot be read.
pub fn is_mounted(dir: &Path) -> io::Result<bool> {
    Ok(count(&fs::read(MOUNTS)?, &absolute(dir)) > 0)
}

/// Whether the directory lies in a FUSE file system; never hand in one whose LiteFS may hang. Nothing
/// of ours is ever written there: LiteFS would take it for a database.
///
/// # Errors
///
/// When it is not there, or its file system is dead.
pub(crate) fn is_fuse(dir: &Path) -> io::Result<bool> {
    Ok(u64::try_from(rustix::fs::statfs(dir)?.f_type).is_ok_and(|kind| kind == FUSE))
}

/// Takes away what LiteFS that have ended left mounted there, also while it is in use: whoever uses it
/// keeps what is left of it until he is done. Says how many mounts there were.
///
/// # Errors
///
/// When one stays, or is alive; the text says what to do.
pub fn clear_dead(dir: &Path) -> io::Result<usize> {
    let dir = absolute(dir);
    for removed in 0..=MOST {
        let left = count(&fs::read(MOUNTS)?, &dir);
        if left == 0 {
            return Ok(removed);
        }
        if !is_dead(&dir) {
            let text =
                format!("{} is mounted already: stop the LiteFS that runs there", dir.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        detach(&dir).map_err(|error| {
            let text = format!(
                "{dir} has a mount that cannot be removed ({error}): run `umount -l {dir}` as root",
                dir = dir.display()
            );
            io::Error::new(error.kind(), text)
        })?;
    }
    Err(io::Error::other(format!("{} is mounted again and again", dir.display())))
}

/// Whether the file system on top has lost its process. One that does not answer has not: it hangs.
fn is_dead(dir: &Path) -> bool {
    let (sender, answer) = mpsc::channel();
    let dir = dir.to_owned();
    // A thread that hangs with it ends with it, too.
    let asked = thread::Builder::new().name("litefs-mount".to_owned()).spawn(move || {
        let _ = sender.send(rustix::fs::statfs(&dir).err());
    });
    asked.is_ok() && answer.recv_timeout(PATIENCE).is_ok_and(|error| error == Some(Errno::NOTCONN))
}

/// By the system call, or without the right to it by FUSE's own helper.
fn detach(dir: &Path) -> io::Result<()> {
    match unmount(dir, UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            let mut helper = Command::new("fusermount3");
            helper.arg("-uz").arg("--").arg(dir).stdin(Stdio::null());
            let done = helper.output()?;
            let why = String::from_utf8_lossy(&done.stderr);
            if done.status.success() {
                Ok(())
            } else {
                Err(io::Error::other(why.trim().to_owned()))
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// The path as the kernel lists it. The last component is not looked at: it may be a dead mount.
pub(super) fn absolute(dir: &Path) -> PathBuf {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => {
            fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()).join(name)
        }
        _ => whole,
    }
}

/// How many FUSE file systems are mounted there.
fn count(mounts: &[u8], dir: &Path) -> usize {
    let ours = |line: &&[u8]| fuse_mount(line).is_some_and(|at| at == dir);
    mounts.split(|byte| *byte == b'\n').filter(ours).count()
}

/// Where a line's file system is mounted, if it is FUSE:
/// `36 35 98:0 /root /mount options optional… - type source options`.
fn fuse_mount(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = fields.nth(4)?;
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?;
    (kind == b"fuse" || kind.starts_with(b"fuse.")).then(|| unescaped(at))
}

/// Blanks and the like are written as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(octal);
        path.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &behind[3..] } else { behind };
    }
    OsString::from_vec(path).into()
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
42 27 0:39 / /litefs rw,nosuid,nodev,relatime - fuse litefs rw,user_id=0,group_id=0\n\
43 42 0:40 / /litefs rw shared:3 master:1 - fuse litefs rw,user_id=0\n\
44 27 0:41 / /a\\040b rw - fuse.litefs litefs rw\n\
45 27 0:42 / /plain rw - tmpfs tmpfs rw\n\
broken line\n\n";

    #[test]
    fn fuse_mounts_are_counted_where_they_are() {
        for (dir, expected) in
            [("/litefs", 2), ("/a b", 1), ("/plain", 0), ("/", 0), ("/litefs/x", 0), ("/a", 0)]
        {
            assert_eq!(count(LIST, Path::new(dir)), expected, "{dir}");
        }
    }

    #[test]
    fn a_plain_directory_is_neither_mounted_nor_fuse_and_needs_no_clearing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mounted(dir.path()).unwrap());
        assert!(!is_fuse(dir.path()).unwrap());
        assert_eq!(clear_dead(dir.path()).unwrap(), 0);
        assert!(is_fuse(&dir.path().join("missing")).is_err());
        assert!(!is_mounted(&dir.path().join("missing")).unwrap());
    }
}
