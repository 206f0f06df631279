//! Following another node's LiteFS, and letting go of it.

use std::io;
use std::time::Duration;

use super::engine::{Duty, Litefs, lock};
use super::position::LitefsPosition;
use super::tunnel::Tunnel;
use super::watch::Seen;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::copy::diverged::{self, Place};
use crate::copy::history;
use crate::engine::Held;
use crate::lease::PrimaryInfo;
use crate::txid::Position;

/// How long LiteFS may take to let go of a primary: what it is applying has to be applied, and an open
/// read transaction holds that up.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Whom this node's LiteFS follows.
pub(super) struct Following {
    primary: NodeId,
    /// Where its reign began, if that is known.
    start: Option<EpochStart>,
    /// What the copy held that the primary's history lacks: it is overwritten.
    diverged: Option<LitefsPosition>,
    _tunnel: Tunnel,
}

impl Following {
    /// Whether a copy with this content holds the primary's history: it is connected, and at or beyond
    /// the start of the reign. What is beyond came from there: LiteFS checks that each transaction fits
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
    /// Has LiteFS follow `primary`; the caller has the turn. What its history lacks is kept before.
    pub(super) async fn follow(&self, primary: NodeId) -> io::Result<()> {
        let starts = self.cluster.starts();
        let start = starts.last().copied();
        let same = |f: &Following| f.primary == primary && f.start == start;
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
        let have = self.store().position(content);
        let diverges = match (self.cluster.elects(), start) {
            (true, _) => history::diverges(have, &starts),
            (false, Some(start)) => history::exceeds(have, start),
            (false, None) => false,
        };
        if diverges {
            self.keep_diverged(have).await?;
        }
        let tunnel = Tunnel::open(self.cluster.clone(), primary.clone()).await?;
        let info = PrimaryInfo {
            hostname: primary.to_string(),
            advertise_url: format!("http://{}", tunnel.address()),
        };
        let diverged = diverges.then_some(content);
        let following = Following { primary, start, diverged, _tunnel: tunnel };
        *lock(&self.following) = Some(following);
        self.lease_state.follow(Some(info));
        let seen = self.watch.seen().borrow().clone();
        self.adopt(&seen, content);
        self.publish(self.label(content));
        Ok(())
    }

    /// Tells LiteFS that there is no primary, and cuts it off.
    pub(super) fn follow_nobody(&self) {
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

    async fn keep_diverged(&self, have: Position) -> io::Result<()> {
        let place = match diverged::place(&self.data_dir, have)? {
            Place::New(place) => place,
            Place::Kept(_) => return Ok(()),
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
            let late = |_| {
                let why = "LiteFS does not let go of its primary: is a read transaction open?";
                io::Error::new(io::ErrorKind::TimedOut, why)
            };
            self.until(LETTING_GO, |seen| seen.follows().is_none()).await.map_err(late)?;
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
