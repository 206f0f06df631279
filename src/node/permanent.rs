//! The primary where nobody else can be: it is so for as long as it lives.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use super::replication::PAUSE;
use crate::claim::Claim;
use crate::cluster::{Epoch, EpochStart};
use crate::engine::{Engine, Grant};

pub(crate) struct PermanentPrimary {
    engine: Arc<dyn Engine>,
    /// Where the epoch started that the engine is primary in.
    starts: watch::Sender<Arc<[EpochStart]>>,
}

impl PermanentPrimary {
    pub(crate) fn new(engine: Arc<dyn Engine>, starts: watch::Sender<Arc<[EpochStart]>>) -> Self {
        Self { engine, starts }
    }

    /// Has the engine be primary, and again whenever it has ceased to by itself. `open` is told whether
    /// this node takes writes; never `true` unless `promoted`, once the engine is primary, says so.
    pub(crate) async fn hold(
        &self,
        epoch: Epoch,
        promoted: impl Future<Output = bool>,
        open: impl Fn(bool),
    ) {
        self.become_primary(epoch).await;
        if !promoted.await {
            return;
        }
        loop {
            open(true);
            self.engine.lost().await;
            open(false);
            self.become_primary(epoch).await;
        }
    }

    /// Has the engine be primary in `epoch`, or in a later one in which it was so already, however long
    /// that takes.
    pub(crate) async fn become_primary(&self, epoch: Epoch) {
        let mut said = String::new();
        loop {
            let why = match self.try_to(epoch).await {
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

    async fn try_to(&self, epoch: Epoch) -> io::Result<()> {
        let last = self.starts.borrow().last().map(|start| start.epoch).unwrap_or_default();
        let epoch = epoch.max(last);
        let held = self.engine.become_primary(Grant { epoch, claim: Claim::unlimited() }).await?;
        self.starts.send_if_modified(|starts| {
            let news = starts.last().is_none_or(|start| start.epoch <= epoch);
            if news {
                *starts = [EpochStart { epoch, held }].into();
            }
            news
        });
        Ok(())
    }
}
