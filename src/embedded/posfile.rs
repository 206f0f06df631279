//! The files beside the database that tell applications where they are, in LiteFS' format:
//! `<db>-pos` (`txid/checksum\n`, 34 bytes) and `.primary` (absent on the primary, else the
//! primary's name and `\n`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cluster::NodeId;
use crate::files::at;
use crate::txid::Position;

/// statfs' type of FUSE.
const FUSE: u32 = 0x6573_5546;

/// Where the files are.
#[derive(Debug)]
pub struct PosFiles {
    pos: PathBuf,
    primary: PrimaryFile,
}

/// `.primary` in some directory.
#[derive(Debug)]
pub struct PrimaryFile(PathBuf);

impl PosFiles {
    /// The files of `database`, in the directory `mount`.
    ///
    /// # Errors
    ///
    /// If either lies in a FUSE file system, where LiteFS makes these files and writing them would
    /// leave a bogus database; or if a directory is missing.
    pub fn new(mount: &Path, database: &Path) -> io::Result<Self> {
        let mut pos = database.as_os_str().to_owned();
        pos.push("-pos");
        database.parent().map_or(Ok(()), plain)?;
        Ok(Self { pos: pos.into(), primary: PrimaryFile::new(mount)? })
    }

    /// Publishes what this copy holds.
    pub(crate) fn set_position(&self, position: &Position) -> io::Result<()> {
        let text = format!("{}/{}\n", position.at.txid, position.checksum);
        replace(&self.pos, text.as_bytes())
    }

    /// Publishes who the primary is, `None` if this node is.
    pub(crate) fn set_primary(&self, primary: Option<&NodeId>) -> io::Result<()> {
        self.primary.set(primary)
    }
}

impl PrimaryFile {
    /// The one in `dir`.
    ///
    /// # Errors
    ///
    /// If that lies in a FUSE file system: in LiteFS' a bogus database would be left. Or if it is
    /// missing.
    pub fn new(dir: &Path) -> io::Result<Self> {
        plain(dir)?;
        Ok(Self(dir.join(".primary")))
    }

    /// Publishes who the primary is; `None` if this node is, or nobody.
    pub(crate) fn set(&self, primary: Option<&NodeId>) -> io::Result<()> {
        match primary {
            Some(name) => replace(&self.0, format!("{name}\n").as_bytes()),
            None => match fs::remove_file(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&self.0, error)),
                _ => Ok(()),
            },
        }
    }
}

fn plain(dir: &Path) -> io::Result<()> {
    let found = rustix::fs::statfs(dir).map_err(|e| at(dir, e.into()))?;
    if u32::try_from(found.f_type).is_ok_and(|kind| kind == FUSE) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} is a FUSE file system, perhaps LiteFS': a plain directory is needed here",
                dir.display()
            ),
        ));
    }
    Ok(())
}

/// Replaces a file without flushing it to disk: it outlives the process, not the machine.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(|e| at(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_as_litefs_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = PosFiles::new(dir.path(), &dir.path().join("db")).unwrap();
        files.set_position(&Position::default()).unwrap();
        let pos = fs::read_to_string(dir.path().join("db-pos")).unwrap();
        assert_eq!(pos, "0000000000000000/8000000000000000\n");
        assert_eq!(pos.len(), 34);
        files.set_primary(Some(&"node-1".parse().unwrap())).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(".primary")).unwrap(), "node-1\n");
        files.set_primary(None).unwrap();
        files.set_primary(None).unwrap();
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["db-pos"]);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = PosFiles::new(Path::new("/no/such"), Path::new("/no/such/db")).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
    }
}
