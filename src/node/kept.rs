//! This node's copy of the database, and how it is replicated: by the embedded engine, or by LiteFS.

use parking_lot::Mutex;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::around::Around;
use super::peers::Protocol;
use crate::acks::Acks;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::config::{Config, EngineKind};
use crate::election::Election;
use crate::embedded::{self, CopyRole, Embedded};
use crate::engine::Engine;
use crate::lease::SECRET_FILE;
use crate::litefs::engine::{Litefs, Options};
use crate::litefs::link::Link;
use crate::litefs::supervise::Spec;
use crate::litefs::{render, tunnel};
use crate::peer::{self, Dialer, Limits, Stream};
use crate::process::guard::{Guard, THIS_PROGRAM};
use crate::secret::Secret;
use crate::telemetry::log_throttle::LogThrottle;
use crate::txid::{EpochTxid, Position};

/// A replica needs one connection; the others are those it gave up.
const LINKS: Limits = Limits { per_peer: 4, total: 256 };
/// A LiteFS needs one for its stream, and now and then one for a request.
const TUNNELS: Limits = Limits { per_peer: 16, total: 256 };
/// Before a replica dials its primary again, and before an engine is asked again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The copy. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Kept {
    /// In a plain directory.
    Embedded(Arc<Embedded>),
    /// In LiteFS' file system.
    Litefs(Arc<InLitefs>),
}

/// A copy in LiteFS, with what it knows of the cluster.
pub(crate) struct InLitefs {
    litefs: Arc<Litefs>,
    around: Arc<Around>,
    http: SocketAddr,
    /// Of this node's last reign, without an election.
    reigned: AtomicU64,
    /// The lease's server and the like.
    tasks: Mutex<JoinSet<()>>,
}

/// What an engine is started with beside the configuration.
pub(crate) struct Beginning {
    /// What this node is at start.
    pub(crate) duty: CopyRole,
    /// There are other nodes.
    pub(crate) replicated: bool,
    pub(crate) dialer: Option<Arc<Dialer>>,
    /// See [`super::Tuning`].
    pub(crate) apply_delay: Duration,
    /// LiteFS mounts a real file system. False only for a stand-in of tests.
    pub(crate) fuse: bool,
    /// Kills LiteFS when we cannot.
    pub(crate) guard: Option<Guard>,
    /// Of LiteFS; bound already.
    pub(crate) lease: Option<TcpListener>,
}

impl Kept {
    /// Starts the engine that is configured, in tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// When what is on disk cannot be used. A LiteFS that does not start is no error: that is tried
    /// again, and said in the status.
    pub(crate) fn start(config: &Config, beginning: Beginning) -> io::Result<Self> {
        let Beginning { duty, replicated, dialer, apply_delay, fuse, guard, lease } = beginning;
        let Some(lease) = lease else {
            let options = embedded::Options {
                mount: config.litefs.mount.clone(),
                db: config.proxy.db.clone(),
                data_dir: config.data_dir.clone(),
                role: duty,
                replicated,
                apply_delay,
            };
            return Embedded::start(options).map(Self::Embedded);
        };
        let around = Arc::new(Around::new(config, dialer));
        lease.set_nonblocking(true)?;
        let lease = tokio::net::TcpListener::from_std(lease)?;
        let options = litefs_options(config, guard, fuse)?;
        let (litefs, tasks) = Litefs::start(options, around.clone(), lease)?;
        let tasks = Mutex::new(tasks);
        let (http, reigned) = (config.litefs.http, AtomicU64::new(0));
        Ok(Self::Litefs(Arc::new(InLitefs { litefs, around, http, reigned, tasks })))
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Self::Embedded(embedded) => embedded.clone(),
            Self::Litefs(kept) => kept.litefs.clone(),
        }
    }

    /// Whether the application can use the database's directory; `None` if it always can, as far as we
    /// know.
    pub(crate) fn mounted(&self) -> Option<watch::Receiver<bool>> {
        match self {
            Self::Embedded(_) => None,
            Self::Litefs(kept) => kept.litefs.mounted(),
        }
    }

    /// From now on the election says who is primary.
    pub(crate) fn join(&self, election: &Election) {
        if let Self::Litefs(kept) = self {
            kept.around.join(election.clone());
        }
    }

    /// What replicas of this node's copy need.
    pub(crate) fn protocols(&self, acks: &Arc<Acks>) -> Vec<Protocol> {
        let acks = acks.clone();
        match self {
            Self::Embedded(embedded) => {
                let embedded = embedded.clone();
                let ship: peer::Handler = Arc::new(move |incoming| {
                    let (embedded, acks) = (embedded.clone(), acks.clone());
                    tokio::spawn(async move {
                        let replica = incoming.node;
                        let applied = |position: Position| acks.heard(&replica, position.at);
                        if let Err(why) = embedded.serve(incoming.stream, applied).await {
                            tracing::debug!(%replica, %why, "a replica is no longer served");
                        }
                    });
                });
                vec![(peer::EMBEDDED, LINKS, ship)]
            }
            Self::Litefs(kept) => {
                let (litefs, http) = (kept.litefs.clone(), kept.http);
                let tell: peer::Handler = Arc::new(move |incoming| {
                    let (litefs, acks) = (litefs.clone(), acks.clone());
                    tokio::spawn(async move {
                        let replica = incoming.node;
                        let applied = |at: EpochTxid| acks.heard(&replica, at);
                        if let Err(why) = litefs.tell(incoming.stream, applied).await {
                            tracing::debug!(%replica, %why, "a replica is no longer heard");
                        }
                    });
                });
                let pass: peer::Handler = Arc::new(move |incoming| {
                    tokio::spawn(async move {
                        if let Err(why) = tunnel::serve(incoming.stream, http).await {
                            tracing::debug!(node = %incoming.node, %why, "a tunnel to LiteFS has ended");
                        }
                    });
                });
                vec![(peer::POSITIONS, LINKS, tell), (peer::LITEFS, TUNNELS, pass)]
            }
        }
    }

    /// Follows one primary until the connection ends, and waits a little.
    pub(crate) async fn follow(
        &self,
        dialer: &Dialer,
        primary: &NodeId,
        epoch: Epoch,
        log: &LogThrottle<String>,
    ) {
        let followed = match self {
            Self::Embedded(embedded) => follow_embedded(embedded, dialer, primary).await,
            Self::Litefs(kept) => match dialer.dial(primary, peer::POSITIONS).await {
                Ok(stream) => kept.follow(stream, primary, epoch).await,
                Err(why) => {
                    tracing::debug!(%primary, %why, "cannot follow");
                    Ok(())
                }
            },
        };
        if let Err(why) = followed {
            // One that is primary no more says so until there is another.
            let why = why.to_string();
            if let Some(held_back) = log.may_speak(why.clone(), Instant::now()) {
                tracing::warn!(
                    %primary, why, held_back,
                    "the database is no longer received; dialing again"
                );
            }
        }
        sleep(PAUSE).await;
    }

    /// Without an election: has the copy be the primary's in `epoch`, or in a later one in which it was
    /// so already, however long that takes.
    pub(crate) async fn reign(&self, epoch: Epoch) {
        let mut said = String::new();
        loop {
            let why = match self.begin(epoch).await {
                Ok(()) => return,
                Err(why) => why.to_string(),
            };
            if why != said {
                tracing::warn!(%why, "the database cannot be written yet");
                said = why;
            }
            sleep(PAUSE).await;
        }
    }

    async fn begin(&self, epoch: Epoch) -> io::Result<()> {
        let kept = match self {
            Self::Embedded(embedded) => return embedded.become_primary(epoch).await.map(drop),
            Self::Litefs(kept) => kept,
        };
        let epoch = epoch.max(Epoch(kept.reigned.load(Ordering::Relaxed)));
        let held = kept.litefs.become_primary(epoch).await?;
        kept.reigned.store(epoch.0, Ordering::Relaxed);
        kept.around.heard([EpochStart { epoch, held }].into());
        Ok(())
    }

    /// Ends the engine, which waits for it. The application has to be stopped before.
    pub(crate) async fn stop(self) {
        match self {
            Self::Embedded(embedded) => embedded.stop(),
            Self::Litefs(kept) => {
                kept.around.leave();
                kept.litefs.stop().await;
                let mut tasks = {
                    let mut tasks = kept.tasks.lock();
                    std::mem::take(&mut *tasks)
                };
                tasks.shutdown().await;
            }
        }
    }
}

async fn follow_embedded(embedded: &Embedded, dialer: &Dialer, primary: &NodeId) -> io::Result<()> {
    if let Err(why) = embedded.become_replica(Some(primary.clone())).await {
        tracing::error!(%why, "the engine cannot follow; trying again");
        return Ok(());
    }
    match dialer.dial(primary, peer::EMBEDDED).await {
        Ok(stream) => embedded.follow(stream).await,
        Err(why) => {
            tracing::debug!(%primary, %why, "cannot follow");
            Ok(())
        }
    }
}

impl InLitefs {
    async fn follow(&self, stream: Stream, primary: &NodeId, epoch: Epoch) -> io::Result<()> {
        let (link, starts) = Link::open(stream).await?;
        if starts.last().is_none_or(|start| start.epoch != epoch) {
            return Err(io::Error::other(format!("{primary} does not reign in epoch {epoch}")));
        }
        // What it replaces is known by where the reigns began.
        self.around.heard(starts);
        self.litefs.become_replica(Some(primary.clone())).await?;
        link.run(&self.litefs).await
    }
}

fn litefs_options(config: &Config, guard: Option<Guard>, fuse: bool) -> io::Result<Options> {
    let secret = Secret::load_or_create(&config.data_dir.join(SECRET_FILE))?;
    let file = render::write(config, &secret)?;
    let supervise = (config.litefs.engine == EngineKind::Litefs).then(|| Spec {
        litefs: config.litefs.clone(),
        file,
        guard: guard.clone(),
        fuse,
    });
    Ok(Options {
        node: config.node.clone(),
        mount: config.litefs.mount.clone(),
        db: config.proxy.db.clone(),
        data_dir: config.data_dir.clone(),
        http: config.litefs.http,
        ttl: config.cluster.lease_ttl,
        secret,
        program: guard.map_or_else(|| PathBuf::from(THIS_PROGRAM), |guard| guard.program),
        fuse,
        supervise,
    })
}
