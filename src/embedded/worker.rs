//! The engine's thread: the only one that touches SQLite.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::observe::Observer;
use super::store::Store;
use super::{Shared, State, lock};
use crate::cluster::Epoch;
use crate::txid::{Position, Txid};

/// How often the database is looked at while nobody asks, for commits made past the proxy.
const IDLE_LOOK: Duration = Duration::from_millis(100);

/// What others ask of the thread.
pub enum Command {
    /// The position now.
    Position(oneshot::Sender<io::Result<Position>>),
}

/// What the thread owns.
pub struct Worker {
    observer: Observer,
    store: Store,
    position: Position,
    /// A change was seen that has no number yet, because reserving one failed.
    unnumbered: bool,
    shared: Arc<Shared>,
}

impl Worker {
    /// Takes up where the saved state ends, and looks at the database once.
    pub fn new(
        observer: Observer,
        store: Store,
        epoch: Epoch,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        if epoch < store.epoch() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "this node's data is of epoch {}, it cannot reign in {epoch}",
                    store.epoch()
                ),
            ));
        }
        // What was given out last is unknown: the number after the last reserved one is new.
        let restarted = store.reserved() > Txid(0);
        let position = Position { epoch, txid: store.reserved() };
        let mut worker = Self { observer, store, position, unnumbered: restarted, shared };
        // A database that cannot be read now may be later; `state` says so.
        let _ = worker.observe();
        Ok(worker)
    }

    /// Serves requests until nobody is left to ask.
    pub fn run(&mut self, queue: &Receiver<Command>) {
        let mut asked = Vec::new();
        loop {
            match queue.recv_timeout(IDLE_LOOK) {
                Ok(Command::Position(reply)) => asked.push(reply),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // One look serves everybody who asked before it began.
            while let Ok(Command::Position(reply)) = queue.try_recv() {
                asked.push(reply);
            }
            let found = self.observe();
            for reply in asked.drain(..) {
                // Whoever gave up meanwhile does not need the answer.
                let _ = reply.send(match &found {
                    Ok(position) => Ok(*position),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                });
            }
        }
    }

    /// Looks at the database and publishes what it found.
    fn observe(&mut self) -> io::Result<Position> {
        let found = self.number_changes();
        let state = match &found {
            Ok(true) => State::Running,
            Ok(false) => State::Waiting,
            Err(error) => State::Failed(error.to_string()),
        };
        self.publish(state);
        found.map(|_| self.position)
    }

    /// Gives each change that is seen the next number. Returns whether there is a database.
    fn number_changes(&mut self) -> io::Result<bool> {
        let look = self.observer.look()?;
        self.unnumbered |= look.changed;
        if self.unnumbered {
            let txid = Txid(self.position.txid.0 + 1);
            self.store.reserve(self.position.epoch, txid)?;
            self.position.txid = txid;
            self.unnumbered = false;
        }
        self.shared.position.advance(self.position);
        Ok(look.exists)
    }

    fn publish(&self, state: State) {
        let mut published = lock(&self.shared.state);
        if *published == state {
            return;
        }
        match &state {
            State::Running => tracing::info!(position = %self.position, "the database is there"),
            State::Waiting => tracing::info!("there is no database yet"),
            State::Failed(reason) => tracing::warn!(reason, "the position cannot be read"),
        }
        *published = state;
    }
}
