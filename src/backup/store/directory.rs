//! A directory as a store: on another disk, or what another machine exports.
//!
//! A file appears under its name whole and on the disk, or not at all: it is written beside it, synced, and
//! then linked, which fails if the name is taken.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{Entry, Put, Store, StoreError};
use crate::engine::BoxFuture;

/// What is being written; never a key of ours.
const INCOMING: &str = ".incoming-";

pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let root = self.0.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                work(&root).map_err(|error| explain(&root, &error))
            });
            done.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
        })
    }
}

impl Store for Directory {
    fn put<'a>(&'a self, key: &'a str, from: &'a Path) -> BoxFuture<'a, Result<Put, StoreError>> {
        let (key, from) = (key.to_owned(), from.to_owned());
        self.on_disk(move |root| put(root, &key, &from))
    }

    fn get<'a>(&'a self, key: &'a str, to: &'a Path) -> BoxFuture<'a, Result<(), StoreError>> {
        let (key, to) = (key.to_owned(), to.to_owned());
        self.on_disk(move |root| fs::copy(root.join(key), to).map(drop))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        let prefix = prefix.to_owned();
        self.on_disk(move |root| {
            let mut entries = Vec::new();
            walk(root, &mut String::new(), &mut entries)?;
            entries.retain(|entry| entry.key.starts_with(&prefix));
            Ok(entries)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let key = key.to_owned();
        self.on_disk(move |root| match fs::remove_file(root.join(key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }
}

fn put(root: &Path, key: &str, from: &Path) -> io::Result<Put> {
    let path = root.join(key);
    let dir = path.parent().unwrap_or(root);
    make_dirs(dir)?;
    let incoming = dir.join(format!("{INCOMING}{}", crate::secret::random_hex::<8>()?));
    let linked = write(from, &incoming).and_then(|()| fs::hard_link(&incoming, &path));
    let _ = fs::remove_file(&incoming);
    match linked {
        Ok(()) => File::open(dir)?.sync_all().map(|()| Put::Made),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Put::Exists),
        Err(error) => Err(error),
    }
}

fn write(from: &Path, to: &Path) -> io::Result<()> {
    let mut to = File::options().write(true).create_new(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut to)?;
    to.sync_all()
}

/// Each is an entry of the one above, which has to be on the disk as well.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make_dirs(above)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(above)?.sync_all()?,
        }
    }
    Ok(())
}

fn walk(dir: &Path, key: &mut String, entries: &mut Vec<Entry>) -> io::Result<()> {
    let found = match dir.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for entry in found {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(INCOMING) {
            continue;
        }
        let length = key.len();
        key.push_str(&name);
        if entry.file_type()?.is_dir() {
            key.push('/');
            walk(&entry.path(), key, entries)?;
        } else if let Some(found) = look(&entry, key)? {
            entries.push(found);
        }
        key.truncate(length);
    }
    Ok(())
}

/// `None`: it is gone meanwhile.
fn look(entry: &fs::DirEntry, key: &str) -> io::Result<Option<Entry>> {
    let metadata = match entry.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = u64::try_from(modified.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(Entry { key: key.to_owned(), size: metadata.len(), modified }))
}

fn explain(root: &Path, error: &io::Error) -> StoreError {
    let text = format!("{}: {error}", root.display());
    match error.kind() {
        ErrorKind::NotFound => StoreError::NotThere(text),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Refused(format!("{text}: let Litepilot's user write there"))
        }
        _ => StoreError::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::new(dir.path().join("deep/store"));
        assert!(store.list("").await.unwrap().is_empty(), "not made yet");
        let file = dir.path().join("file");
        fs::write(&file, "one").unwrap();
        assert_eq!(store.put("db/a/x.ltx", &file).await, Ok(Put::Made));
        fs::write(&file, "two").unwrap();
        assert_eq!(store.put("db/a/x.ltx", &file).await, Ok(Put::Exists));
        store.get("db/a/x.ltx", &file).await.unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"one");
        let listed = store.list("db/").await.unwrap();
        assert_eq!((listed.len(), &*listed[0].key, listed[0].size), (1, "db/a/x.ltx", 3));
        assert!(store.list("other").await.unwrap().is_empty());
        store.delete("db/a/x.ltx").await.unwrap();
        store.delete("db/a/x.ltx").await.unwrap();
        let gone = store.get("db/a/x.ltx", &file).await;
        assert!(matches!(gone, Err(StoreError::NotThere(_))), "{gone:?}");
    }
}
