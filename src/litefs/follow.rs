//! Following another node's LiteFS, and ceasing to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::databases::Databases;
use super::engine::{Duty, Litefs, lock};
use super::lineage::Lineage;
use super::position::LitefsPosition;
use super::positions_link::ReplicaLink;
use super::tunnel::Tunnel;
use super::watch::Seen;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::copy::diverged::{self, Place};
use crate::engine::Held;
use crate::engine::replication::{Dial, FollowError, Followed};
use crate::lease::PrimaryInfo;
use crate::peer;
use crate::txid::{Checksum, EpochTxid, Position};

/// How long LiteFS may take to leave a primary: what it is applying has to be applied, and an open read
/// transaction holds that up.
const LEAVING: Duration = Duration::from_secs(2);

/// Whom this node's LiteFS follows.
pub(super) struct Following {
    primary: NodeId,
    /// Where its epoch started, if that is known.
    start: Option<EpochStart>,
    /// What its databases held there.
    begun: Databases,
    /// What the copy held that the primary's history lacks: it is overwritten.
    diverged: Databases,
    _tunnel: Tunnel,
}

impl Following {
    /// What counts of a copy with this content: what is still to be overwritten does not.
    fn counting(&self, content: &Databases) -> Databases {
        let mut counting = content.clone();
        for (name, at) in self.diverged.iter().filter(|(name, at)| content.get(name) == **at) {
            tracing::trace!(%name, txid = %at.txid, "this database is still to be replaced");
            counting.set(name, LitefsPosition::default());
        }
        counting
    }

    /// Whether a copy with this content holds the primary's history: it is connected, and at or beyond
    /// the start of the epoch in each database. What is beyond came from there: LiteFS checks that each
    /// transaction fits the one before, and whatever the copy had of its own is not counted.
    fn reaches(&self, seen: &Seen, content: &Databases) -> Option<EpochStart> {
        let connected = seen.follows() == Some(self.primary.as_str());
        let beyond = || connected && self.counting(content).hold(&self.begun);
        (*content == self.begun || beyond()).then_some(self.start?)
    }
}

impl Litefs {
    /// Hears from `primary` where the epochs started, has LiteFS follow it, and exchanges positions with
    /// it for as long as the connection lasts.
    pub(super) async fn follow_over_link(
        &self,
        primary: &NodeId,
        epoch: Epoch,
        dial: &Arc<dyn Dial>,
    ) -> Followed {
        let dialed = dial.dial(primary, peer::POSITIONS).await;
        let link = ReplicaLink::open(dialed.map_err(FollowError::Unreachable)?).await?;
        let (link, starts, lineage) = link;
        if starts.last().is_none_or(|start| start.epoch != epoch) {
            let why = format!("{primary} is not the primary of epoch {epoch}");
            return Err(io::Error::other(why).into());
        }
        self.store().learn(&lineage)?;
        self.follow_history(primary, &starts, dial).await?;
        self.store().announced().begin(epoch);
        Ok(link.run(self).await?)
    }

    /// Makes this copy a replica, and has LiteFS follow `primary`, the last of whose `starts` is its own.
    /// What its history lacks of this copy is kept before.
    ///
    /// # Errors
    ///
    /// When a later epoch is known, LiteFS does not answer, or this copy cannot be kept.
    pub async fn follow_history(
        &self,
        primary: &NodeId,
        starts: &[EpochStart],
        dial: &Arc<dyn Dial>,
    ) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        self.step_down().await?;
        let start = starts.last().copied();
        let same = |f: &Following| f.primary == *primary && f.start == start;
        if lock(&self.following).as_ref().is_some_and(same) {
            return Ok(());
        }
        let floor = self.store().floor();
        if let Some(start) = start.filter(|start| start.epoch < floor) {
            let why = format!("epoch {floor} is known: this node does not follow {}", start.epoch);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.follow_nobody();
        let content = self.content().await?;
        self.store().close(&content)?;
        let diverged = self.keep_what_is_lacking(&content, starts).await?;
        let tunnel = Tunnel::open(dial.clone(), primary.clone()).await?;
        let info = PrimaryInfo {
            hostname: primary.to_string(),
            advertise_url: format!("http://{}", tunnel.address()),
        };
        let begun = start.map(|start| self.begun(start)).unwrap_or_default();
        let primary = primary.clone();
        let following = Following { primary, start, begun, diverged, _tunnel: tunnel };
        *lock(&self.following) = Some(following);
        self.lease_state.follow(Some(info));
        let seen = self.watch.seen().borrow().clone();
        self.adopt(&seen, &content);
        self.publish(self.label(&content), &content);
        Ok(())
    }

    /// What the databases held when that epoch began. Of one that a build with one database began, what
    /// that one held.
    fn begun(&self, start: EpochStart) -> Databases {
        let known = self.store().lineage().of(start.epoch).cloned();
        let Position { at, checksum } = start.held;
        let main = LitefsPosition { txid: at.txid, checksum };
        known.unwrap_or_else(|| Databases::one(&self.db_name(), main))
    }

    /// Keeps the databases that have what the history of `starts` lacks, and says which.
    async fn keep_what_is_lacking(
        &self,
        content: &Databases,
        starts: &[EpochStart],
    ) -> io::Result<Databases> {
        let diverged = {
            let store = self.store();
            let epoch = store.position(content).at.epoch;
            let lineage: &Lineage = store.lineage();
            (epoch, lineage.diverged(content, epoch, starts, self.elects))
        };
        let (epoch, diverged) = diverged;
        for (name, at) in diverged.iter() {
            let at = *at;
            let have = EpochTxid { epoch, txid: at.txid };
            self.keep_diverged(name, Position { at: have, checksum: at.checksum }).await?;
        }
        Ok(diverged)
    }

    /// Tells LiteFS that there is no primary, and cuts it off.
    pub(super) fn follow_nobody(&self) {
        self.lease_state.follow(None);
        *lock(&self.following) = None;
    }

    /// Notes that the copy has reached the history that it follows, once it has, and what of it.
    pub(super) fn adopt(&self, seen: &Seen, content: &Databases) {
        if self.duty() != Duty::Replica {
            return;
        }
        let following = lock(&self.following);
        let Some(following) = &*following else { return };
        let mut store = self.store();
        if let Some(start) = following.reaches(seen, content)
            && store.position(content).at.epoch < start.epoch
            && let Err(why) = store.adopt(start, content)
        {
            tracing::error!(%why, "this copy cannot be said to be of its primary's history");
        }
        // Before, what is to be overwritten could pass for what was announced.
        if store.adopted() == following.start.map(|start| start.epoch) {
            store.announced().look(&following.counting(content));
        }
    }

    /// The primary has announced this; `None`: it is a build with one database.
    pub(super) fn heard(&self, at: EpochTxid, changed: Option<Databases>) {
        let main = LitefsPosition { txid: at.txid, checksum: Checksum::UNKNOWN };
        let changed = changed.unwrap_or_else(|| Databases::one(&self.db_name(), main));
        let changed = changed.without(&self.untracked);
        self.positions.look_for(changed.iter().map(|(name, _)| name));
        self.store().announced().hear(at.txid, changed);
        let (seen, content) = (self.watch.seen().borrow().clone(), self.holds());
        self.adopt(&seen, &content);
        self.publish(self.label(&content), &content);
    }

    async fn keep_diverged(&self, name: &str, have: Position) -> io::Result<()> {
        let place = match diverged::place(&self.data_dir, name, have)? {
            Place::New(place) => place,
            Place::Kept(kept) => {
                tracing::debug!(kept = %kept.display(), "this copy was set aside before");
                return Ok(());
            }
        };
        self.api.export(name, &place.partial).await.map_err(io::Error::other)?;
        let kept = place.keep()?;
        tracing::error!(
            "this copy of {name} has transactions that the cluster's history lacks, up to {}: they were \
             lost when another node became primary. It is kept as {} and replaced",
            have.at,
            kept.display()
        );
        Ok(())
    }

    pub(super) async fn promise_before(&self, epoch: Epoch) -> io::Result<Held> {
        let _turn = self.turn.lock().await;
        self.store().promise(epoch)?;
        let newer = matches!(self.duty(), Duty::Primary(own) if own >= epoch)
            || lock(&self.following).as_ref().is_some_and(|f| f.is_at_least(epoch));
        if !newer {
            self.step_down().await?;
            self.follow_nobody();
            let late = |_| {
                let why = "LiteFS does not leave its primary: is a read transaction open?";
                io::Error::new(io::ErrorKind::TimedOut, why)
            };
            self.until(LEAVING, |seen| seen.follows().is_none()).await.map_err(late)?;
        }
        // An acknowledgement that was just being sent is over, and no other begins.
        drop(self.acknowledging.write().await);
        self.what_is_held().await
    }
}

impl Following {
    fn is_at_least(&self, epoch: Epoch) -> bool {
        self.start.is_some_and(|start| start.epoch >= epoch)
    }
}
