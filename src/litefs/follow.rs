//! Following another node's LiteFS, and ceasing to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;

use super::engine::{ASKING, Duty, Litefs, lock};
use super::position::LitefsPosition;
use super::positions_link::ReplicaLink;
use super::tunnel::Tunnel;
use super::watch::Seen;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::copy::diverged::{self, Place};
use crate::copy::history;
use crate::engine::Held;
use crate::engine::replication::{Dial, FollowError, Followed};
use crate::lease::PrimaryInfo;
use crate::peer;
use crate::txid::Position;

/// How long a promise waits for LiteFS to leave its primary: what it is applying has to be applied. An open
/// read transaction may hold that up for ever, and a failover must not wait for readers.
const LEAVING: Duration = Duration::from_millis(200);
/// A LiteFS that has not left its primary after so many promises in a row is started anew.
const PATIENCE: u32 = 8;

/// Whom this node's LiteFS follows.
pub(super) struct Following {
    primary: NodeId,
    /// Where its epoch started, if that is known.
    start: Option<EpochStart>,
    /// What the copy held that the primary's history lacks: it is overwritten.
    diverged: Option<LitefsPosition>,
    _tunnel: Tunnel,
}

impl Following {
    /// Whether a copy with this content holds the primary's history: it is connected, and at or beyond
    /// the start of the epoch. What is beyond came from there: LiteFS checks that each transaction fits
    /// the one before, and whatever the copy had of its own was at `diverged`.
    fn reaches(&self, seen: &Seen, content: LitefsPosition) -> Option<Epoch> {
        let start = self.start?;
        let held = start.held;
        let equal = held.at.txid == content.txid && held.checksum == content.checksum;
        let connected = seen.follows() == Some(self.primary.as_str());
        let beyond = content.txid > held.at.txid && self.diverged != Some(content);
        (equal || connected && beyond).then_some(start.epoch)
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
        let (link, starts) = ReplicaLink::open(dialed.map_err(FollowError::Unreachable)?).await?;
        if starts.last().is_none_or(|start| start.epoch != epoch) {
            let why = format!("{primary} is not the primary of epoch {epoch}");
            return Err(io::Error::other(why).into());
        }
        self.follow_history(primary, &starts, dial).await?;
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
        self.store().close(content)?;
        let diverged = self.keep_what_is_lacking(content, starts).await?;
        let tunnel = Tunnel::open(dial.clone(), primary.clone()).await?;
        let info = PrimaryInfo {
            hostname: primary.to_string(),
            advertise_url: format!("http://{}", tunnel.address()),
        };
        let following = Following { primary: primary.clone(), start, diverged, _tunnel: tunnel };
        *lock(&self.following) = Some(following);
        self.lease_state.follow(Some(info));
        let seen = self.watch.seen().borrow().clone();
        self.adopt(&seen, content);
        self.publish(self.label(content));
        Ok(())
    }

    /// Keeps this copy if it has what the history of `starts` lacks; then that is what it holds.
    async fn keep_what_is_lacking(
        &self,
        content: LitefsPosition,
        starts: &[EpochStart],
    ) -> io::Result<Option<LitefsPosition>> {
        let have = self.store().position(content);
        let diverges = match (self.elects, starts.last()) {
            (true, _) => history::diverges(have, starts),
            (false, Some(start)) => history::exceeds(have, *start),
            (false, None) => false,
        };
        if !diverges {
            return Ok(None);
        }
        self.keep_diverged(have).await?;
        Ok(Some(content))
    }

    /// Tells LiteFS that there is no primary, and cuts it off.
    pub(super) fn follow_nobody(&self) {
        if self.watch.seen().borrow().follows().is_some() {
            self.lease_state.leaves();
        }
        self.lease_state.follow(None);
        *lock(&self.following) = None;
    }

    /// Notes that the copy has reached the history that it follows, once it has.
    pub(super) fn adopt(&self, seen: &Seen, content: LitefsPosition) {
        if self.duty() != Duty::Replica {
            return;
        }
        let reached = lock(&self.following).as_ref().and_then(|f| f.reaches(seen, content));
        let Some(epoch) = reached else { return };
        if self.store().position(content).at.epoch < epoch
            && let Err(why) = self.store().adopt(epoch)
        {
            tracing::error!(%why, "this copy cannot be said to be of its primary's history");
        }
    }

    /// Waits for LiteFS to leave its primary, and to ask for the lease: in between it needs its databases for
    /// itself. One that does not is not fit (`unfit`), but what it holds counts: whatever it may still apply is
    /// not acknowledged any more.
    async fn let_go(&self) {
        let left = async {
            self.until(LEAVING, |seen| seen.follows().is_none()).await.is_ok()
                && timeout(LEAVING, self.lease_state.asks(ASKING)).await.is_ok()
        };
        if left.await {
            self.clung.store(0, Relaxed);
        } else if self.clung.fetch_add(1, Relaxed) + 1 == PATIENCE {
            // This one is needed, or there would be a primary by now.
            self.clung.store(0, Relaxed);
            self.kill("an open transaction keeps it from leaving its former primary");
        }
    }

    /// LiteFS was told to leave its primary, and has not yet.
    pub(super) fn clings(&self) -> bool {
        let seen = self.watch.seen().borrow().follows().is_some();
        seen && self.duty() == Duty::Replica && lock(&self.following).is_none()
    }

    async fn keep_diverged(&self, have: Position) -> io::Result<()> {
        let place = match diverged::place(&self.data_dir, have)? {
            Place::New(place) => place,
            Place::Kept(kept) => {
                tracing::debug!(kept = %kept.display(), "this copy was set aside before");
                return Ok(());
            }
        };
        let name = self.db.to_string_lossy();
        self.api.export(&name, &place.partial).await.map_err(io::Error::other)?;
        let kept = place.keep()?;
        tracing::error!(
            "this copy has transactions that the cluster's history lacks, up to {}: they were lost when \
             another node became primary. It is kept as {} and replaced",
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
            self.let_go().await;
        }
        // An acknowledgement that was just being sent is over, and no other begins.
        drop(self.acknowledging.write().await);
        let content = self.content().await?;
        let position = Position { at: self.label(content), checksum: content.checksum };
        Ok(Held { position, empty: content.txid.0 == 0 })
    }
}

impl Following {
    fn is_at_least(&self, epoch: Epoch) -> bool {
        self.start.is_some_and(|start| start.epoch >= epoch)
    }
}
