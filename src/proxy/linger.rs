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
/// Who was too slow, or spoke something else, has had its time; and so has everybody once the node stops
/// or is full.
const BRIEFLY: Duration = Duration::from_secs(1);
/// Read at once.
const PIECE: usize = 16 * 1024;

/// Ends our side of a connection whose client may have much to send, and reads on until it has ended its
/// own.
pub(super) async fn close(stream: impl AsyncRead + AsyncWrite + Unpin, worker: &Worker) {
    let mut draining = worker.shared.draining.clone();
    let stops = async {
        let _ = draining.wait_for(|draining| *draining).await;
        sleep(BRIEFLY).await;
    };
    let longest = if worker.impatient_since().is_some() { BRIEFLY } else { LONGEST };
    tokio::select! {
        _ = timeout(longest, read_on(stream)) => {}
        () = stops => {}
    }
}

/// Likewise, for a client from whom nothing is wanted any more.
pub(super) async fn close_soon(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = timeout(BRIEFLY, read_on(stream)).await;
}

async fn read_on(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if !matches!(timeout(QUIET, stream.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut nowhere = vec![0; PIECE];
    while let Ok(Ok(1..)) = timeout(QUIET, stream.read(&mut nowhere)).await {}
}
