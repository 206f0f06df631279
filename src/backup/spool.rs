//! What LiteFS sends, on our disk first: it holds locks of the database while it sends, and must not wait
//! for a bucket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::timeout;

use super::ltx::{Decoder, Facts};
use super::refusal::Refusal;
use crate::files::on_disk;
use crate::secret::random_hex;

/// Bytes that are left free: a disk that is full would cost this node its lease.
const LEAST: u64 = 128 << 20;
/// Between two looks at what is free, in bytes.
const LOOK: u64 = 16 << 20;
/// Between two pieces.
const PIECE: Duration = Duration::from_secs(60);
const BUFFER: usize = 256 * 1024;

/// Our directory for what is on its way.
#[derive(Clone)]
pub(crate) struct Spool(PathBuf);

impl Spool {
    /// Empties it: what is there is of a life before.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn new(dir: PathBuf) -> io::Result<Self> {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    /// # Errors
    ///
    /// When the system has no random bytes.
    pub(crate) fn file(&self) -> io::Result<Spooled> {
        Spooled::name(&self.0)
    }

    /// Takes a body, and looks whether it is a whole LTX file.
    ///
    /// # Errors
    ///
    /// When it breaks off, is damaged, or there is no room.
    pub(crate) async fn take(&self, body: Incoming) -> Result<(Spooled, Facts), Refusal> {
        let file = self.file()?;
        self.write(body, file.path()).await?;
        let path = file.path().to_owned();
        let facts = on_disk(move || verify(&path)).await?;
        let facts = facts.map_err(|why| Refusal::Damaged(why.to_string()))?;
        Ok((file, facts))
    }

    async fn write(&self, mut body: Incoming, path: &Path) -> Result<(), Refusal> {
        let mut file = BufWriter::with_capacity(BUFFER, File::create(path).await?);
        let (mut written, mut looked) = (0u64, None);
        loop {
            if looked.is_none_or(|at| written - at >= LOOK) {
                room(&self.0)?;
                looked = Some(written);
            }
            let late = |_| Refusal::Damaged(format!("nothing came for {PIECE:?}"));
            let Some(frame) = timeout(PIECE, body.frame()).await.map_err(late)? else { break };
            let frame = frame.map_err(|why| Refusal::Damaged(format!("it breaks off: {why}")))?;
            if let Ok(piece) = frame.into_data() {
                written += piece.len() as u64;
                file.write_all(&piece).await?;
            }
        }
        file.flush().await?;
        Ok(())
    }
}

/// A file in a directory of ours that is removed in the end.
pub(crate) struct Spooled(PathBuf);

impl Spooled {
    /// A name that nobody else has; the file is not made.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes.
    fn name(dir: &Path) -> io::Result<Self> {
        Ok(Self(dir.join(format!("spool-{}", random_hex::<8>()?))))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// # Errors
///
/// When there is hardly room on the disk of a directory.
pub(crate) fn room(dir: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(dir)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) >= LEAST {
        return Ok(());
    }
    let text = format!("{}: less than {} MiB are free: make room", dir.display(), LEAST >> 20);
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

/// # Errors
///
/// When a file is no LTX, or damaged.
pub(crate) fn verify(path: &Path) -> io::Result<Facts> {
    let file = std::fs::File::open(path)?;
    Decoder::new(io::BufReader::with_capacity(BUFFER, file))?.verify()
}
