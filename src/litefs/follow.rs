//! Following another node's LiteFS, and ceasing to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;

use super::databases::Databases;
use super::engine::{ASKING, Duty, Litefs, lock};
use super::joining::Joining;
use super::position::LitefsPosition;
use super::positions_link::{Heard, ReplicaLink};
use super::sole::Sole;
use super::tunnel::Tunnel;
use super::watch::Seen;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::copy::diverged::{self, Place};
use crate::engine::Held;
use crate::engine::replication::{Dial, FollowError, Followed};
use crate::files::on_disk;
use crate::lease::PrimaryInfo;
use crate::peer;
use crate::txid::{Checksum, EpochTxid, Position};

/// How long a promise waits for LiteFS to leave its primary: what it is applying has to be applied. An open
/// read transaction may hold that up for ever, and a failover must not wait for readers.
const LEAVING: Duration = Duration::from_millis(200);
/// A LiteFS that has not left its primary after so many promises in a row is started anew.
const PATIENCE: u32 = 8;

/// Whom this node's LiteFS follows.
pub(super) struct Following {
    primary: NodeId,
    /// What makes this copy one of its epoch; nothing while it is not known where that started.
    joining: Option<Joining>,
    _tunnel: Tunnel,
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
        self.leave_another(primary, epoch).await;
        let dialed = dial.dial(primary, peer::POSITIONS).await;
        let dialed = dialed.map_err(FollowError::Unreachable)?;
        let (link, Heard { starts, lineage, names, sole }) = ReplicaLink::open(dialed).await?;
        if starts.last().is_none_or(|start| start.epoch != epoch) {
            let why = format!("{primary} is not the primary of epoch {epoch}");
            return Err(io::Error::other(why).into());
        }
        let names = names.difference(&self.untracked).cloned().collect();
        self.remember(move |store| store.learn(&lineage, &names, sole)).await?;
        self.follow_history(primary, &starts, dial).await?;
        self.store().announced().begin(epoch);
        Ok(link.run(self).await?)
    }

    /// Once the new primary has heard of this node, a tunnel of an older epoch would lead to its LiteFS, too.
    async fn leave_another(&self, primary: &NodeId, epoch: Epoch) {
        let _turn = self.turn.lock().await;
        let same = |f: &Following| {
            f.primary == *primary && f.start().is_none_or(|start| start.epoch == epoch)
        };
        if lock(&self.following).as_ref().is_some_and(|following| !same(following)) {
            self.follow_nobody();
        }
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
        let same = |f: &Following| f.primary == *primary && f.start() == start;
        if lock(&self.following).as_ref().is_some_and(same) {
            return Ok(());
        }
        let floor = self.store().floor();
        if let Some(start) = start.filter(|start| start.epoch < floor) {
            let why = format!("epoch {floor} is known: this node does not follow {}", start.epoch);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.follow_nobody();
        // What LiteFS still has of a former primary's stream is of that one's history, not of this one's.
        let left = self.until(LEAVING, |seen| seen.follows().is_none()).await;
        left.map_err(|_| {
            let why = "LiteFS does not leave its former primary: is a read transaction open?";
            io::Error::new(io::ErrorKind::TimedOut, why)
        })?;
        let content = self.content().await?;
        let held = content.clone();
        self.remember(move |store| store.close(&held)).await?;
        let diverged = self.keep_what_is_lacking(&content, starts).await?;
        let (held, all) = (content.clone(), starts.to_vec());
        self.remember(move |store| store.follow(&held, &diverged, &all)).await?;
        let tunnel = Tunnel::open(dial.clone(), primary.clone()).await?;
        let info = PrimaryInfo {
            hostname: primary.to_string(),
            advertise_url: format!("http://{}", tunnel.address()),
        };
        let joining = start.map(|start| Joining { start, begun: self.begun(start) });
        let following = Following { primary: primary.clone(), joining, _tunnel: tunnel };
        *lock(&self.following) = Some(following);
        self.lease_state.follow(Some(info));
        let seen = self.watch.seen().borrow().clone();
        self.adopt(&seen, &content).await;
        self.publish(self.label(&content), &content).await;
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
        let diverged = self.store().diverged(content, starts, self.elects);
        for (name, at) in diverged.iter() {
            let epoch = self.store().origin(name, *at);
            let have = EpochTxid { epoch, txid: at.txid };
            self.keep_diverged(name, Position { at: have, checksum: at.checksum }).await?;
        }
        Ok(diverged)
    }

    /// Tells LiteFS that there is no primary, and cuts it off.
    pub(super) fn follow_nobody(&self) {
        if self.watch.seen().borrow().follows().is_some() {
            self.lease_state.leaves();
        }
        self.lease_state.follow(None);
        *lock(&self.following) = None;
    }

    /// Notes that the copy has reached the history that it follows, once it has, and what of it.
    pub(super) async fn adopt(&self, seen: &Seen, content: &Databases) {
        let Some((joining, connected)) = self.joining(seen) else { return };
        if !self.store().is_to_join(&joining, connected, content) {
            return self.store().look(joining.epoch(), content);
        }
        let held = content.clone();
        let joined = self.remember(move |store| store.join(&joining, connected, &held)).await;
        if let Err(why) = joined {
            tracing::error!(%why, "this copy cannot be said to be of its primary's history");
        }
    }

    /// The history that this copy follows, and whether it is connected to its primary.
    fn joining(&self, seen: &Seen) -> Option<(Joining, bool)> {
        let following = lock(&self.following);
        let Following { primary, joining, .. } = following.as_ref()?;
        let connected = seen.follows() == Some(primary.as_str());
        let follows = self.duty() == Duty::Replica;
        joining.clone().filter(|_| follows).map(|joining| (joining, connected))
    }

    /// Waits for LiteFS to leave its primary, and to ask for the lease: in between it needs its databases for
    /// itself. One that does not is not fit (`unfit`), but what it holds counts: whatever it may still apply is
    /// not acknowledged any more.
    async fn let_go(&self) {
        let left = async {
            self.until(LEAVING, |seen| seen.follows().is_none()).await.is_ok()
                && timeout(LEAVING, self.lease_state.asks(ASKING)).await.is_ok()
        };
        // One that is still starting, as it does long with large databases, has nothing to leave.
        if !self.watch.seen().borrow().live || left.await {
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

    /// A promise or a lease that this node knows nothing of has not ended that meanwhile.
    pub(super) fn follows_epoch(&self, epoch: Epoch) -> bool {
        let following = lock(&self.following);
        let start = |f: &Following| f.start().is_none_or(|start| start.epoch == epoch);
        following.as_ref().is_some_and(start)
    }

    /// The primary has announced this; `None`: it is a build with one database.
    pub(super) async fn heard(
        &self,
        at: EpochTxid,
        changed: Option<Databases>,
        sole: Option<Sole>,
    ) {
        let main = LitefsPosition { txid: at.txid, checksum: Checksum::UNKNOWN };
        let changed = changed.unwrap_or_else(|| Databases::one(&self.db_name(), main));
        let changed = changed.without(&self.untracked);
        self.positions.look_for(changed.names());
        self.note_named(at.epoch, &changed, sole).await;
        self.store().announced().hear(at, changed);
        let (seen, content) = (self.watch.seen().borrow().clone(), self.holds());
        self.adopt(&seen, &content).await;
        self.publish(self.label(&content), &content).await;
    }

    async fn keep_diverged(&self, name: &str, have: Position) -> io::Result<()> {
        let (data_dir, database) = (self.data_dir.clone(), name.to_owned());
        let place = on_disk(move || diverged::place(&data_dir, &database, have)).await??;
        let place = match place {
            Place::New(place) => place,
            Place::Kept(kept) => {
                tracing::debug!(kept = %kept.display(), "this copy was set aside before");
                return Ok(());
            }
        };
        self.api.export(name, &place.partial).await.map_err(io::Error::other)?;
        let kept = on_disk(move || place.keep()).await??;
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
        self.remember(move |store| store.promise(epoch)).await?;
        let newer = matches!(self.duty(), Duty::Primary(own) if own >= epoch)
            || lock(&self.following).as_ref().is_some_and(|f| f.is_at_least(epoch));
        if !newer {
            self.step_down().await?;
            self.follow_nobody();
            self.let_go().await;
        }
        // An acknowledgement that was just being sent is over, and no other begins.
        drop(self.acknowledging.write().await);
        self.what_is_held().await
    }
}

impl Following {
    fn start(&self) -> Option<EpochStart> {
        self.joining.as_ref().map(|joining| joining.start)
    }

    fn is_at_least(&self, epoch: Epoch) -> bool {
        self.start().is_some_and(|start| start.epoch >= epoch)
    }
}
