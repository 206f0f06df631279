//! The holder's part: from the grant of a lease to its end, one tenure after the other.
//!
//! Writes are open while the claim is valid, the engine is the primary, and the epoch was opened in the
//! table. Whatever ends the tenure, the claim ends first, then the engine is fenced, and only then is
//! the lease given back: nothing commits in an epoch once the next one is granted.

mod offer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::context::ElectionContext;
use super::error::ElectionError;
use super::handover::HandOver;
use super::keep_alive::{ClaimOver, KeepAlive};
use super::majority::Majority;
use super::table::{Applied, Command, Holder, Opening, Session, Table};
use crate::claim::{BootTime, Claim};
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::engine::Grant;
use crate::txid::Position;

/// Orders that may wait.
const ORDERS: usize = 16;
/// A node whose `on_promote` failed is not chosen for so long.
const AFTER_A_FAILURE: Duration = Duration::from_secs(30);
/// Likewise if its engine could not become primary: for others to be chosen, and short if there are none.
const AFTER_THE_ENGINE: Duration = Duration::from_secs(5);

/// What this node is, as far as it knows by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Of its present or last epoch; 0 if there was none.
    pub epoch: Epoch,
    /// Its right to take writes.
    pub claim: Claim,
    /// Nothing but the end of the claim keeps it from taking writes.
    pub open: bool,
    /// From the grant until the engine is a replica's again: nobody else tells it whom to follow.
    pub holding: bool,
    /// Where that epoch began, once it is agreed upon.
    pub(crate) start: Option<EpochStart>,
}

/// How long a handoff may wait for what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the primary's services to end, while requests go on.
    pub services: Duration,
    /// For writes, while new ones are held.
    pub writes: Duration,
}

/// A wish to hand the lease over.
pub(crate) struct Order {
    pub(crate) to: NodeId,
    pub(crate) patience: Patience,
    /// What became of it.
    pub(crate) reply: oneshot::Sender<Result<(), ElectionError>>,
}

pub(crate) struct Tenure {
    pub(super) context: Arc<ElectionContext>,
    own: watch::Sender<Own>,
    /// For the next grant: the number of this life's session.
    session: AtomicU64,
    /// What was granted to this node, before the table here knows.
    granted: watch::Sender<Option<Holder>>,
    /// Neither this epoch nor an earlier one is this node's any more.
    ended: watch::Sender<Epoch>,
    orders: mpsc::Sender<Order>,
    incoming: Mutex<Option<mpsc::Receiver<Order>>>,
    pub(super) handover: HandOver,
    pub(crate) majority: Arc<Majority>,
    /// Until then this node does not offer itself.
    unfit_until: Mutex<Option<(BootTime, String)>>,
}

/// Why a tenure ended.
enum End {
    Over(ClaimOver),
    /// The lease was handed over, or taken away.
    Superseded,
    /// It could not begin, and why.
    Failed(String),
}

impl Tenure {
    /// Nothing happens before [`Tenure::run`].
    pub(crate) fn new(context: Arc<ElectionContext>) -> Self {
        let (orders, incoming) = mpsc::channel(ORDERS);
        let own =
            Own { epoch: Epoch(0), claim: Claim::none(), open: false, holding: false, start: None };
        Self {
            majority: Arc::new(Majority::new(context.clone())),
            context,
            own: watch::Sender::new(own),
            session: AtomicU64::new(0),
            granted: watch::Sender::new(None),
            ended: watch::Sender::new(Epoch(0)),
            orders,
            incoming: Mutex::new(Some(incoming)),
            handover: HandOver::default(),
            unfit_until: Mutex::default(),
        }
    }

    /// What this node is, as it changes.
    pub(crate) fn own(&self) -> watch::Receiver<Own> {
        self.own.subscribe()
    }

    /// This node's session, for the next grant.
    pub(crate) fn session(&self) -> Session {
        self.context.life.session(self.session.load(Relaxed))
    }

    /// Where wishes to hand over are taken.
    pub(crate) fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    /// The lease was granted to this node; the table here may not know it yet.
    pub(crate) fn granted(&self, holder: Holder) {
        self.granted.send_if_modified(|known| {
            let news = known.as_ref().is_none_or(|known| known.epoch < holder.epoch);
            if news {
                *known = Some(holder);
            }
            news
        });
    }

    /// Ends every claim of this node to an epoch before `epoch`, now.
    pub(crate) fn end_before(&self, epoch: Epoch) {
        if self.own.borrow().epoch < epoch {
            self.end_claim();
            let last = Epoch(epoch.0.saturating_sub(1));
            self.ended.send_if_modified(|ended| {
                last > *ended && {
                    *ended = last;
                    true
                }
            });
        }
    }

    /// Ends the claim now. What is logged lets `tests/chaos` compare the claims of all nodes.
    pub(super) fn end_claim(&self) {
        let own = self.own.borrow().clone();
        own.claim.end();
        tracing::debug!(epoch = own.epoch.0, at = self.context.clock.now().0, "the claim is over");
    }

    /// Serves each tenure of this node, one after the other.
    pub(crate) async fn run(&self) {
        let taken = self.incoming.lock().take();
        let Some(mut orders) = taken else { return };
        let mut last = Epoch(0);
        loop {
            let holder = tokio::select! {
                biased;
                holder = self.next_grant(last) => holder,
                Some(order) = orders.recv() => {
                    drop(order.reply.send(Err(ElectionError::NotPrimary)));
                    continue;
                }
            };
            last = holder.epoch;
            // A grant to the old session that is still on its way would be of no use.
            let session = self.begin_session();
            if holder.session == session && *self.ended.borrow() < holder.epoch {
                let end = self.hold(&holder, &mut orders).await;
                self.step_down(&holder, end).await;
            } else {
                // Of a former life, whose LiteFS may live on.
                tracing::info!(%holder, "this node holds a lease that it knows nothing of");
                self.fence_engine().await;
                self.release(holder.epoch).await;
            }
        }
    }

    /// Begins a new session, and returns the old one.
    fn begin_session(&self) -> Session {
        self.context.life.session(self.session.fetch_add(1, Relaxed))
    }

    /// The next lease that is this node's, by the table or by word of mouth.
    async fn next_grant(&self, last: Epoch) -> Holder {
        let mut tables = self.context.raft.table();
        let mut granted = self.granted.subscribe();
        loop {
            let told = granted.borrow_and_update().clone();
            let agreed = tables.borrow_and_update().holder.clone();
            let mine = |holder: &Holder| holder.node == self.context.own && holder.epoch > last;
            let known = [told, agreed].into_iter().flatten().filter(mine);
            if let Some(holder) = known.max_by_key(|holder| holder.epoch) {
                return holder;
            }
            tokio::select! {
                biased;
                Ok(()) = tables.changed() => {}
                Ok(()) = granted.changed() => {}
                else => return std::future::pending().await,
            }
        }
    }

    async fn hold(&self, holder: &Holder, orders: &mut mpsc::Receiver<Order>) -> End {
        self.own.send_modify(|own| own.holding = true);
        let mut keep_alive = KeepAlive::new(self.context.clone(), holder.clone());
        let claim = tokio::select! {
            biased;
            () = self.superseded(holder) => return End::Superseded,
            claim = keep_alive.begin() => match claim {
                Ok(claim) => claim,
                Err(over) => return End::Over(over),
            },
        };
        let epoch = holder.epoch;
        self.own.send_replace(Own { epoch, claim, open: false, holding: true, start: None });
        let opened = tokio::select! {
            biased;
            () = self.superseded(holder) => return End::Superseded,
            over = keep_alive.keep() => return End::Over(over),
            opened = self.open(holder) => opened,
        };
        let start = match opened {
            Ok(start) => start,
            Err(end) => return end,
        };
        self.context.acks.open(epoch);
        let mut counting = JoinSet::new();
        counting.spawn(self.majority.clone().run(start));
        self.own.send_modify(|own| own.open = true);
        self.context.callbacks.event("primary", format!("{holder} takes writes"));
        loop {
            let order = tokio::select! {
                biased;
                () = self.superseded(holder) => return End::Superseded,
                over = keep_alive.keep() => return End::Over(over),
                Some(order) = orders.recv() => order,
            };
            if self.hand_over(holder, order, &mut keep_alive).await {
                return End::Superseded;
            }
        }
    }

    /// From the claim to open writes.
    async fn open(&self, holder: &Holder) -> Result<EpochStart, End> {
        let epoch = holder.epoch;
        let held = self.begin_in_engine(epoch).await?;
        let start = EpochStart { epoch, held };
        let agreed = loop {
            let promised = self.context.promises;
            // Who counts is as before until `majority` has it changed: this table may be behind.
            let opening =
                Opening { start, revision: 0, electorates: None, unheard: Vec::new(), promised };
            match self.context.propose(Command::Opened(opening), self.context.times.ttl).await {
                Ok(outcome) => break outcome,
                Err(why) => tracing::warn!(%epoch, %why, "cannot open the epoch; trying again"),
            }
        };
        if let Applied::Rejected(why) = agreed {
            return Err(End::Failed(why));
        }
        self.own.send_modify(|own| own.start = Some(start));
        if !self.context.callbacks.promoted(epoch).await {
            return Err(self.failed("app.on_promote failed".to_owned(), AFTER_A_FAILURE));
        }
        Ok(start)
    }

    /// Has the engine become the primary. One that cannot, as when its disk is full, must not keep the
    /// lease from those that can.
    async fn begin_in_engine(&self, epoch: Epoch) -> Result<Position, End> {
        let latest = self.context.clock.now().after(self.context.times.ttl);
        loop {
            let claim = self.own.borrow().claim.clone();
            let why = match self.context.engine.become_primary(Grant { epoch, claim }).await {
                Ok(held) => return Ok(held),
                Err(why) => why,
            };
            if let Some(unfit) = self.context.engine.unfit() {
                return Err(End::Failed(unfit));
            }
            if self.context.clock.now() >= latest {
                let why = format!("the engine cannot become primary: {why}");
                return Err(self.failed(why, AFTER_THE_ENGINE));
            }
            tracing::error!(%epoch, %why, "the engine cannot become primary; trying again");
            self.context.clock.sleep(self.context.times.renew).await;
        }
    }

    /// This node is not chosen for a while.
    fn failed(&self, why: String, pause: Duration) -> End {
        let until = self.context.clock.now().after(pause);
        *self.unfit_until.lock() = Some((until, why.clone()));
        End::Failed(why)
    }

    /// Ready once the lease is not this holder's any more.
    async fn superseded(&self, holder: &Holder) {
        let mut tables = self.context.raft.table();
        let mut ended = self.ended.subscribe();
        let gone = |table: &Arc<Table>| {
            table.last_epoch >= holder.epoch && table.holds(holder.epoch, &holder.session).is_none()
        };
        tokio::select! {
            biased;
            () = come(&mut tables, gone) => {}
            () = come(&mut ended, |ended| *ended >= holder.epoch) => {}
        }
    }

    /// Ends a tenure, in this order: claim, engine, guard, lease.
    async fn step_down(&self, holder: &Holder, end: End) {
        self.end_claim();
        self.own.send_modify(|own| own.open = false);
        let why = match end {
            End::Over(ClaimOver::LeaseLost) | End::Superseded => {
                "the lease is not this node's any more".into()
            }
            End::Over(ClaimOver::Lapsed) => "it could not renew its lease in time".into(),
            End::Failed(why) => why,
        };
        self.context.callbacks.event("not-primary", format!("{holder} is primary no more: {why}"));
        self.fence_engine().await;
        self.own.send_modify(|own| own.holding = false);
        self.context.callbacks.deadline(None);
        self.context.callbacks.demoted(holder.epoch);
        self.release(holder.epoch).await;
    }

    async fn fence_engine(&self) {
        while let Err(why) = self.context.engine.become_replica().await {
            tracing::error!(%why, "the engine cannot be fenced; trying again");
            self.context.pause().await;
        }
    }

    /// Gives a lease back, unless it is gone already.
    async fn release(&self, epoch: Epoch) {
        let mut tables = self.context.raft.table();
        let gone = |table: &Arc<Table>| {
            table.last_epoch > epoch || table.last_epoch == epoch && table.holder.is_none()
        };
        let giving_back = async {
            loop {
                let release = Command::Release { epoch };
                match self.context.propose(release, self.context.times.ttl).await {
                    Ok(_) => return,
                    Err(why) => tracing::debug!(%epoch, %why, "cannot give the lease back yet"),
                }
            }
        };
        tokio::select! {
            biased;
            () = come(&mut tables, gone) => {}
            () = giving_back => {}
        }
    }

    /// Whether writes are open; for the duration of a handover they are not.
    pub(super) fn set_open(&self, open: bool) {
        self.own.send_modify(|own| own.open = open);
    }
}

/// Returns once `value` is as wanted. Never, if it will not change any more.
pub(super) async fn come<T>(value: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    if value.wait_for(wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
