//! The Raft leader's part: keeps the time of the lease, and fills it when it is vacant.
//!
//! The table has no clock, so somebody has to hold the timers: whoever leads Raft, for as long as its
//! term lasts. A new term knows nothing of the renewals that the last one accepted and begins with a
//! full ttl. Once the end of an epoch was proposed that epoch is *revoked*: nothing renews it any
//! more. Otherwise a renewal that is confirmed while the expiry is on its way would make two claims.

mod filling;
mod members;
mod timers;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::until;
use super::context::ElectionContext;
use super::departed::Departed;
use super::raft::Leadership;
use super::rpc::{Request, Response};
use super::table::{Command, Holder, Session, Table, Term};
use crate::cluster::{Epoch, NodeId};
use crate::publish;
use crate::telemetry::log_throttle::LogThrottle;
use timers::Timers;

/// The timers of one node, in use while it leads Raft.
pub(crate) struct Lessor {
    context: Arc<ElectionContext>,
    timers: Mutex<Timers>,
    /// Whom the operator wants, in the epoch that is vacant.
    forced: watch::Sender<Option<(Epoch, NodeId)>>,
    /// Why nobody is chosen, while this node is to choose.
    waiting: watch::Sender<Option<Arc<str>>>,
    /// Whoever leads later may have to know, too.
    pub(super) departed: Departed,
    /// Without a quorum the same fails many times a second.
    log: LogThrottle<&'static str>,
}

impl Lessor {
    pub(crate) fn new(context: Arc<ElectionContext>) -> Self {
        Self {
            context,
            timers: Mutex::default(),
            forced: watch::Sender::new(None),
            waiting: watch::Sender::new(None),
            departed: Departed::default(),
            log: LogThrottle::new(),
        }
    }

    /// Why nobody is chosen, while this node is to choose.
    pub(crate) fn waiting(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.waiting.subscribe()
    }

    /// Does the work of a Raft leader whenever this node is one.
    pub(crate) async fn run(&self) {
        let mut leadership = self.context.raft.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            let leads = async {
                if !now.ours {
                    return std::future::pending().await;
                }
                tokio::select! {
                    biased;
                    () = self.lead(now.term) => {}
                    () = self.pass_leadership_on() => {}
                }
            };
            tokio::select! {
                biased;
                changed = changed(&mut leadership, &now) => if !changed { return },
                () = leads => {}
            }
            publish::if_changed(&self.waiting, None);
        }
    }

    /// Answers what is asked of a Raft leader.
    pub(crate) async fn answer(&self, from: &NodeId, request: Request) -> Response {
        match request {
            Request::Renew { epoch, session } => self.renew(from, epoch, &session).await,
            Request::Propose(command) => self.propose(command).await,
            Request::Force(node) => self.force(node).await,
            Request::Members(change) => self.change_members(change).await,
            _ => Response::Refused("that is not asked of a Raft leader".to_owned()),
        }
    }

    /// The holder says that it is alive. The quorum round that confirms it begins after this was
    /// called: this node still led when it ended.
    async fn renew(&self, from: &NodeId, epoch: Epoch, session: &Session) -> Response {
        let leadership = self.context.raft.leadership().borrow().clone();
        if !leadership.ours {
            return Response::NotLeader(leadership.leader);
        }
        let Ok(table) = self.context.raft.confirm().await else { return Response::NotLeader(None) };
        let now = self.context.clock.now();
        let Some(mut timers) = self.timers_of(leadership.term) else {
            return Response::NotLeader(None);
        };
        let holds = table.holds(epoch, session).is_some_and(|holder| holder.node == *from);
        if !holds || epoch <= timers.revoked {
            return Response::LeaseLost;
        }
        timers.expiry = Some((epoch, now.after(self.context.times.ttl)));
        Response::Renewed
    }

    /// Somebody wants this agreed upon.
    async fn propose(&self, command: Command) -> Response {
        let leadership = self.context.raft.leadership().borrow().clone();
        if !leadership.ours {
            return Response::NotLeader(leadership.leader);
        }
        let ends = match &command {
            Command::Release { epoch } => Some(*epoch),
            Command::HandOver(to) => Some(Epoch(to.epoch.0.saturating_sub(1))),
            // Only the leader that has waited may say so.
            Command::Expire { .. } | Command::Acquire(_) => {
                return Response::Refused("only the Raft leader does that".to_owned());
            }
            _ => None,
        };
        if let Some(epoch) = ends {
            match self.timers_of(leadership.term) {
                Some(mut timers) => timers.revoke(epoch),
                None => return Response::NotLeader(None),
            }
        }
        match self.context.raft.propose(command).await {
            Ok(outcome) => Response::Proposed(outcome),
            Err(_) => Response::NotLeader(self.context.raft.leadership().borrow().leader.clone()),
        }
    }

    async fn lead(&self, term: Term) {
        drop(self.timers_of(term));
        let mut tables = self.context.raft.table();
        loop {
            let table = tables.borrow_and_update().clone();
            match &table.holder {
                Some(holder) => self.watch_over(holder, term, &mut tables).await,
                None => self.fill(&table, &mut tables).await,
            }
            publish::if_changed(&self.waiting, None);
        }
    }

    /// Returns once the table has changed, or the holder had its time.
    async fn watch_over(
        &self,
        holder: &Holder,
        term: Term,
        tables: &mut watch::Receiver<Arc<Table>>,
    ) {
        let Some(expiry) = self.expiry(term, holder.epoch) else { return };
        let died = tokio::select! {
            biased;
            _ = tables.changed() => return,
            () = self.departed.includes(&holder.node, &holder.session) => true,
            () = until(&*self.context.clock, expiry) => false,
        };
        let revoked = match died {
            true => self.revoke(term, holder.epoch),
            false => self.revoke_if_lapsed(term, holder.epoch),
        };
        let Some(first) = revoked else { return };
        if first {
            let ttl = self.context.times.ttl;
            let why = match died {
                true => format!("the process of {holder} has died: its lease ends"),
                false => format!("{holder} has not renewed its lease for {ttl:?}: it expires"),
            };
            self.context.callbacks.event("lease-expired", why);
        }
        let expire = Command::Expire { epoch: holder.epoch, term };
        if let Err(why) = self.context.raft.propose(expire).await {
            self.try_again("cannot expire the lease; trying again", &why).await;
        }
    }

    /// Says what failed, but not each time, and waits a little.
    async fn try_again(&self, what: &'static str, why: &impl Display) {
        if let Some(held_back) = self.log.may_speak(what, Instant::now()) {
            tracing::warn!(%why, held_back, "{what}");
        }
        self.context.pause().await;
    }

    /// Whoever both leads Raft and holds the lease takes both with it when it dies: that costs an
    /// election and a full ttl. Another voter had better lead.
    async fn pass_leadership_on(&self) {
        let table = self.context.raft.table();
        loop {
            self.context.clock.sleep(self.context.times.renew).await;
            let holds = |table: &Table| {
                table.holder.as_ref().is_some_and(|holder| holder.node == self.context.own)
            };
            let holds = holds(&table.borrow());
            if holds && let Err(why) = self.context.raft.pass_leadership_on().await {
                tracing::debug!(%why, "cannot pass Raft's leadership on");
            }
        }
    }
}

/// Returns once the leadership is another one than `from`; `false` if it will never change.
async fn changed(leadership: &mut watch::Receiver<Leadership>, from: &Leadership) -> bool {
    leadership.wait_for(|now| now != from).await.is_ok()
}
