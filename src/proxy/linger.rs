//! Closing a connection on which a client may still be sending.
//!
//! If a socket is closed with bytes unread, or some come later, the system resets the connection, and the
//! client may lose the answer that it has not read yet. So our side is ended, and what still comes is
//! read and forgotten for a while, as nginx does.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::worker::Worker;

/// How long a client may go on, and how long it may be silent meanwhile: nginx' `lingering_time` and
/// `lingering_timeout`.
const LONGEST: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(5);
/// What is left of that when the node stops.
const WHILE_STOPPING: Duration = Duration::from_secs(2);
/// Read at once.
const PIECE: usize = 16 * 1024;

/// Ends our side of a connection, and reads on until the client has ended its own.
pub(super) async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin, worker: &Worker) {
    let rest = async {
        if !matches!(timeout(QUIET, stream.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        let mut nowhere = vec![0; PIECE];
        while let Ok(Ok(1..)) = timeout(QUIET, stream.read(&mut nowhere)).await {}
    };
    let mut draining = worker.shared.draining.clone();
    let stops = async {
        let _ = draining.wait_for(|draining| *draining).await;
        sleep(WHILE_STOPPING).await;
    };
    tokio::select! {
        _ = timeout(LONGEST, rest) => {}
        () = stops => {}
    }
}
