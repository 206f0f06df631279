//! The engine without LiteFS and FUSE: the database lies in a plain directory.
//!
//! It is for development, demos and tests; it says so once at start, loudly.
//!
//! | module | subject |
//! | --- | --- |
//! | `worker`, `roles` | the one thread that owns SQLite, which blocks; how the copy changes hands |
//! | `primary`, [`observe`] | sees the application's commits, numbers them, fences writers |
//! | `replica`, [`apply`], `placeholder` | writes what it was sent to a copy that nobody else can write |
//! | `image` | one state of the database, made once for all replicas |
//! | `serve`, `follow`, `wire` | the two ends of a connection; they know nothing of how it was made |
//! | `store`, [`lineage`] | what outlives a restart; which history a copy is of |
//! | [`posfile`] | tells applications where they are |
//!
//! An application's connection that has read a replica stays read-only: SQLite looks at the mark, but
//! never unlearns it. After a promotion the application has to connect anew. A write lock in place of
//! the mark would leave no trace in connections, but it makes each writer wait for as long as its busy
//! timeout, usually 5 s, for an error that does not tell a replica from a busy database; and it ends with
//! each update that is applied: a writer that waits gets in between.
//!
//! # What always holds
//!
//! * A position that was read contains every commit that was finished before.
//! * A replica's file is at every moment, and after any crash, some state that the primary was in,
//!   and SQLite refuses to write it.
//! * An image holds at least what its position says; a position never says more than a copy holds.

pub(crate) mod apply;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod image;
pub mod lineage;
mod observe;
mod placeholder;
pub mod posfile;
mod primary;
mod replica;
mod roles;
mod serve;
mod store;
mod wire;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{RwLock, oneshot, watch};

use self::worker::{Request, Worker};
use crate::acks::Acks;
use crate::cluster::{Epoch, NodeId};
use crate::engine::replication::{Dial, FollowError, Followed};
use crate::engine::{BoxFuture, Engine, EngineState, Grant, Held};
use crate::peer::{self, Protocol};
use crate::position::PositionCell;
use crate::txid::{EpochTxid, Position};

/// How many requests may wait for the engine's thread; more than connections are served.
const QUEUE: usize = 16_384;
/// How long the end of an epoch waits for the application's writers.
const WRITERS: Duration = Duration::from_secs(1);
/// Between two tries to get past them: others get their turn.
const AGAIN: Duration = Duration::from_millis(1);

/// A replica needs one connection; the others are those it gave up.
const LINKS: peer::ConnectionLimits = peer::ConnectionLimits { per_peer: 4, total: 256 };

/// What an [`Embedded`] engine is started with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The directory of the database; has to exist if `replicated`.
    pub(crate) mount: PathBuf,
    /// The database, relative to `mount`. It need not exist yet.
    pub(crate) db: PathBuf,
    /// Where the engine keeps its own state.
    pub(crate) data_dir: PathBuf,
    /// What this node is at start.
    pub(crate) role: CopyRole,
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
pub(crate) enum CopyRole {
    /// The application writes it, in this epoch.
    Primary(Epoch),
    /// It follows the primary's.
    Replica,
}

/// The engine: a handle on its thread, which ends with it.
pub(crate) struct Embedded {
    published: Arc<Published>,
    apply_delay: Duration,
    requests: Mutex<Option<SyncSender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread publishes.
struct Published {
    position: Arc<PositionCell>,
    standing: watch::Sender<Standing>,
    /// Held for reading while an acknowledgement is sent.
    acknowledging: RwLock<()>,
    state: Mutex<DatabaseState>,
    /// Why the database is not replicated although it can be read.
    refusal: Mutex<Option<String>>,
    /// When this replica last knew that it held all that the primary held.
    level_at: Mutex<Option<Instant>>,
}

/// What this node is, and whom it may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    role: CopyRole,
    /// Every epoch before this is over.
    floor: Epoch,
}

impl Standing {
    /// Whether this node is the primary of `epoch`.
    fn leads(self, epoch: Epoch) -> bool {
        self.role == CopyRole::Primary(epoch) && epoch >= self.floor
    }

    /// Whether this node is a replica that may follow the primary of `epoch`.
    fn follows(self, epoch: Epoch) -> bool {
        self.role == CopyRole::Replica && epoch >= self.floor
    }
}

/// How the database was when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum DatabaseState {
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
            "litefs.engine is `embedded`: FOR DEVELOPMENT, DEMOS AND TESTS ONLY. It ships one database, \
             {}, up to 64 MiB; other files in its directory stay on their node. A write that was not \
             shipped yet is lost with its node",
            options.db.display()
        );
        if options.replicated {
            apply::supported()?;
        }
        let standing = Standing { role: options.role, floor: Epoch(0) };
        let published = Arc::new(Published {
            position: Arc::default(),
            standing: watch::Sender::new(standing),
            acknowledging: RwLock::new(()),
            state: Mutex::default(),
            refusal: Mutex::default(),
            level_at: Mutex::default(),
        });
        let apply_delay = options.apply_delay;
        let (requests, queue) = sync_channel(QUEUE);
        let mut worker = Worker::new(options, published.clone())?;
        let thread = std::thread::Builder::new()
            .name("embedded".to_owned())
            .spawn(move || worker.run(&queue))?;
        let (requests, thread) = (Mutex::new(Some(requests)), Mutex::new(Some(thread)));
        Ok(Arc::new(Self { published, apply_delay, requests, thread }))
    }

    /// As primary: see [`serve::serve`].
    pub(crate) async fn serve<S>(
        &self,
        stream: S,
        on_applied: impl Fn(Position) + Send,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        serve::serve(self, stream, on_applied).await
    }

    /// As replica: see [`follow::follow`].
    pub(crate) async fn follow<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        follow::follow(self, stream).await
    }

    /// See [`Engine::become_primary`]: nobody but us writes the copy, so the claim does not matter.
    pub(crate) async fn become_primary(&self, epoch: Epoch) -> io::Result<Position> {
        self.ask(move |worker| worker.become_primary(epoch)).await
    }

    /// See [`Engine::become_replica`]; applications are told that `primary` is followed.
    pub(crate) async fn become_replica(&self, primary: Option<NodeId>) -> io::Result<()> {
        let ask = move || {
            let primary = primary.clone();
            self.ask(move |worker| worker.become_replica(primary.as_ref()))
        };
        insist(WRITERS, ask).await
    }

    /// Ends the engine's thread and waits for it: for as long as what it is doing takes, at most a
    /// few seconds. Positions can no longer be read afterwards.
    pub(crate) fn stop(&self) {
        self.requests.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            // It reports what went wrong itself; a panic there has been printed.
            let _ = thread.join();
        }
    }

    /// Has the thread do something and waits for the answer.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.ask_or(job, |_, _| {}).await
    }

    /// As [`Self::ask`]; `unheard` is done instead if nobody waits for the answer any more.
    async fn ask_or<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> io::Result<T> + Send + 'static,
        unheard: fn(&mut Worker, T),
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Job(Box::new(move |worker| {
            if let Err(Ok(done)) = reply.send(job(worker)) {
                unheard(worker, done);
            }
        })))?;
        answer.await.map_err(|_| stopped())?
    }

    fn role(&self) -> CopyRole {
        self.published.standing.borrow().role
    }

    fn send(&self, request: Request) -> io::Result<()> {
        let requests = self.requests.lock();
        let queue = requests.as_ref().ok_or_else(stopped)?;
        queue.try_send(request).map_err(|refused| match refused {
            TrySendError::Full(_) => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many requests wait for the embedded engine",
            ),
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

/// Asks again for as long as writers or readers are in the way, at least once.
async fn insist<T, F: Future<Output = io::Result<T>>>(
    limit: Duration,
    ask: impl Fn() -> F,
) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(busy) if busy.kind() == io::ErrorKind::ResourceBusy && began.elapsed() < limit => {
                tokio::time::sleep(AGAIN).await;
            }
            answer => return answer,
        }
    }
}

impl Engine for Embedded {
    fn position(&self) -> &Arc<PositionCell> {
        &self.published.position
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        Box::pin(async move {
            // Nobody but us moves a replica, and the thread may be busy doing so.
            if self.role() == CopyRole::Replica {
                return Ok(self.published.position.get());
            }
            let (reply, answer) = oneshot::channel();
            self.send(Request::Position(reply))?;
            answer.await.map_err(|_| stopped())?
        })
    }

    fn lag(&self) -> Option<Duration> {
        match self.role() {
            CopyRole::Primary(_) => Some(Duration::ZERO),
            CopyRole::Replica => self.published.level_at.lock().map(|at| at.elapsed()),
        }
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
            let ask = || self.ask(move |worker| worker.promise(epoch));
            let held = insist(WRITERS, ask).await?;
            // An acknowledgement that was just being sent is over, and no other begins.
            drop(self.published.acknowledging.write().await);
            Ok(held)
        })
    }

    fn held(&self) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(self.ask(Worker::held))
    }

    fn fence(&self, limit: Duration) -> BoxFuture<'_, io::Result<Position>> {
        // Nobody would lift a fence that its caller does not know of.
        let unheard = |worker: &mut Worker, (new, _)| {
            if new {
                worker.lift_fence();
            }
        };
        let fenced = insist(limit, move || self.ask_or(Worker::fence, unheard));
        Box::pin(async { fenced.await.map(|(_, position)| position) })
    }

    fn lift_fence(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.ask(|worker| {
            worker.lift_fence();
            Ok(())
        }))
    }

    fn state(&self) -> EngineState {
        let state = match (&*self.published.state.lock(), &*self.published.refusal.lock()) {
            (DatabaseState::Failed(reason), _) => format!("failed: {reason}"),
            (_, Some(reason)) => format!("not replicated: {reason}"),
            (DatabaseState::Waiting, None) => "waiting".to_owned(),
            (DatabaseState::Running, None) => "running".to_owned(),
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

impl Published {
    /// Says how the database is, and logs it if that is news.
    fn set_state(&self, state: DatabaseState) {
        let mut published = self.state.lock();
        if *published == state {
            return;
        }
        match &state {
            DatabaseState::Running => tracing::info!("the database is there"),
            DatabaseState::Waiting => tracing::info!("there is no database yet"),
            DatabaseState::Failed(reason) => {
                tracing::warn!(reason, "the database cannot be used");
            }
        }
        *published = state;
    }

    /// Says why it is not replicated, `None` if it is, and logs it if that is news.
    fn set_refusal(&self, refusal: Option<String>) {
        let mut published = self.refusal.lock();
        if let Some(reason) = refusal.as_deref().filter(|r| published.as_deref() != Some(r)) {
            tracing::error!(reason, "the database is not replicated");
        }
        *published = refusal;
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the embedded engine has stopped")
}

fn not(role: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("this node is not {role}"))
}

fn over(epoch: Epoch) -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, format!("epoch {epoch} is over"))
}

#[cfg(test)]
mod tests;
