//! What the parts of one node's Raft have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;

use super::identity::{Fit, Identity};
use super::machine::Published;
use super::message::{AnswerBody, Answered, Body, Hello, Message, RaftRefusal, Reply, Sender};
use super::peers::Peers;
use super::store::Store;
use super::types::{Openraft, RaftId, StoredMembership};
use super::{Leadership, Listed, Member, Members, RaftSetup};
use crate::cluster::NodeId;
use crate::election::rpc::{CallError, Request, Response, Transport};
use crate::election::table::Table;
use crate::telemetry::log_throttle::LogThrottle;

pub(crate) struct RaftNode {
    pub(crate) setup: RaftSetup,
    pub(crate) store: Store,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) published: Published,
    pub(crate) members: watch::Sender<Arc<Members>>,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// The others hold this node for no member, or its disk for void.
    pub(crate) removed: watch::Sender<bool>,
    /// While this node takes part, and its disk can be written.
    pub(crate) core: watch::Sender<Option<Openraft>>,
    pub(crate) stopping: watch::Sender<bool>,
    /// When a leader last showed that it leads.
    heard: Mutex<Option<Instant>>,
    /// Records of disks are made one at a time: each begins with those before it.
    recording: tokio::sync::Mutex<()>,
    /// A write that openraft does not know of has failed.
    pub(crate) disk_failed: Notify,
    /// One membership change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    log: LogThrottle<(NodeId, String)>,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Call(CallError),
    /// They refused it, or we refuse the answer.
    Refused(RaftRefusal),
}

impl RaftNode {
    pub(crate) fn new(setup: RaftSetup, store: Store, transport: Arc<dyn Transport>) -> Self {
        let published = Published {
            table: watch::Sender::new(Arc::default()),
            applied: watch::Sender::new(None),
        };
        let seeds = Members::of_seeds(&setup.seeds);
        let peers = Peers::new(&seeds, &setup.seeds);
        Self {
            setup,
            store,
            transport,
            published,
            peers,
            members: watch::Sender::new(Arc::new(seeds)),
            leadership: watch::Sender::new(Leadership::default()),
            removed: watch::Sender::new(false),
            core: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
            heard: Mutex::new(None),
            recording: tokio::sync::Mutex::new(()),
            disk_failed: Notify::new(),
            changing: tokio::sync::Mutex::new(()),
            log: LogThrottle::new(),
        }
    }

    pub(crate) fn core(&self) -> Option<Openraft> {
        self.core.borrow().clone()
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.published.table.borrow().clone()
    }

    /// `None` before [`super::Raft::start`] has given the store an owner.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.store.identity()
    }

    /// This node as it takes part; `None` while it does not.
    pub(crate) fn raft_id(&self) -> Option<RaftId> {
        let generation = self.identity()?.admitted?;
        Some(RaftId::of(&self.setup.own, generation))
    }

    /// How this node introduces itself.
    pub(crate) fn sender(&self) -> Option<Sender> {
        let identity = self.identity()?;
        Some(Sender {
            cluster: identity.cluster,
            generation: identity.admitted.unwrap_or(0),
            disk: identity.disk,
        })
    }

    /// The generation that a name has now, as far as this node knows.
    pub(crate) fn generation(&self, node: &NodeId) -> u64 {
        let of_members = self.members.borrow().get(node).map(|listed| listed.member.generation);
        self.table().generation(node).max(of_members.unwrap_or(0))
    }

    /// Asks another node, and looks at who answers.
    pub(crate) async fn ask(
        &self,
        node: &NodeId,
        body: Body,
        limit: Duration,
    ) -> Result<AnswerBody, Unanswered> {
        let hello = matches!(body, Body::Hello(_));
        let answered = self.call(node, body, limit).await?;
        // The answer to a greeting makes no promise: whoever gives it may not take part yet.
        let checked = match hello {
            true => self.same_cluster(&answered.sender),
            false => self.check(node, &answered.sender).await,
        };
        checked.map_err(|refusal| {
            self.complain(node, &refusal);
            Unanswered::Refused(refusal)
        })?;
        Ok(answered.body)
    }

    /// Asks another node, whoever that may be.
    async fn call(
        &self,
        node: &NodeId,
        body: Body,
        limit: Duration,
    ) -> Result<Answered, Unanswered> {
        let Some(sender) = self.sender() else {
            return Err(Unanswered::Refused(RaftRefusal::NotReady));
        };
        let request = Request::Raft(Message { sender, body });
        let answer = self.transport.call(node.clone(), request, limit).await;
        match answer.map_err(Unanswered::Call)? {
            Response::Raft(Reply(Ok(answered))) => Ok(answered),
            Response::Raft(Reply(Err(refusal))) => {
                self.complain(node, &refusal);
                Err(Unanswered::Refused(refusal))
            }
            _ => {
                let strange = "it answers another question".to_owned();
                Err(Unanswered::Call(CallError::Lost(strange)))
            }
        }
    }

    /// Whether `node` answers, with the disk that is known as the one of that generation.
    pub(crate) async fn has_its_disk(&self, node: &NodeId, generation: u64) -> bool {
        let hello = Body::Hello(Hello { register: None });
        let Ok(Answered { sender, .. }) = self.call(node, hello, self.setup.ttl).await else {
            return false;
        };
        sender.generation == generation
            && self.store.memory().seen.fit(node, generation, &sender.disk) == Fit::Known
    }

    /// Whether what `node` says counts: it is of this cluster, and its disk is the one that we know.
    /// The first one that we see is remembered, on the disk, before it counts.
    pub(crate) async fn check(&self, node: &NodeId, sender: &Sender) -> Result<(), RaftRefusal> {
        self.same_cluster(sender)?;
        let newest = self.generation(node);
        if sender.generation < newest {
            return Err(RaftRefusal::Outdated(newest));
        }
        match self.remember(node, sender).await {
            Ok(Fit::Known | Fit::New) => Ok(()),
            Ok(Fit::Other) => Err(RaftRefusal::OtherDisk),
            Ok(Fit::Outdated) => Err(RaftRefusal::Outdated(sender.generation + 1)),
            Err(error) => {
                self.say(node, &format!("its disk cannot be remembered: {error}"));
                Err(RaftRefusal::NotReady)
            }
        }
    }

    pub(crate) fn same_cluster(&self, sender: &Sender) -> Result<(), RaftRefusal> {
        let own = self.identity().and_then(|identity| identity.cluster);
        match (own, &sender.cluster) {
            (Some(own), Some(theirs)) if own != *theirs => Err(RaftRefusal::OtherCluster(own)),
            _ => Ok(()),
        }
    }

    /// Writes down a disk that is new, and says how it fitted before.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub(crate) async fn remember(&self, node: &NodeId, sender: &Sender) -> io::Result<Fit> {
        let fit = || self.store.memory().seen.fit(node, sender.generation, &sender.disk);
        if fit() != Fit::New {
            return Ok(fit());
        }
        let _one_at_a_time = self.recording.lock().await;
        let now = fit();
        if now == Fit::New {
            let seen = self.store.memory().seen.with(node, sender.generation, &sender.disk);
            if let Err(error) = self.store.save_seen(seen).await {
                self.disk_failed.notify_one();
                return Err(error);
            }
        }
        Ok(now)
    }

    /// Has all that is known of the members count for who may connect.
    pub(crate) fn renew_peers(&self) {
        let members = self.members.borrow().clone();
        self.peers.renew(&members, *self.published.applied.borrow());
    }

    /// A leader has shown that it leads.
    pub(crate) fn hear(&self) {
        *self.last_heard() = Some(Instant::now());
    }

    /// The leader is gone: openraft looks after the next one as if it had been silent for long.
    pub(crate) fn forget_leader(&self) {
        *self.last_heard() = None;
    }

    /// Whether one has, lately.
    pub(crate) fn has_heard(&self, within: Duration) -> bool {
        self.last_heard().is_some_and(|at| at.elapsed() <= within)
    }

    fn last_heard(&self) -> MutexGuard<'_, Option<Instant>> {
        self.heard.lock()
    }

    /// Whether this node was removed: told once, and again if that changes.
    pub(crate) fn set_removed(&self, removed: bool) {
        let news = self.removed.send_replace(removed) != removed;
        if news && removed {
            tracing::error!(
                "this node was removed from the cluster, or its disk was replaced: it takes part no more. \
                 To have it back, empty its data_dir and its database, and run `litepilot members add \
                 {}=HOST:PORT` on a member; else stop it",
                self.setup.own
            );
        }
    }

    /// Logs, once in a while, what an operator has to fix.
    pub(crate) fn complain(&self, node: &NodeId, refusal: &RaftRefusal) {
        match refusal {
            RaftRefusal::NotMe | RaftRefusal::NotReady => {}
            RaftRefusal::OtherCluster(_) | RaftRefusal::Outdated(_) | RaftRefusal::OtherDisk => {
                self.say(node, &refusal.to_string());
            }
        }
    }

    /// Logs `text` about `node`, at most once a minute.
    pub(crate) fn say(&self, node: &NodeId, text: &str) {
        let key = (node.clone(), text.to_owned());
        if let Some(held_back) = self.log.may_speak(key, std::time::Instant::now()) {
            warn!(peer = %node, held_back, "election: {text}");
        }
    }
}

impl Members {
    pub(super) fn of_seeds(seeds: &[Member]) -> Self {
        let voters = seeds.iter().map(|seed| (seed.clone(), true));
        Self::new(voters)
    }

    pub(super) fn of(membership: &StoredMembership) -> Self {
        let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        Self::new(membership.nodes().map(|(id, node)| (node.clone(), voters.contains(id))))
    }

    /// Of one name, the newest generation; while it is being replaced, the older one votes.
    fn new(members: impl Iterator<Item = (Member, bool)>) -> Self {
        let mut by_name: BTreeMap<NodeId, Listed> = BTreeMap::new();
        for (member, voter) in members {
            match by_name.get_mut(&member.name) {
                Some(known) => {
                    known.voter |= voter;
                    if known.member.generation < member.generation {
                        (known.member, known.pending) = (member, !voter);
                    }
                }
                None => {
                    let listed = Listed { member, voter, pending: !voter };
                    by_name.insert(listed.member.name.clone(), listed);
                }
            }
        }
        Self(by_name)
    }
}
