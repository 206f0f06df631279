//! This node's last will: whether there is one, and keeping it up to date.

use std::path::Path;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::certificates::Certificates;
use super::elected::Part;
use crate::config::{Config, Election, EngineKind};
use crate::last_will::testator::Testator;

/// Has the others told should this process die; `None` where they could not know that nothing commits
/// here any more. `guard` is a `litepilot`.
pub(super) fn testator(config: &Config, guard: Option<&Path>) -> Option<Testator> {
    let program = guard?;
    if config.cluster.election != Election::Raft || !commits_under_guard(config) {
        return None;
    }
    let started = Testator::start(program);
    started.inspect_err(|why| tracing::warn!(%why, "cannot start litepilot last-will")).ok()
}

/// Keeps the will up to date, also when the certificates are read anew.
pub(super) fn keep(
    testator: Testator,
    config: &Config,
    part: &Part,
    certificates: Option<&Certificates>,
    tasks: &mut JoinSet<()>,
) {
    let (read, reread) = watch::channel(());
    if let Some(certificates) = certificates {
        let mut dated = certificates.dated();
        tasks.spawn(async move {
            while dated.changed().await.is_ok() {
                read.send_replace(());
            }
        });
    }
    tasks.spawn(testator.keep(part.will(config), reread));
}

/// Whether what writes to this node's copy ends with its guard: LiteFS, or over plain directories the
/// application.
fn commits_under_guard(config: &Config) -> bool {
    match config.litefs.engine {
        _ if config.is_witness() => true,
        EngineKind::Litefs => true,
        EngineKind::Embedded => !config.app.command.is_empty(),
        EngineKind::External => false,
    }
}
