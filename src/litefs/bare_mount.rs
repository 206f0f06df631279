//! What was written into the directory of the mount while LiteFS' file system was not there. An application
//! that opens its database in that moment makes a new one, and LiteFS would never be started again: a mount
//! hides what lies below it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In `litefs.data`; LiteFS looks at what it knows there.
const DIR: &str = "left-in-mount";
/// So often something is set aside. Then somebody should look.
const MOST: usize = 100;

/// Moves all that lies in the mount's directory, if there is one, into `litefs.data`, and says where it is
/// then. Only if LiteFS has databases already: else it may be one that is still to be imported.
///
/// # Errors
///
/// When it cannot be moved: it lies where it was.
pub(super) fn set_aside(mount: &Path, data: &Path) -> io::Result<Option<PathBuf>> {
    if !has_databases(data) || !mount.exists() {
        return Ok(None);
    }
    let found = fs::read_dir(mount)?.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        return Ok(None);
    }
    let aside = new_directory(&data.join(DIR))?;
    for entry in found {
        fs::rename(entry.path(), aside.join(entry.file_name()))?;
    }
    Ok(Some(aside))
}

fn has_databases(data: &Path) -> bool {
    fs::read_dir(data.join("dbs")).is_ok_and(|mut databases| databases.next().is_some())
}

fn new_directory(parent: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(parent)?;
    for number in 1..=MOST {
        let dir = parent.join(number.to_string());
        match fs::create_dir(&dir) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir),
        }
    }
    Err(io::Error::other(format!("{} is full: look what it has, and empty it", parent.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_beside_a_litefs_that_has_databases_leftovers_are_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let (mount, data) = (dir.path().join("mount"), dir.path().join("data"));
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("app.db"), "to be imported").unwrap();
        assert_eq!(set_aside(&mount, &data).unwrap(), None);
        assert!(mount.join("app.db").exists());

        fs::create_dir_all(data.join("dbs/app.db")).unwrap();
        for content in ["once", "again"] {
            fs::write(mount.join("app.db"), content).unwrap();
            let aside = set_aside(&mount, &data).unwrap().unwrap();
            assert_eq!(fs::read_to_string(aside.join("app.db")).unwrap(), content);
            assert_eq!(set_aside(&mount, &data).unwrap(), None, "nothing is left");
        }
    }
}
