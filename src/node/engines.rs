//! Builds the engine that is configured. The only place that knows which there are.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::null_engine::NullEngine;
use crate::cluster::Epoch;
use crate::config::{Config, Election, EngineKind};
use crate::embedded::{self, CopyRole, Embedded};
use crate::engine::Engine;
use crate::lease::SECRET_FILE;
use crate::litefs::agreement::Agreed;
use crate::litefs::engine::{Litefs, Options};
use crate::litefs::render;
use crate::litefs::supervise::Spec;
use crate::process::guard::{Guard, THIS_PROGRAM};
use crate::secret::Secret;

/// What an engine is started with beside the configuration.
pub(crate) struct EngineInputs {
    /// The epoch of which this node is the primary from the start; `None`: it is a replica at first.
    pub(crate) primary_of: Option<Epoch>,
    /// There are other nodes.
    pub(crate) replicated: bool,
    /// See [`super::Tuning`].
    pub(crate) apply_delay: Duration,
    /// See [`super::Tuning`].
    pub(crate) fuse: bool,
    /// Kills LiteFS when we cannot.
    pub(crate) guard: Option<Guard>,
    /// Where LiteFS gets its lease, bound already.
    pub(crate) lease: Option<TcpListener>,
    pub(crate) agreed: Agreed,
}

/// Starts the engine that is configured, in tasks of the current runtime.
///
/// # Errors
///
/// When what is on disk cannot be used. A LiteFS that does not start is no error: that is tried again,
/// and said in the status.
pub(crate) fn start(config: &Config, inputs: EngineInputs) -> io::Result<Arc<dyn Engine>> {
    if config.is_witness() {
        return Ok(Arc::new(NullEngine::default()));
    }
    match config.litefs.engine {
        EngineKind::Embedded => embedded(config, &inputs),
        EngineKind::Litefs | EngineKind::External => litefs(config, inputs),
    }
}

fn embedded(config: &Config, inputs: &EngineInputs) -> io::Result<Arc<dyn Engine>> {
    let engine = Embedded::start(embedded::Options {
        mount: config.litefs.mount.clone(),
        db: config.proxy.db.clone(),
        data_dir: config.data_dir.clone(),
        role: inputs.primary_of.map_or(CopyRole::Replica, CopyRole::Primary),
        replicated: inputs.replicated,
        apply_delay: inputs.apply_delay,
    })?;
    Ok(engine)
}

fn litefs(config: &Config, inputs: EngineInputs) -> io::Result<Arc<dyn Engine>> {
    let EngineInputs { fuse, guard, lease, agreed, .. } = inputs;
    let lease = lease.ok_or_else(|| io::Error::other("LiteFS needs litefs.lease_listen"))?;
    lease.set_nonblocking(true)?;
    let secret = Secret::load_or_create(&config.data_dir.join(SECRET_FILE))?;
    let file = render::write(config, &secret)?;
    let supervise = (config.litefs.engine == EngineKind::Litefs).then(|| Spec {
        litefs: config.litefs.clone(),
        file,
        guard: guard.clone(),
        fuse,
    });
    let options = Options {
        node: config.node.clone(),
        mount: config.litefs.mount.clone(),
        db: config.proxy.db.clone(),
        untracked: config.proxy.untracked.clone(),
        data_dir: config.data_dir.clone(),
        http: config.litefs.http,
        ttl: config.cluster.lease_ttl,
        secret,
        program: guard.map_or_else(|| PathBuf::from(THIS_PROGRAM), |guard| guard.program),
        fuse,
        supervise,
        elects: config.cluster.election == Election::Raft,
        agreed,
    };
    let engine = Litefs::start(options, tokio::net::TcpListener::from_std(lease)?)?;
    Ok(engine)
}
