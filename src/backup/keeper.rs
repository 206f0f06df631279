//! Keeps what the primary's LiteFS sends. One thing at a time, so that nothing piles up here: LiteFS waits,
//! and the application does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::timeout;

use super::catalog;
use super::ltx::{Facts, Pos};
use super::progress::Progress;
use super::refusal::Refusal;
use super::spool::{Spool, Spooled};
use super::store::{Put, Store};
use super::tenure::Tenure;
use crate::cluster::{ClusterView, Epoch, Role};
use crate::files::on_disk;
use crate::litefs::position;
use crate::txid::Txid;

/// To read the positions in LiteFS' mount.
const READING: Duration = Duration::from_secs(2);

pub(crate) struct Keeper {
    pub(super) store: Arc<dyn Store>,
    pub(super) place: String,
    pub(super) spool: Spool,
    pub(super) mount: PathBuf,
    pub(super) untracked: BTreeSet<String>,
    pub(super) view: watch::Receiver<ClusterView>,
    pub(super) progress: Arc<Progress>,
    pub(super) tenure: AsyncMutex<Option<Known>>,
}

/// What the primary of an epoch knows.
pub(super) struct Known {
    tenure: Tenure,
    /// LiteFS' name for the cluster, which the store bears.
    cluster: String,
    /// The databases that count as tracked, as LiteFS last held them.
    tracked: BTreeSet<String>,
}

impl Keeper {
    /// The epoch of which this node is the primary now.
    ///
    /// # Errors
    ///
    /// When it is none's.
    pub(super) fn epoch(&self) -> Result<Epoch, Refusal> {
        let view = self.view.borrow();
        match view.role == Role::Primary && view.claim.is_valid() {
            true => Ok(view.epoch()),
            false => Err(Refusal::NotPrimary),
        }
    }

    /// Where the backup of each database is, as far as LiteFS can go on from there.
    ///
    /// # Errors
    ///
    /// When that is not known; LiteFS asks again.
    pub(crate) async fn positions(&self, cluster: &str) -> Result<BTreeMap<String, Pos>, Refusal> {
        let epoch = self.epoch()?;
        let mut known = self.tenure.lock().await;
        let known = self.known(&mut known, epoch, cluster).await?;
        let local = self.local(known.tenure.names()).await?;
        known.tracked = local.keys().filter(|db| !self.untracked.contains(*db)).cloned().collect();
        let positions = known.tenure.positions(&local);
        self.progress.keeps(known.tenure.seq(&known.tracked), false);
        Ok(positions)
    }

    /// Keeps a file. Returns up to where LiteFS need not keep transactions any more.
    ///
    /// # Errors
    ///
    /// When it is not kept.
    pub(crate) async fn take(
        &self,
        cluster: &str,
        db: &str,
        file: &Spooled,
        facts: &Facts,
    ) -> Result<Txid, Refusal> {
        let epoch = self.epoch()?;
        let mut known = self.tenure.lock().await;
        let known = self.known(&mut known, epoch, cluster).await?;
        let object = known.tenure.place(db, facts);
        let object = object.ok_or_else(|| Refusal::NewHistory(db.to_owned()))?;
        let put = self.store.put(&object.key(), file.path()).await?;
        if put == Put::Exists {
            tracing::debug!(key = object.key(), "kept already");
        }
        known.tenure.has(&object);
        if !self.untracked.contains(db) {
            known.tracked.insert(db.to_owned());
        }
        self.progress.keeps(known.tenure.seq(&known.tracked), true);
        if object.is_snapshot() {
            tracing::info!(db, generation = %object.generation, at = %object.after, "backup: a snapshot");
        }
        Ok(facts.header.max)
    }

    /// LiteFS wants to be overwritten by the backup, since it cannot go on from there.
    pub(crate) async fn never_restore(&self, db: &str) -> Refusal {
        if let Some(known) = &mut *self.tenure.lock().await {
            known.tenure.give_up(db);
        }
        Refusal::NeverRestored(db.to_owned())
    }

    /// Whether the store is found to be this cluster's, by the primary of that epoch.
    pub(super) async fn owns(&self, epoch: Epoch) -> bool {
        let known = self.tenure.lock().await;
        known.as_ref().is_some_and(|known| known.tenure.epoch == epoch)
    }

    async fn known<'a>(
        &self,
        known: &'a mut Option<Known>,
        epoch: Epoch,
        cluster: &str,
    ) -> Result<&'a mut Known, Refusal> {
        let same = |known: &Known| known.tenure.epoch == epoch && known.cluster == cluster;
        let fresh = match known.take().filter(same) {
            Some(same) => same,
            None => {
                catalog::claim(&*self.store, &self.spool, &self.place, cluster).await?;
                let catalog = catalog::list(&*self.store).await?;
                let tenure = on_disk(move || Tenure::new(epoch, &catalog)).await?;
                Known { tenure, cluster: cluster.to_owned(), tracked: BTreeSet::new() }
            }
        };
        Ok(known.insert(fresh))
    }

    /// What LiteFS holds of each database; `names`: of these, too. It lists no deleted ones, which it keeps
    /// and goes on sending.
    async fn local(&self, mut names: BTreeSet<String>) -> Result<BTreeMap<String, Pos>, Refusal> {
        let mount = self.mount.clone();
        let read = on_disk(move || {
            let mut held = BTreeMap::new();
            names.extend(position::list(&mount)?);
            for name in names {
                let at = position::read_one(&mount, &name)?;
                if let Some(at) = at.filter(|at| at.txid > Txid(0)) {
                    held.insert(name, Pos { txid: at.txid, checksum: at.checksum });
                }
            }
            Ok::<_, std::io::Error>(held)
        });
        match timeout(READING, read).await {
            Ok(read) => Ok(read??),
            Err(_) => Err(Refusal::Here("LiteFS' mount does not answer".to_owned())),
        }
    }
}
