//! Keeps everybody from writing the databases in the mount, whichever way they come, by SQLite's own
//! write locks, held by a process of ours ([`super::hold`]).
//!
//! A LiteFS that loses its lease in the middle of a WAL commit exits, and the application has been told
//! that the commit succeeded. The lease is one for all databases: so before a demotion that we cause, nobody
//! may be in a commit of any of them.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::hold::UP;

/// For the holder's start and its answer, beyond the time that it may wait for writers.
const STARTING: Duration = Duration::from_secs(1);
/// How long the holder may take to end. Reached only if LiteFS hangs; it is then killed.
const LIFTING: Duration = Duration::from_secs(1);
/// Bytes of the holder's answer.
const MAX_ANSWER: u64 = 4096;

/// The write locks. Dropped, they are released a little later.
#[derive(Debug)]
pub struct Fence {
    holder: Child,
    /// The holder releases the locks when this is closed.
    _stdin: Option<ChildStdin>,
}

impl Fence {
    /// Waits for the writers' end, and keeps others from beginning. `program` is a `litepilot`.
    ///
    /// # Errors
    ///
    /// When somebody still wrote after `limit`, or a database in `mount` cannot be opened.
    pub async fn raise(program: &Path, mount: &Path, limit: Duration) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg0("litepilot").arg("hold").arg(limit.as_millis().to_string()).arg(mount);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.process_group(0).kill_on_drop(true).spawn()?;
        let (stdin, stdout) = (holder.stdin.take(), holder.stdout.take());
        let mut answer = String::new();
        let answered = async {
            match stdout {
                Some(stdout) => {
                    BufReader::new(stdout.take(MAX_ANSWER)).read_line(&mut answer).await
                }
                None => Ok(0),
            }
        };
        match timeout(limit + STARTING, answered).await {
            Ok(Ok(_)) if answer.trim() == UP => Ok(Self { holder, _stdin: stdin }),
            Ok(Ok(_)) => Err(io::Error::other(format!(
                "the databases in {} cannot be kept from being written: {}",
                mount.display(),
                if answer.is_empty() { "the process that does it has died" } else { answer.trim() }
            ))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "LiteFS does not answer")),
        }
    }

    /// Lets everybody write again, if LiteFS lets them.
    ///
    /// # Errors
    ///
    /// When the holder does not end in time; it will once LiteFS answers or ends.
    pub async fn lift(mut self) -> io::Result<()> {
        drop(self._stdin.take());
        match timeout(LIFTING, self.holder.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
