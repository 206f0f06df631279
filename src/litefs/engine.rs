//! [`Engine`] over LiteFS: what the election and the data plane know of it.
//!
//! The election decides, this carries out. LiteFS cannot be told to be something: it asks for the lease
//! again and again, and is something once it got the answer that the [`LeaseState`] has for it. So every
//! change of role is made in the same way: change what the lease's state says, and wait until LiteFS'
//! events say that it is so.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::agreement::Agreed;
use super::api::{Api, Info};
use super::content::Told;
use super::databases::Databases;
use super::events;
use super::fence::Fence;
use super::follow::Following;
use super::lease_state::LeaseState;
use super::on_disk::OnDisk;
use super::position::{Positions, is_database};
use super::store::Store;
use super::supervise::{self, Spec, Supervisor};
use super::told::ToldReplicas;
use super::tunnel;
use super::watch::{Seen, Watch};
use crate::acks::Acks;
use crate::cluster::{Epoch, NodeId};
use crate::engine::replication::{Dial, Followed};
use crate::engine::{BoxFuture, Engine, EngineState, Grant, Held, Stalled};
use crate::lease::server::LeaseServer;
use crate::peer::{self, ConnectionLimits, Protocol};
use crate::position::PositionCell;
use crate::secret::Secret;
use crate::txid::{EpochTxid, Position};

/// To read a position.
pub(super) const READING: Duration = Duration::from_secs(1);
/// A LiteFS that wants the lease asks about each 50 ms.
pub(super) const ASKING: Duration = Duration::from_secs(1);

/// Why a LiteFS does not leave its primary, or would not as soon as it is told to.
const STALLED: &str = "an open transaction holds LiteFS up";

/// Between two looks at something that LiteFS does not tell.
const LOOK: Duration = Duration::from_millis(50);

/// A replica needs one connection; the others are those it gave up.
const LINKS: ConnectionLimits = ConnectionLimits { per_peer: 4, total: 256 };
/// A LiteFS needs one for its stream, and now and then one for a request.
const TUNNELS: ConnectionLimits = ConnectionLimits { per_peer: 16, total: 256 };

/// What a [`Litefs`] is started with.
pub struct Options {
    /// This node's name, which is LiteFS' `hostname`.
    pub node: NodeId,
    /// Where LiteFS' file system is mounted.
    pub mount: PathBuf,
    /// The main database in it. Builds that know one database know this.
    pub db: PathBuf,
    /// Databases that tokens and acknowledgements do not count.
    pub untracked: BTreeSet<String>,
    /// Where the engine keeps its own state.
    pub data_dir: PathBuf,
    /// LiteFS' HTTP port.
    pub http: SocketAddr,
    /// `cluster.lease.ttl`; LiteFS' own is a fifth of that.
    pub ttl: Duration,
    /// The password of the lease's URL.
    pub secret: Secret,
    /// A `litepilot`, to hold fences: this program itself, if we run in it.
    pub program: PathBuf,
    /// LiteFS mounts a real file system. False only for a stand-in of tests.
    pub fuse: bool,
    /// How LiteFS is started; `None`: somebody else does (`external`).
    pub supervise: Option<Spec>,
    /// Primaries are elected. Otherwise it is always the same node, which may begin the same epoch
    /// again, and whose history nobody else goes on from.
    pub elects: bool,
    /// What the cluster has agreed upon.
    pub agreed: Agreed,
}

/// The engine.
pub struct Litefs {
    pub(super) program: PathBuf,
    pub(super) mount: PathBuf,
    pub(super) db: PathBuf,
    pub(super) untracked: BTreeSet<String>,
    pub(super) data_dir: PathBuf,
    pub(super) ttl: Duration,
    pub(super) api: Api,
    pub(super) elects: bool,
    pub(super) agreed: Agreed,
    pub(super) lease_state: Arc<LeaseState>,
    pub(super) watch: Arc<Watch>,
    pub(super) positions: Positions,
    pub(super) position: Arc<PositionCell>,
    /// What the copy was last known to hold.
    pub(super) holds: Mutex<Databases>,
    store: Arc<OnDisk<Store>>,
    duty: watch::Sender<Duty>,
    /// Changes of role, one at a time.
    pub(super) turn: AsyncMutex<()>,
    pub(super) fence: AsyncMutex<Option<Fence>>,
    pub(super) following: Mutex<Option<Following>>,
    pub(super) told_replicas: ToldReplicas,
    /// What an open transaction does here.
    pub(super) stalled: watch::Sender<Option<Stalled>>,
    /// It is found to hang.
    pub(super) hung: Notify,
    /// Promises in a row during which LiteFS did not leave its primary.
    pub(super) clung: AtomicU32,
    info: Mutex<Info>,
    level: Mutex<Level>,
    /// What is told others.
    pub(super) told: watch::Sender<Told>,
    /// Held for reading while an acknowledgement is sent.
    pub(super) acknowledging: RwLock<()>,
    supervisor: Option<Supervisor>,
    /// The lease's server, and what watches LiteFS.
    tasks: Mutex<JoinSet<()>>,
}

/// What a replica knows of its lag.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// When it last knew that it held all that the primary held.
    at: Option<Instant>,
    /// What the primary held then, and this copy does not yet.
    awaited: Option<(EpochTxid, Instant)>,
}

/// What this node's copy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Duty {
    /// It follows a primary's, or nobody's.
    #[default]
    Replica,
    /// The application writes it, in this epoch.
    Primary(Epoch),
}

impl Litefs {
    /// Serves the lease on `lease`, starts LiteFS if it is ours to start, and watches it, in tasks of the
    /// current runtime. They end with [`Engine::stop`].
    ///
    /// # Errors
    ///
    /// When the saved state cannot be used, or the database's name is none that LiteFS can have.
    pub fn start(options: Options, lease: TcpListener) -> io::Result<Arc<Self>> {
        check_names(&options)?;
        let lease_state = Arc::new(LeaseState::new(options.node, options.agreed.clone()));
        let server = LeaseServer::new(lease_state.clone(), options.secret);
        let store = Store::open(&options.data_dir, &options.db)?;
        let untracked = options.untracked;
        let positions = Positions::start(&options.mount, untracked.clone(), options.fuse)?;
        positions.look_for(store.names());
        let litefs = Arc::new(Self {
            store: OnDisk::new(store),
            holds: Mutex::default(),
            api: Api(options.http),
            watch: Arc::new(Watch::new(untracked.clone())),
            untracked,
            positions,
            position: Arc::default(),
            duty: watch::Sender::default(),
            turn: AsyncMutex::default(),
            fence: AsyncMutex::default(),
            following: Mutex::default(),
            told_replicas: ToldReplicas::default(),
            stalled: watch::Sender::default(),
            hung: Notify::new(),
            clung: AtomicU32::new(0),
            info: Mutex::default(),
            level: Mutex::default(),
            told: watch::Sender::default(),
            acknowledging: RwLock::default(),
            program: options.program,
            mount: options.mount,
            db: options.db,
            data_dir: options.data_dir,
            ttl: options.ttl,
            supervisor: options.supervise.map(supervise::start),
            elects: options.elects,
            agreed: options.agreed,
            lease_state,
            tasks: Mutex::default(),
        });
        litefs.clone().spawn_tasks(server, lease);
        Ok(litefs)
    }

    fn spawn_tasks(self: Arc<Self>, server: LeaseServer, lease: TcpListener) {
        let mut tasks = lock(&self.tasks);
        tasks.spawn(server.serve(lease));
        tasks.spawn(self.clone().hear_events());
        tasks.spawn(self.clone().keep_up());
        tasks.spawn(self.clone().watch_readers());
        tasks.spawn(self.clone().watch_pulse());
        if self.supervisor.is_some() {
            tasks.spawn(self.clone().watch_over());
        }
    }

    /// Of one that hangs the stream stays open, and what it said last is no longer so: it has to say it again.
    async fn hear_events(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = events::follow(self.api, &*self.watch) => {}
                () = self.hung.notified() => self.watch.ended(),
            }
        }
    }

    /// As primary: has LiteFS serve `replica`'s, which has heard of this epoch, for as long as that lasts.
    ///
    /// # Errors
    ///
    /// When the epoch is over, the replica is to hear of it first, or LiteFS does not answer.
    pub async fn pass<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        replica: &NodeId,
        stream: S,
    ) -> io::Result<()> {
        let mut duty = self.duty.subscribe();
        let now = *duty.borrow_and_update();
        if !matches!(now, Duty::Primary(epoch) if self.told_replicas.include(replica, epoch)) {
            return Err(io::Error::other("it has not heard of this node's epoch"));
        }
        tokio::select! {
            served = tunnel::serve(stream, self.api.0) => served,
            // An error cannot be: the sender is ours.
            _ = duty.wait_for(|duty| *duty != now) => Err(io::Error::other("that epoch is over")),
        }
    }

    /// What LiteFS is, as it changes.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.watch.seen()
    }

    /// The primary held this at `heard`: once our copy does, too, it was level then.
    pub fn primary_is_at(&self, position: EpochTxid, heard: Instant) {
        lock(&self.level).awaited.get_or_insert((position, heard));
        self.note_level();
    }

    /// For how long this copy has lacked what the primary is known to hold.
    pub(super) fn awaits_for(&self) -> Option<Duration> {
        lock(&self.level).awaited.map(|(_, heard)| heard.elapsed())
    }

    /// LiteFS' process, if it is ours.
    pub(super) fn pid(&self) -> Option<u32> {
        self.supervisor.as_ref()?.state().borrow().pid
    }

    pub(super) fn note_level(&self) {
        let mut level = lock(&self.level);
        if let Some((_, heard)) = level.awaited.filter(|(at, _)| self.position.reached(*at)) {
            *level = Level { at: Some(heard), awaited: None };
        }
    }

    /// Sends an acknowledgement, unless a later epoch was promised: then none is sent any more.
    pub(super) async fn acknowledge(
        &self,
        epoch: Epoch,
        sending: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        let _place = self.acknowledging.read().await;
        if self.store().floor() > epoch {
            return Err(io::Error::other(format!("epoch {epoch} is over")));
        }
        sending.await
    }

    /// What keeps LiteFS from running. Of one that answers that is over, although its supervisor may look a
    /// moment later.
    pub(super) fn trouble(&self) -> Option<String> {
        let supervisor = self.supervisor.as_ref()?;
        let trouble = supervisor.state().borrow().trouble.clone();
        trouble.filter(|_| !self.watch.seen().borrow().live)
    }

    pub(super) fn duty(&self) -> Duty {
        *self.duty.borrow()
    }

    pub(super) fn set_duty(&self, duty: Duty) {
        self.duty.send_replace(duty);
    }

    /// What is remembered. Whatever it changes of itself here is in memory only.
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.now()
    }

    /// Changes what is remembered, without holding the control thread up while the disk is waited for.
    pub(super) async fn remember<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Store) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.store.change(change).await
    }

    /// Kills LiteFS, if we started it; then it is started again.
    pub(super) fn kill(&self, why: &'static str) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.kill(why);
        }
    }

    /// Ready once LiteFS is seen to be so, or an error after `limit`.
    pub(super) async fn until(
        &self,
        limit: Duration,
        is_so: impl FnMut(&Seen) -> bool,
    ) -> io::Result<()> {
        let mut seen = self.watch.seen();
        match timeout(limit, seen.wait_for(is_so)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Follows what LiteFS is seen to be and to apply.
    async fn keep_up(self: Arc<Self>) {
        let mut seen = self.watch.seen();
        let mut before = Seen::default();
        loop {
            let now = seen.borrow_and_update().clone();
            self.note(&before, &now).await;
            before = now;
            tokio::select! {
                // An error cannot be: the sender is ours.
                changed = seen.changed() => if changed.is_err() { return },
                () = self.learn_the_id(before.live) => {}
            }
        }
    }

    /// A LiteFS gets its cluster ID a moment after it is seen to follow a primary for the first time, and
    /// does not say so.
    async fn learn_the_id(&self, live: bool) {
        if !live || !lock(&self.info).cluster_id.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep(LOOK).await;
        if let Ok(info) = self.api.info().await {
            *lock(&self.info) = info;
        }
    }

    async fn note(&self, before: &Seen, now: &Seen) {
        // What it is by now: it may have become primary since.
        let is_primary = self.watch.seen().borrow().is_primary();
        if matches!(self.duty(), Duty::Primary(_)) && !is_primary {
            self.lease_state.not_primary();
        }
        if !now.live {
            return;
        }
        // Whoever has applied something has met a primary.
        let unknown = lock(&self.info).cluster_id.is_empty();
        let ask = unknown || now.role != before.role || now.beginning != before.beginning;
        if ask && let Ok(info) = self.api.info().await {
            *lock(&self.info) = info;
        }
        if now.beginning != before.beginning {
            // What happened before the stream began is only to be seen in the position itself.
            if let Ok(content) = self.read_content().await {
                self.adopt(now, &content).await;
                self.publish_anew(self.label(&content), &content).await;
            }
            return;
        }
        if now.applied.is_empty() {
            return;
        }
        let content = self.note_content(&now.applied);
        self.note_names(&content, None).await;
        self.adopt(now, &content).await;
        let label = self.label(&content);
        if now.replaced == before.replaced {
            self.publish(label, &content).await;
        } else {
            self.publish_anew(label, &content).await;
        }
    }

    /// Kills a LiteFS that hangs. A primary renews each tenth of our lease; this one missed two.
    async fn watch_over(self: Arc<Self>) {
        let (tick, patience) = (self.ttl / 20, self.ttl * 3 / 10);
        let mut overdue = 0;
        loop {
            tokio::time::sleep(tick).await;
            let silent = self.lease_state.silent_for().is_some_and(|time| time > patience);
            // Twice, so that what waited while we did not run is heard first.
            overdue = if silent { overdue + 1 } else { 0 };
            if overdue == 2 {
                self.kill("it hangs: it has missed two renewals of its lease");
            }
        }
    }
}

/// LiteFS has no directories, and a few names of its own.
fn check_names(options: &Options) -> io::Result<()> {
    match options.db.to_str().filter(|name| !name.contains('/') && is_database(name)) {
        Some(_) => Ok(()),
        None => {
            let text = format!(
                "proxy.db: LiteFS can have no database {}: write a plain name like db.sqlite3",
                options.db.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

impl Engine for Litefs {
    fn position(&self) -> &Arc<PositionCell> {
        &self.position
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        Box::pin(async move {
            let duty = self.duty();
            let content = self.content().await?;
            let label = self.label(&content);
            if let Duty::Primary(epoch) = duty {
                let holds = self.duty() == duty && self.lease_state.epoch() == Some(epoch);
                if !holds || !self.watch.seen().borrow().is_primary() {
                    let why = "LiteFS is no longer the primary";
                    return Err(io::Error::new(io::ErrorKind::NotConnected, why));
                }
            }
            self.publish(label, &content).await;
            Ok(label)
        })
    }

    fn refused_writes(&self) -> u64 {
        self.supervisor.as_ref().map_or(0, Supervisor::refused_writes)
    }

    fn lag(&self) -> Option<Duration> {
        match self.duty() {
            Duty::Primary(_) => Some(Duration::ZERO),
            // Without LiteFS nothing can be read.
            Duty::Replica if !self.watch.seen().borrow().live => None,
            Duty::Replica => lock(&self.level).at.map(|at| at.elapsed()),
        }
    }

    fn become_primary(&self, grant: Grant) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(self.take_lease(grant))
    }

    fn become_replica(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.step_down().await?;
            self.follow_nobody();
            Ok(())
        })
    }

    fn follow<'a>(
        &'a self,
        primary: &'a NodeId,
        epoch: Epoch,
        dial: &'a Arc<dyn Dial>,
    ) -> BoxFuture<'a, Followed> {
        Box::pin(self.follow_over_link(primary, epoch, dial))
    }

    fn protocols(self: Arc<Self>, acks: Arc<Acks>) -> Vec<Protocol> {
        let (litefs, passing) = (self.clone(), self);
        let tell: peer::Handler = Arc::new(move |incoming| {
            let (litefs, acks) = (litefs.clone(), acks.clone());
            tokio::spawn(async move {
                let replica = incoming.node;
                let applied = |at: EpochTxid| acks.heard(&replica, at);
                let Err(why) = litefs.tell(&replica, incoming.stream, applied).await;
                tracing::debug!(%replica, %why, "a replica is no longer heard");
            });
        });
        let pass: peer::Handler = Arc::new(move |incoming| {
            let litefs = passing.clone();
            tokio::spawn(async move {
                if let Err(why) = litefs.pass(&incoming.node, incoming.stream).await {
                    tracing::debug!(node = %incoming.node, %why, "a tunnel to LiteFS has ended");
                }
            });
        });
        vec![
            Protocol { name: peer::POSITIONS, limits: LINKS, handler: tell },
            Protocol { name: peer::LITEFS, limits: TUNNELS, handler: pass },
        ]
    }

    fn promise(&self, epoch: Epoch) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(self.promise_before(epoch))
    }

    fn held(&self) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(self.what_is_held())
    }

    fn fence(&self, limit: Duration) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(self.raise_fence(limit))
    }

    fn lift_fence(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.lease_state.not_yielding();
            match self.fence.lock().await.take() {
                Some(fence) => fence.lift().await,
                None => Ok(()),
            }
        })
    }

    fn lost(&self) -> BoxFuture<'_, Epoch> {
        Box::pin(async move {
            let (mut duty, mut seen) = (self.duty.subscribe(), self.watch.seen());
            loop {
                let is_primary = seen.borrow_and_update().is_primary();
                if let Duty::Primary(epoch) = *duty.borrow_and_update()
                    && !is_primary
                {
                    return epoch;
                }
                // Errors cannot be: the senders are ours.
                tokio::select! {
                    _ = duty.changed() => {}
                    _ = seen.changed() => {}
                }
            }
        })
    }

    fn unfit(&self) -> Option<String> {
        let seen = self.watch.seen().borrow().clone();
        if !seen.live {
            return Some(self.trouble().unwrap_or_else(|| "LiteFS does not answer".to_owned()));
        }
        let own = lock(&self.info).cluster_id.clone();
        match self.agreed.litefs_id() {
            Some(id) if own.is_empty() => Some(format!(
                "LiteFS has no cluster ID, and the cluster has {id}: it has never met a primary; if \
                 every node that knew it is gone: `litepilot members reset-litefs-id`"
            )),
            Some(id) if own != id => Some(format!(
                "LiteFS is of another cluster, {own}, this one is {id}: give it an empty litefs.data"
            )),
            _ if self.clings() || self.stalled.borrow().is_some() => Some(STALLED.to_owned()),
            _ if seen.is_primary() || seen.follows().is_some() => None,
            _ if self.lease_state.has_asked_within(ASKING) => None,
            _ => Some("LiteFS does not ask for its lease".to_owned()),
        }
    }

    fn lacks_litefs_id(&self) -> bool {
        let live = self.watch.seen().borrow().live;
        live && self.agreed.litefs_id().is_some() && lock(&self.info).cluster_id.is_empty()
    }

    fn state(&self) -> EngineState {
        let seen = self.watch.seen().borrow().clone();
        let state = match self.trouble() {
            Some(why) => format!("failed: {why}"),
            None if !seen.live => "starting".to_owned(),
            None if self.position.get().txid.0 == 0 => "waiting".to_owned(),
            None => "running".to_owned(),
        };
        match &self.supervisor {
            Some(supervisor) => {
                let child = supervisor.state().borrow().clone();
                EngineState { engine: "litefs", state, pid: child.pid, restarts: child.restarts }
            }
            None => EngineState { engine: "external", state, pid: None, restarts: 0 },
        }
    }

    fn stalled(&self) -> Option<watch::Receiver<Option<Stalled>>> {
        Some(self.stalled.subscribe())
    }

    fn mounted(&self) -> Option<watch::Receiver<bool>> {
        self.supervisor.as_ref().map(Supervisor::mounted)
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(supervisor) = &self.supervisor {
                supervisor.stop().await;
            }
            let mut tasks = std::mem::take(&mut *lock(&self.tasks));
            tasks.shutdown().await;
        })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
