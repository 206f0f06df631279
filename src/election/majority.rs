//! Whose acknowledgements make a majority, while this node holds the lease.
//!
//! The primary counts, and whoever chooses the next one chooses among the same nodes: so these are
//! agreed upon in the table, by the primary, before they count. A set is replaced by way of both at
//! once, until a majority of the new one holds everything. What clients are promised by it is agreed
//! upon as well: before the first one of an epoch is told that a majority holds its write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::clock::until;
use super::context::ElectionContext;
use super::rpc::Response;
use super::table::{Applied, Command, Opening};
use crate::acks::Electorate;
use crate::claim::BootTime;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::txid::{EpochTxid, Txid};

/// How long it may take until a majority of the new members holds everything.
pub(super) const EVERYTHING: Duration = Duration::from_secs(20);
/// For how long the nodes that a change of the members names count, until it has taken effect.
const CHANGE: Duration = Duration::from_secs(60);
/// Wishes that may wait.
const WISHES: usize = 4;

/// Beyond every position.
const NEVER: EpochTxid = EpochTxid { epoch: Epoch(u64::MAX), txid: Txid(u64::MAX) };

/// Some nodes, sorted.
type Nodes = Vec<NodeId>;

/// Asks a primary to count other nodes than the members.
pub(crate) struct Wish {
    /// `None`: the members count again.
    next: Option<Nodes>,
    reply: oneshot::Sender<Response>,
}

/// Who counts, from one tenure to the next.
pub(crate) struct Majority {
    context: Arc<ElectionContext>,
    /// To the present tenure, or the last one.
    wishes: watch::Sender<Option<mpsc::Sender<Wish>>>,
}

/// One tenure's.
struct Count<'a> {
    context: &'a ElectionContext,
    start: EpochStart,
    revision: u64,
    promised: bool,
    /// Who counts, as it is agreed upon.
    now: Nodes,
    /// Who shall count instead, once a majority of them holds so much.
    next: Option<(Nodes, EpochTxid)>,
    /// Those of both who may turn out to be no candidates. A node that was heard to be one stays out of
    /// this: what it has acknowledged somebody may rely on.
    unheard: Nodes,
    /// In which life each node was heard last.
    lives: BTreeMap<NodeId, u64>,
    /// Whom a change of the members names, until when that counts, and who waits for an answer.
    wished: Option<(Nodes, BootTime, Option<oneshot::Sender<Response>>)>,
}

impl Majority {
    pub(crate) fn new(context: Arc<ElectionContext>) -> Self {
        Self { context, wishes: watch::Sender::new(None) }
    }

    /// As the holder: from now on a majority of `next` has to hold a write. Answers once it holds
    /// everything that was committed until now. `None`: only the members count again.
    pub(crate) async fn expect(&self, next: Option<Nodes>) -> Response {
        let (reply, answer) = oneshot::channel();
        if next.as_ref().is_some_and(|next| !next.contains(&self.context.own)) {
            return stays(&self.context.own);
        }
        let not_now = || Response::Refused("this node is not the primary".to_owned());
        let sent = self.tenure().await.map(|wishes| wishes.try_send(Wish { next, reply }));
        match sent {
            Some(Ok(())) => answer.await.unwrap_or_else(|_| not_now()),
            Some(Err(_)) | None => not_now(),
        }
    }

    /// Who is asked because the table says so may be about to begin.
    async fn tenure(&self) -> Option<mpsc::Sender<Wish>> {
        let mut wishes = self.wishes.subscribe();
        let present = |wishes: &Option<mpsc::Sender<Wish>>| {
            wishes.as_ref().is_some_and(|wishes| !wishes.is_closed())
        };
        tokio::select! {
            biased;
            Ok(wishes) = wishes.wait_for(present) => wishes.clone(),
            () = self.context.clock.sleep(self.context.times.renew) => None,
        }
    }

    /// Sees to it for the epoch that began so, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, start: EpochStart) {
        let (wishes, mut incoming) = mpsc::channel(WISHES);
        self.wishes.send_replace(Some(wishes));
        if let Some(mut count) = Count::begin(&self.context, start).await {
            count.keep(&mut incoming).await;
        }
    }
}

/// The primary counts itself: it is neither removed nor replaced.
pub(super) fn stays(primary: &NodeId) -> Response {
    let hint = "hand over first, with `litepilot promote NODE`";
    Response::Refused(format!("{primary} is the primary: {hint}"))
}

impl<'a> Count<'a> {
    /// `None` if it is over. What was agreed upon last has to have come here: the new primary goes on from
    /// there.
    async fn begin(context: &'a ElectionContext, start: EpochStart) -> Option<Self> {
        let mut tables = context.raft.table();
        let table = tables.wait_for(|table| table.last_epoch >= start.epoch).await.ok()?.clone();
        let promised = context.promises || table.promised >= start.epoch;
        let revision = if table.start_of(start.epoch).is_some() { table.revision } else { 0 };
        let mut count = Self {
            context,
            start,
            revision,
            promised,
            now: context.raft.members().borrow().data_nodes(),
            next: None,
            unheard: table.unheard.clone(),
            lives: BTreeMap::new(),
            wished: None,
        };
        match &table.electorates[..] {
            // Until now whoever chose took all members.
            [] => {
                count.unheard = count.not_heard(&count.now);
                count.agree().await?;
            }
            [now] => count.now = now.clone(),
            [now, next, ..] => {
                count.now = now.clone();
                count.next = Some((next.clone(), start.held.at));
            }
        }
        count.require();
        Some(count)
    }

    async fn keep(&mut self, wishes: &mut mpsc::Receiver<Wish>) -> Option<()> {
        let mut members = self.context.raft.members();
        let mut peers = self.context.peers.clone();
        let mut asked = self.context.acks.asked();
        loop {
            let wanted = self.wanted(&members.borrow_and_update().data_nodes());
            peers.mark_unchanged();
            self.say_it_to_the_restarted().await?;
            self.go_towards(wanted).await?;
            self.keep_promise(&mut asked).await?;
            tokio::select! {
                biased;
                Some(wish) = wishes.recv() => self.take(wish).await?,
                () = self.level() => self.replace().await?,
                () = self.too_late() => self.give_up(),
                Ok(()) = members.changed() => {}
                Ok(()) = asked.changed() => {}
                Ok(()) = peers.changed() => {}
            }
        }
    }

    /// Those that should count: who may never become primary holds nothing for one.
    fn wanted(&mut self, members: &[NodeId]) -> Nodes {
        if self.wished.as_ref().is_some_and(|(nodes, _, reply)| reply.is_none() && nodes == members)
        {
            // The change has taken effect.
            self.wished = None;
        }
        let peers = self.context.peers.borrow();
        let counts = |node: &&NodeId| {
            **node == self.context.own || peers.get(node).is_none_or(|heard| heard.report.candidate)
        };
        let nodes = self.wished.as_ref().map_or(members, |(nodes, ..)| nodes);
        nodes.iter().filter(counts).cloned().collect()
    }

    async fn go_towards(&mut self, wanted: Nodes) -> Option<()> {
        let next = self.next.as_ref().map(|(next, _)| next);
        if next == Some(&wanted) || next.is_none() && self.now == wanted {
            return self.count_who_was_heard().await;
        }
        if next.is_some() {
            // Back to the one that everything is held by.
            self.unheard.retain(|node| self.now.contains(node));
            self.next = None;
            self.agree().await?;
            self.require();
        }
        if self.now != wanted { self.begin_with(wanted).await } else { Some(()) }
    }

    /// A former build keeps in its log no more than where the epoch began; that log is its successor's. So
    /// whoever was restarted gets all of it once more.
    async fn say_it_to_the_restarted(&mut self) -> Option<()> {
        let mut restarted = false;
        for (node, heard) in self.context.peers.borrow().iter() {
            let before = self.lives.insert(node.clone(), heard.life());
            restarted |= before.is_some_and(|life| life != heard.life());
        }
        if restarted { self.agree().await } else { Some(()) }
    }

    /// Those of `nodes` that are not known to be candidates.
    fn not_heard(&self, nodes: &[NodeId]) -> Nodes {
        let peers = self.context.peers.borrow();
        let candidate = |node| peers.get(node).is_some_and(|heard| heard.report.candidate);
        let nodes = nodes.iter().filter(|node| **node != self.context.own && !candidate(node));
        nodes.cloned().collect()
    }

    async fn count_who_was_heard(&mut self) -> Option<()> {
        let unheard = self.not_heard(&self.unheard);
        if unheard != self.unheard {
            self.unheard = unheard;
            self.agree().await?;
            self.require();
        }
        Some(())
    }

    /// From now on `next` counts, too.
    async fn begin_with(&mut self, next: Nodes) -> Option<()> {
        let new = next.iter().filter(|node| !self.now.contains(node)).cloned();
        self.unheard.extend(self.not_heard(&new.collect::<Vec<_>>()));
        self.next = Some((next, NEVER));
        self.agree().await?;
        self.require();
        // After that: what a client was told of before is a part of it.
        let everything = self.everything().await;
        self.next = self.next.take().map(|(next, _)| (next, everything));
        Some(())
    }

    async fn everything(&self) -> EpochTxid {
        loop {
            match self.context.engine.read_position().await {
                Ok(position) => return position,
                Err(_) => self.context.pause().await,
            }
        }
    }

    /// Ready once a majority of those that are to count holds everything.
    async fn level(&self) {
        match &self.next {
            Some((_, everything)) => self.context.acks.held_by_next(*everything).await,
            None => std::future::pending().await,
        }
    }

    async fn replace(&mut self) -> Option<()> {
        let Some((next, _)) = self.next.take() else { return Some(()) };
        self.now = next;
        self.unheard.retain(|node| self.now.contains(node));
        self.agree().await?;
        self.require();
        self.answer(Response::Done);
        Some(())
    }

    async fn take(&mut self, wish: Wish) -> Option<()> {
        let Wish { next, reply } = wish;
        let Some(next) = next else {
            self.wished = None;
            // An error means that nobody waits any more.
            let _ = reply.send(Response::Done);
            return Some(());
        };
        let now = self.context.clock.now();
        self.wished = Some((next.clone(), now.after(EVERYTHING), Some(reply)));
        // A name may stay while its disk is another one.
        self.context.acks.forget();
        let wanted = self.wanted(&next);
        self.begin_with(wanted).await
    }

    /// Ready once a change of the members had its time.
    async fn too_late(&self) {
        match &self.wished {
            Some((_, limit, _)) => until(&*self.context.clock, *limit).await,
            None => std::future::pending().await,
        }
    }

    fn give_up(&mut self) {
        let why = "too few of the new members hold all of the data";
        self.answer(Response::Refused(why.to_owned()));
        self.wished = None;
    }

    fn answer(&mut self, response: Response) {
        if let Some((_, limit, reply)) = &mut self.wished
            && let Some(reply) = reply.take()
        {
            *limit = self.context.clock.now().after(CHANGE);
            // An error means that nobody waits any more.
            let _ = reply.send(response);
        }
    }

    /// Has it agreed upon that clients rely on majorities, once one waits for that.
    async fn keep_promise(&mut self, asked: &mut watch::Receiver<Epoch>) -> Option<()> {
        let wanted = *asked.borrow_and_update() >= self.start.epoch;
        if wanted && !self.promised {
            self.promised = true;
            self.agree().await?;
        }
        if self.promised {
            self.context.acks.promise(self.start.epoch);
        }
        Some(())
    }

    /// Of each of these a majority is needed.
    fn sets(&self) -> impl Iterator<Item = &Nodes> {
        [&self.now].into_iter().chain(self.next.as_ref().map(|(next, _)| next))
    }

    fn require(&self) {
        let electorate = |nodes: &Nodes| Electorate::of(nodes, &self.unheard, &self.context.own);
        self.context.acks.require(self.sets().map(electorate).collect());
    }

    /// Has it agreed upon that those who count now do, and the next ones besides. `None` if the epoch is over.
    async fn agree(&mut self) -> Option<()> {
        self.revision += 1;
        let electorates = self.sets().cloned().collect();
        let opening = Opening {
            start: self.start,
            revision: self.revision,
            electorates: Some(electorates),
            unheard: self.unheard.clone(),
            promised: self.promised,
        };
        loop {
            let opened = Command::Opened(opening.clone());
            match self.context.propose(opened, self.context.times.ttl).await {
                Ok(Applied::Done) => return Some(()),
                Ok(Applied::Rejected(why)) => {
                    tracing::debug!(epoch = %self.start.epoch, why, "nobody counts any more");
                    return None;
                }
                Err(why) => tracing::debug!(%why, "cannot agree on who counts; trying again"),
            }
        }
    }
}
