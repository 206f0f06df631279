//! A program of the user's that runs once, at an event, within a time.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::running::End;
use super::spawn::{self, Launch, SpawnError};

/// Why a hook did not do its work.
#[derive(Debug)]
pub enum HookError {
    /// It did not start.
    Spawn(SpawnError),
    /// It ended with another exit code than 0, by a signal, or by its guard.
    Failed(End),
    /// It was killed, having taken longer than this.
    TimedOut(Duration),
    /// Its end could not be learned.
    Lost(io::Error),
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookError::Spawn(error) => error.fmt(f),
            HookError::Failed(end) => {
                write!(f, "it failed ({end}): its output is in the log")
            }
            HookError::TimedOut(limit) => write!(
                f,
                "it took longer than {limit:?} and was killed: make it quicker, or raise \
                 app.hook_timeout"
            ),
            HookError::Lost(error) => write!(f, "its end could not be learned: {error}"),
        }
    }
}

impl std::error::Error for HookError {}

/// Runs a program to its end. Whatever it started in its group and left behind is killed, too; so
/// is everything when it takes longer than `limit`, or when the returned future is dropped.
pub async fn run(hook: &Launch, limit: Duration) -> Result<(), HookError> {
    let mut process = spawn::spawn(hook).await.map_err(HookError::Spawn)?;
    let in_time = timeout(limit, process.wait()).await.is_ok();
    let end = process.end().await.map_err(HookError::Lost)?;
    match (in_time, end.is_success()) {
        (false, _) => Err(HookError::TimedOut(limit)),
        (true, false) => Err(HookError::Failed(end)),
        (true, true) => Ok(()),
    }
}
