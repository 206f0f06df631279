//! Serves the guestbook on a Unix socket, until told to stop.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Guestbook;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// Threads for SQLite, which blocks.
const THREADS: usize = 8;
/// For a request's head, the time between requests included. Well above what the node keeps.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a transaction under way may take once we stop.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Serves the database `db` at `socket`, under the name of the node that started this process.
///
/// # Errors
///
/// When the socket cannot be had.
pub(crate) fn run(socket: &Path, db: &Path) -> io::Result<()> {
    let node = std::env::var("LITEPILOT_NODE").unwrap_or_else(|_| "demo-app".to_owned());
    let book = Guestbook::new(node, db);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = listen(socket)?;
        tokio::select! {
            () = accept(&listener, &book) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WRITE);
    served
}

/// Takes the place of a predecessor, which left its socket there if it was killed.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    UnixListener::bind(socket)
}

async fn accept(listener: &UnixListener, book: &Arc<Guestbook>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed, so there is always a place to be had.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, book.clone(), place));
            }
            Err(why) => {
                // Most likely no file descriptor is free: wait for one instead of spinning.
                eprintln!("cannot accept a connection: {why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, book: Arc<Guestbook>, _place: OwnedSemaphorePermit) {
    let service = service_fn(|request| {
        let book = book.clone();
        async move { Ok::<_, Infallible>(book.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that hangs up is its own problem.
    let _ = connection.await;
}
