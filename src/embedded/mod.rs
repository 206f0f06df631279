//! The engine without LiteFS and FUSE: the database lies in a plain directory.
//!
//! It is for development, demos and tests; it says so once at start, loudly.
//!
//! One thread owns all of SQLite (`worker`), because SQLite blocks and must not do so on a thread
//! that serves requests. As a `primary` it sees the application's commits by [`observe`], numbers
//! them, keeps the numbers from ever being used twice by [`store`], and makes one [`image`] of each
//! state for all replicas. As a `replica` it [`apply`]s what it was sent. [`serve`] and [`follow`]
//! are the two ends of a link; they know nothing of how it was made. [`posfile`] tells applications.
//! `roles` is where the copy changes hands, with a [`fence`] against writers; by [`tenure`]s a copy is
//! known that has what a new primary lacks, and the [`archive`] keeps it.
//!
//! An application's connection that has read a replica stays read-only: SQLite looks at the mark, but
//! never unlearns it. After a promotion the application has to connect anew; [`openers`] tells whether
//! it has. A write lock in place of the mark would leave no trace in connections (see [`fence`]), but it
//! makes each writer wait for as long as its busy timeout, usually 5 s, for an error that does not tell a
//! replica from a busy database; and it ends with each transaction of ours, hence with each update that is
//! applied: a writer that waits gets in between.
//!
//! A replica that has no copy yet has a [`placeholder`], which applications cannot write either.
//!
//! # What always holds
//!
//! * A position that was read contains every commit that was finished before.
//! * A replica's file is at every moment, and after any crash, some state that the primary was in,
//!   and SQLite refuses to write it.
//! * An image holds at least what its position says; a position never says more than a copy holds.

pub(crate) mod apply;
pub(crate) mod archive;
pub(crate) mod checksum;
pub(crate) mod fence;
pub(crate) mod follow;
pub(crate) mod image;
pub(crate) mod observe;
pub(crate) mod openers;
mod placeholder;
pub mod posfile;
mod primary;
pub(crate) mod record;
mod replica;
mod roles;
pub(crate) mod serve;
pub(crate) mod store;
pub mod tenure;
pub(crate) mod wire;
mod worker;

use parking_lot::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{RwLock, oneshot, watch};

use self::worker::{Command, Reply, Worker};
use crate::acks::Acks;
use crate::cluster::{Epoch, NodeId};
use crate::engine::replication::{Dial, FollowError, Followed};
use crate::engine::{BoxFuture, Engine, EngineState, Grant, Held};
use crate::peer::{self, Protocol};
use crate::position::PositionCell;
use crate::txid::{EpochTxid, Position};

/// How many requests may wait for the engine's thread; more than connections are served.
const QUEUE: usize = 16_384;
/// How long the end of a reign waits for the application's writers.
const WRITERS: Duration = Duration::from_secs(1);
/// Between two tries to get past them: others get their turn.
const AGAIN: Duration = Duration::from_millis(1);

/// A replica needs one connection; the others are those it gave up.
const LINKS: peer::Limits = peer::Limits { per_peer: 4, total: 256 };

/// What an [`Embedded`] engine is started with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The directory of the database; has to exist if `replicated`.
    pub mount: PathBuf,
    /// The database, relative to `mount`. It need not exist yet.
    pub db: PathBuf,
    /// Where the engine keeps its own state.
    pub data_dir: PathBuf,
    /// What this node is at start.
    pub(crate) duty: Duty,
    /// There are other nodes: `<db>-pos` and `.primary` are published.
    pub(crate) replicated: bool,
    /// For tests: updates are applied this much later.
    pub(crate) apply_delay: Duration,
}

impl Options {
    fn database(&self) -> PathBuf {
        self.mount.join(&self.db)
    }
}

/// What this node's copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The application writes it, in this epoch.
    Primary(Epoch),
    /// It follows the primary's.
    Replica,
}

/// The engine: a handle on its thread, which ends with it.
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    apply_delay: Duration,
    commands: Mutex<Option<SyncSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread publishes.
struct Shared {
    position: Arc<PositionCell>,
    standing: watch::Sender<Standing>,
    /// Held for reading while an acknowledgement is sent.
    acknowledging: RwLock<()>,
    state: Mutex<State>,
    /// Why the database is not replicated although it can be read.
    refusal: Mutex<Option<String>>,
    /// When this replica last knew that it held all that the primary held.
    level_at: Mutex<Option<Instant>>,
    /// Where the last copy was saved that was replaced by another history.
    diverged: watch::Sender<Option<PathBuf>>,
}

/// What this node is, and whom it may listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    duty: Duty,
    /// Every epoch before this is over.
    floor: Epoch,
}

impl Standing {
    /// Whether this node is the primary of `epoch`.
    fn reigns(self, epoch: Epoch) -> bool {
        self.duty == Duty::Primary(epoch) && epoch >= self.floor
    }

    /// Whether this node is a replica that may follow the primary of `epoch`.
    fn follows(self, epoch: Epoch) -> bool {
        self.duty == Duty::Replica && epoch >= self.floor
    }
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
    /// When the saved state cannot be used ([`store::Store::open`]), the mount is FUSE, or the
    /// thread cannot be started. A database that is missing or cannot be read is no error: it may be
    /// there later.
    pub(crate) fn start(options: Options) -> io::Result<Arc<Self>> {
        tracing::warn!(
            "litefs.engine is `embedded`: FOR DEVELOPMENT, DEMOS AND TESTS ONLY. It ships whole \
             databases, up to 64 MiB, and a write that was not shipped yet is lost with its node"
        );
        if options.replicated {
            apply::supported()?;
        }
        let shared = Arc::new(Shared {
            position: Arc::default(),
            standing: watch::Sender::new(Standing { duty: options.duty, floor: Epoch(0) }),
            acknowledging: RwLock::new(()),
            state: Mutex::default(),
            refusal: Mutex::default(),
            level_at: Mutex::default(),
            diverged: watch::Sender::new(None),
        });
        let apply_delay = options.apply_delay;
        let (commands, queue) = sync_channel(QUEUE);
        let mut worker = Worker::new(options, shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("embedded".to_owned())
            .spawn(move || worker.run(&queue))?;
        let (commands, thread) = (Mutex::new(Some(commands)), Mutex::new(Some(thread)));
        Ok(Arc::new(Self { shared, apply_delay, commands, thread }))
    }

    /// As primary: serves the replica at the other end of `stream`, and tells `on_applied` whatever it
    /// holds of this reign. See [`serve::serve`].
    pub(crate) async fn serve<S>(
        &self,
        stream: S,
        on_applied: impl Fn(Position) + Send,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        serve::serve(self, stream, on_applied).await
    }

    /// As replica: follows the primary at the other end of `stream`. See [`follow::follow`].
    ///
    /// # Errors
    ///
    /// Always ends with one; dial again.
    pub(crate) async fn follow<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        follow::follow(self, stream).await
    }

    /// See [`Engine::become_primary`]: nobody but us writes the copy, so the claim does not matter.
    pub(crate) async fn become_primary(&self, epoch: Epoch) -> io::Result<Position> {
        self.ask(move |reply| Command::BecomePrimary(epoch, reply)).await
    }

    /// See [`Engine::become_replica`]; applications are told that `primary` is followed.
    pub(crate) async fn become_replica(&self, primary: Option<NodeId>) -> io::Result<()> {
        let command = move |reply| Command::BecomeReplica(primary.clone(), reply);
        self.insist(WRITERS, command).await
    }

    /// Where the last copy of this node was saved that was replaced by a history that lacks some of it.
    pub(crate) fn diverged(&self) -> watch::Receiver<Option<PathBuf>> {
        self.shared.diverged.subscribe()
    }

    /// Ends the engine's thread and waits for it: for as long as what it is doing takes, at most a
    /// few seconds. Positions can no longer be read afterwards.
    pub(crate) fn stop(&self) {
        lock(&self.commands).take();
        if let Some(thread) = lock(&self.thread).take() {
            // It reports what went wrong itself; a panic there has been printed.
            let _ = thread.join();
        }
    }

    /// Asks the thread for something and waits for the answer.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Asks again for as long as writers or readers are in the way, at least once.
    async fn insist<T>(
        &self,
        limit: Duration,
        command: impl Fn(Reply<T>) -> Command,
    ) -> io::Result<T> {
        let began = Instant::now();
        loop {
            match self.ask(&command).await {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && began.elapsed() < limit =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    fn duty(&self) -> Duty {
        self.shared.standing.borrow().duty
    }

    fn send(&self, command: Command) -> io::Result<()> {
        let commands = lock(&self.commands);
        let Some(queue) = commands.as_ref() else { return Err(stopped()) };
        queue.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many requests wait for the embedded engine",
            ),
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

impl Engine for Embedded {
    fn position(&self) -> &Arc<PositionCell> {
        &self.shared.position
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        Box::pin(async move {
            // Nobody but us moves a replica, and the thread may be busy doing so.
            if self.duty() == Duty::Replica {
                return Ok(self.shared.position.get());
            }
            self.ask(Command::EpochTxid).await
        })
    }

    fn lag(&self) -> Option<Duration> {
        if self.duty() != Duty::Replica {
            return Some(Duration::ZERO);
        }
        lock(&self.shared.level_at).map(|at| at.elapsed())
    }

    fn become_primary(&self, grant: Grant) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(Self::become_primary(self, grant.epoch))
    }

    fn become_replica(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(Self::become_replica(self, None))
    }

    fn follow<'a>(
        &'a self,
        primary: &'a NodeId,
        _: Epoch,
        dial: &'a Arc<dyn Dial>,
    ) -> BoxFuture<'a, Followed> {
        Box::pin(async move {
            Self::become_replica(self, Some(primary.clone())).await?;
            let dialed = dial.dial(primary, peer::EMBEDDED).await;
            let ended = Self::follow(self, dialed.map_err(FollowError::Unreachable)?).await;
            Err(ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()).into())
        })
    }

    fn protocols(self: Arc<Self>, acks: Arc<Acks>) -> Vec<Protocol> {
        let handler: peer::Handler = Arc::new(move |incoming| {
            let (embedded, acks) = (self.clone(), acks.clone());
            tokio::spawn(async move {
                let replica = incoming.node;
                let applied = |position: Position| acks.heard(&replica, position.at);
                if let Err(why) = embedded.serve(incoming.stream, applied).await {
                    tracing::debug!(%replica, %why, "a replica is no longer served");
                }
            });
        });
        vec![Protocol { name: peer::EMBEDDED, limits: LINKS, handler }]
    }

    fn promise(&self, epoch: Epoch) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(async move {
            let held = self.insist(WRITERS, move |reply| Command::LetGo(epoch, reply)).await?;
            // An acknowledgement that was just being sent is over, and no other begins.
            drop(self.shared.acknowledging.write().await);
            Ok(held)
        })
    }

    fn held(&self) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(self.ask(Command::Held))
    }

    fn fence(&self, limit: Duration) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(self.insist(limit, Command::Fence))
    }

    fn lift_fence(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.ask(Command::LiftFence))
    }

    fn state(&self) -> EngineState {
        let state = match (&*lock(&self.shared.state), &*lock(&self.shared.refusal)) {
            (State::Failed(reason), _) => format!("failed: {reason}"),
            (_, Some(reason)) => format!("not replicated: {reason}"),
            (State::Waiting, None) => "waiting".to_owned(),
            (State::Running, None) => "running".to_owned(),
        };
        EngineState { engine: "embedded", state, pid: None, restarts: 0 }
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { Self::stop(self) })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Publishes how the database is, and logs it if that is news.
    fn set_state(&self, state: State) {
        let mut published = lock(&self.state);
        if *published == state {
            return;
        }
        match &state {
            State::Running => tracing::info!("the database is there"),
            State::Waiting => tracing::info!("there is no database yet"),
            State::Failed(reason) => tracing::warn!(reason, "the database cannot be used"),
        }
        *published = state;
    }

    /// Publishes why it is not replicated, `None` if it is, and logs it if that is news.
    fn set_refusal(&self, refusal: Option<String>) {
        let mut published = lock(&self.refusal);
        if let Some(reason) = refusal.as_deref().filter(|r| published.as_deref() != Some(r)) {
            tracing::error!(reason, "the database is not replicated");
        }
        *published = refusal;
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the embedded engine has stopped")
}

fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fence_tests;
#[cfg(test)]
mod placeholder_tests;
#[cfg(test)]
mod roles_tests;
#[cfg(test)]
mod tests;
