//! The engine without LiteFS and FUSE: the database lies in a plain directory.
//!
//! It is for development, demos and tests; it says so once at start, loudly.
//!
//! One thread owns all of SQLite ([`worker`]), because SQLite blocks and must not do so on a thread
//! that serves requests. It sees commits of the application by [`observe`], numbers them, and keeps
//! the numbers from ever being used twice by [`store`].

pub mod apply;
pub mod checksum;
pub mod image;
pub mod observe;
pub mod store;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use self::observe::Observer;
use self::store::Store;
use self::worker::{Command, Worker};
use crate::cluster::Epoch;
use crate::engine::{BoxFuture, Engine, EngineState};
use crate::position::PositionCell;
use crate::txid::Position;

/// How many requests may wait for the engine's thread; more than connections are served.
const QUEUE: usize = 16_384;

/// What an [`Embedded`] engine is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database. It need not exist yet.
    pub database: PathBuf,
    /// Where the engine keeps its own state.
    pub data_dir: PathBuf,
    /// The epoch in which this node is the primary.
    pub epoch: Epoch,
}

/// The engine: a handle on its thread, which ends with it.
pub struct Embedded {
    shared: Arc<Shared>,
    commands: Mutex<Option<SyncSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread publishes.
#[derive(Default)]
struct Shared {
    position: Arc<PositionCell>,
    state: Mutex<State>,
}

/// How the database was when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is none yet.
    #[default]
    Waiting,
    /// It can be read.
    Running,
    /// It cannot be read, and why.
    Failed(String),
}

impl Embedded {
    /// Reads the saved state, looks at the database once and starts the engine's thread.
    ///
    /// # Errors
    ///
    /// When the saved state cannot be used ([`Store::open`]) or the thread cannot be started. A
    /// database that is missing or cannot be read is none: it may be there later.
    pub fn start(options: Options) -> io::Result<Arc<Self>> {
        tracing::warn!(
            "litefs.engine is `embedded`: FOR DEVELOPMENT, DEMOS AND TESTS ONLY. \
             For production use `engine: litefs`"
        );
        let store = Store::open(&options.data_dir, &options.database)?;
        let observer = Observer::new(options.database);
        let shared = Arc::<Shared>::default();
        let (commands, queue) = sync_channel(QUEUE);
        let mut worker = Worker::new(observer, store, options.epoch, shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("embedded".to_owned())
            .spawn(move || worker.run(&queue))?;
        let commands = Mutex::new(Some(commands));
        Ok(Arc::new(Self { shared, commands, thread: Mutex::new(Some(thread)) }))
    }

    /// Ends the engine's thread and waits for it: at most for as long as one look at the database
    /// may take. Positions can no longer be read afterwards.
    pub fn stop(&self) {
        lock(&self.commands).take();
        if let Some(thread) = lock(&self.thread).take() {
            // It reports what went wrong itself; a panic there has been printed.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) -> io::Result<()> {
        let commands = lock(&self.commands);
        let Some(queue) = commands.as_ref() else { return Err(stopped()) };
        queue.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many requests wait for the database's position",
            ),
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

impl Engine for Embedded {
    fn position(&self) -> &Arc<PositionCell> {
        &self.shared.position
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<Position>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Command::Position(reply));
        Box::pin(async move {
            sent?;
            answer.await.map_err(|_| stopped())?
        })
    }

    fn state(&self) -> EngineState {
        let state = match &*lock(&self.shared.state) {
            State::Waiting => "waiting".to_owned(),
            State::Running => "running".to_owned(),
            State::Failed(_) => "failed".to_owned(),
        };
        EngineState { engine: "embedded", state, pid: None, restarts: 0 }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the embedded engine has stopped")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
