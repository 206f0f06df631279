//! The backup that a node serves its LiteFS, if one is configured.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::context::NodeContext;
use crate::backup::progress::Progress;
use crate::backup::{self, Options};
use crate::config::Config;
use crate::lease::SECRET_FILE;
use crate::secret::Secret;

/// `listener`: where LiteFS brings it, bound already.
///
/// # Errors
///
/// When the place cannot be used by this build, or `data_dir` cannot be written.
pub(crate) fn start(
    config: &Config,
    context: &NodeContext,
    listener: Option<TcpListener>,
    tasks: &mut JoinSet<()>,
) -> io::Result<Option<Arc<Progress>>> {
    let Some((backup, listener)) = config.backup.as_ref().zip(listener) else { return Ok(None) };
    let options = Options {
        place: backup.place.clone(),
        schedule: backup.schedule,
        data_dir: config.data_dir.clone(),
        mount: config.litefs.mount.clone(),
        untracked: config.proxy.untracked.clone(),
        secret: Secret::load_or_create(&config.data_dir.join(SECRET_FILE))?,
        view: context.view.clone(),
        position: context.engine.position().clone(),
        warnings: context.warnings.clone(),
    };
    backup::start(options, listener, tasks).map(Some)
}
