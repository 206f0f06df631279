//! `election: raft`: the primary is the holder of one replicated lease.
//!
//! Raft replicates the lease [`table`]; who leads Raft does not matter to the application, so a change
//! of Raft leader is invisible to it. The protocol, with the reason of each complication:
//!
//! | module | subject |
//! | --- | --- |
//! | [`lessor`] | the Raft leader's part: the timers of the lease, and filling it when it is vacant |
//! | [`choice`] | who becomes primary. Pure |
//! | [`tenure`], [`keep_alive`] | the holder's part: from the grant to the end; renewing |
//! | [`handover`] | a planned change of primary |
//! | [`view`] | what a node knows of the cluster. Pure |
//! | [`table`], [`times`] | what is agreed upon, without a clock; the lease in time. Pure |
//! | [`rpc`], [`transport`] | what nodes ask each other; how, over the peer port |
//! | [`raft`] | the only user of openraft |
//!
//! Nothing here knows requests, processes or sockets: [`common::Ground`] is the node around it.

pub(crate) mod choice;
pub mod clock;
pub mod common;
pub(crate) mod handover;
pub(crate) mod keep_alive;
pub(crate) mod lessor;
pub mod raft;
pub mod rpc;
pub mod table;
pub mod tenure;
pub mod times;
pub(crate) mod transport;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use self::common::Common;
use self::lessor::Lessor;
use self::rpc::{Answer, Request, Service};
use self::table::{Command, Outcome, Table};
use self::tenure::{Order, Own, Tenure};
use crate::cluster::{Epoch, NodeId};
use crate::control::MemberChange;
use crate::engine::BoxFuture;

/// How long writes under way may hold up a handoff that an operator asked for.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long a wish may travel to whoever can fulfil it, and take there.
const WISH: Duration = Duration::from_secs(10);
/// How long a change of the members may take: a new node has to be brought level first.
const MEMBERS: Duration = Duration::from_secs(60);
/// How many leaders may send on to the next one.
const LEADERS: usize = 5;

/// A node's part in the election. Cheap to copy.
#[derive(Clone)]
pub struct Election {
    common: Arc<Common>,
    lessor: Arc<Lessor>,
    reign: Arc<Tenure>,
}

impl Election {
    /// Takes part once [`Election::run`] is polled.
    pub fn new(common: Common) -> Self {
        let common = Arc::new(common);
        let reign = Arc::new(Tenure::new(common.clone()));
        let lessor = Arc::new(Lessor::new(common.clone(), reign.clone()));
        Self { common, lessor, reign }
    }

    /// Takes part until it is dropped.
    pub async fn run(self) {
        let mut parts = JoinSet::new();
        let lessor = self.lessor.clone();
        parts.spawn(async move { lessor.run().await });
        if !self.common.witness {
            let Self { reign, lessor, .. } = self;
            parts.spawn(async move { reign.run(lessor).await });
        }
        parts.join_all().await;
    }

    /// What was agreed upon, as far as this node has heard.
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.common.raft.table()
    }

    /// What this node is by itself.
    pub fn own(&self) -> watch::Receiver<Own> {
        self.reign.own()
    }

    /// Hands the lease over to `to`, whoever holds it now. With `force`, and while nobody holds it,
    /// `to` gets it although others may have newer data. Done once `to` has it.
    ///
    /// # Errors
    ///
    /// Why not; everything is then as it was.
    pub async fn promote(&self, to: &NodeId, force: bool) -> Result<(), String> {
        if !self.common.raft.members().borrow().data_nodes().contains(to) {
            return Err(format!("{to} is no member that holds data"));
        }
        let holder = self.table().borrow().holder.clone();
        let asked = match holder {
            Some(holder) if holder.node == *to => return Ok(()),
            Some(holder) if holder.node == self.common.own => {
                return self.hand_over(to.clone(), PATIENCE).await;
            }
            Some(holder) => {
                self.common.transport.call(holder.node, Request::Promote(to.clone()), WISH).await
            }
            None if force => {
                self.common.ask_leader(&self.lessor, Request::Force(to.clone()), WISH).await
            }
            None => {
                return Err("there is no primary that could hand over: one is being chosen; the \
                            events say what that waits for, and --force ends the waiting"
                    .to_owned());
            }
        };
        granted(asked.map_err(|why| why.to_string())?)
    }

    /// As the holder: passes the lease to the fittest other node, once writes under way are done.
    ///
    /// # Errors
    ///
    /// When nobody is fit, or it did not go well; this node is then still the primary.
    pub async fn resign(&self, patience: Duration) -> Result<(), String> {
        let others = self.reign.others_by_fitness().await;
        let Some(to) = others.into_iter().next() else {
            return Err("no other node can become primary".to_owned());
        };
        self.hand_over(to, patience).await
    }

    /// Ends this node's reign, if it reigns, and gives the lease back.
    pub(crate) async fn abdicate(&self) {
        let mut own = self.own();
        let epoch = own.borrow().epoch;
        self.reign.end_before(Epoch(epoch.0 + 1));
        // An error means that it is over already.
        let _ = own.wait_for(|own| !own.holding).await;
        let mine = |table: &Arc<Table>| {
            table.holder.as_ref().is_some_and(|holder| holder.node == self.common.own)
        };
        // After its ttl the lease is over anyway, and without a majority nobody hears of this.
        let mut table = self.table();
        tokio::select! {
            _ = table.wait_for(|table| !mine(table)) => {}
            () = self.common.clock.sleep(self.common.times.ttl) => {}
        }
    }

    /// This node's reign of `epoch`, or an earlier one, has ended by itself: its engine is not the primary
    /// any more.
    pub(crate) fn is_over(&self, epoch: Epoch) {
        self.reign.end_before(Epoch(epoch.0 + 1));
    }

    /// If this node leads Raft: has another voter lead. For a node that stops.
    pub(crate) async fn pass_leadership_on(&self) {
        if self.common.raft.leadership().borrow().ours
            && let Err(why) = self.common.raft.pass_leadership_on().await
        {
            tracing::debug!(%why, "this Raft leader stops without a successor");
        }
    }

    async fn hand_over(&self, to: NodeId, patience: Duration) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let order = Order { to, patience, reply };
        let busy = |_| "too many handoffs are asked for".to_owned();
        self.reign.orders().try_send(order).map_err(busy)?;
        answer.await.unwrap_or_else(|_| Err("this node is not the primary any more".to_owned()))
    }

    /// Changes who votes.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), String> {
        let request = || Request::Members(change.clone());
        let mut answer = self.common.ask_leader(&self.lessor, request(), MEMBERS).await;
        // A leader that is to go passes that on first. Who leads then may be the primary, which passes it
        // back to the same node after a while: so it is asked now, not when the operator tries again.
        for _ in 0..LEADERS {
            let Ok(Answer::NotLeader(Some(leader))) = answer else { break };
            // It says so once it has heard what was agreed upon before.
            self.common.pause().await;
            answer = self.common.ask(leader, &self.lessor, request(), MEMBERS).await;
        }
        granted(answer.map_err(|why| why.to_string())?)
    }

    /// Has a command agreed upon.
    ///
    /// # Errors
    ///
    /// Why it was not, or why it came to nothing.
    pub(crate) async fn agree(&self, command: Command) -> Result<(), String> {
        match self.common.propose(&self.lessor, command, WISH).await? {
            Outcome::Done => Ok(()),
            Outcome::Rejected(why) => Err(why),
        }
    }

    async fn serve(self, from: NodeId, request: Request) -> Answer {
        let members = self.common.raft.members();
        if !matches!(request, Request::Raft(_)) && !members.borrow().contains(&from) {
            return Answer::Refused(format!("{from} is no member of this cluster"));
        }
        match request {
            Request::Raft(message) => Answer::Raft(self.common.raft.answer(&from, message).await),
            Request::Promise { epoch } => self.reign.prepare(epoch).await,
            Request::Fitness => self.reign.show().await,
            Request::Granted(holder) => {
                self.reign.granted(holder);
                Answer::Done
            }
            Request::TakeOver { epoch, at } => {
                self.reign.take_over(from, epoch, at, &self.lessor).await
            }
            Request::Yield { epoch } => self.reign.yield_to(&from, epoch),
            Request::Promote(to) => done(self.hand_over(to, PATIENCE).await),
            Request::Electorate(next) => self.reign.expect(next).await,
            to_leader => self.lessor.answer(&from, to_leader).await,
        }
    }
}

impl Service for Election {
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Answer> {
        Box::pin(self.clone().serve(from, request))
    }
}

fn done(result: Result<(), String>) -> Answer {
    result.map_or_else(Answer::Refused, |()| Answer::Done)
}

fn granted(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Refused(why) => Err(why),
        Answer::NotLeader(_) => Err("the cluster's leader has just changed: try again".to_owned()),
        _ => Err("the answer makes no sense: do all nodes run the same version?".to_owned()),
    }
}
