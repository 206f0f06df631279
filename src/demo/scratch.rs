//! A directory for everything that the nodes write, gone when this is.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

/// Bytes of its path: the sockets in it have to fit into the 107 that Linux takes.
const LONGEST: usize = 85;

/// A temporary directory for this user alone. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one below `$TMPDIR`, or `/tmp`.
    ///
    /// # Errors
    ///
    /// Why it cannot be made, and what to do.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        let make = || -> io::Result<PathBuf> {
            let chance = getrandom::u32().map_err(io::Error::other)?;
            // Absolute: it is written into configurations.
            let dir = parent.canonicalize()?.join(format!("litepilot-demo-{chance:08x}"));
            if dir.as_os_str().len() > LONGEST {
                let detail = "its path is too long for the sockets in it";
                return Err(io::Error::new(io::ErrorKind::InvalidFilename, detail));
            }
            DirBuilder::new().mode(0o700).create(&dir)?;
            Ok(dir)
        };
        let failed = |why: io::Error| {
            anyhow!(
                "cannot make a directory in {}: {why}; set TMPDIR to a short path where this user may write",
                parent.display()
            )
        };
        make().map(Self).map_err(failed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it where it is, for somebody who still uses it.
    pub(crate) fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        if let Err(why) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {why}; remove it by hand", self.0.display());
        }
    }
}
