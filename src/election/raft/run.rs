//! The life of a node's Raft: is let in, runs openraft, runs it again after the disk has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::errors::Fatal;
use openraft::{Config, EntryPayload, Instant as _, ServerState};
use tokio::time::sleep;
use tracing::{error, info};

use super::admission::{Verdict, decide};
use super::identity::Identity;
use super::machine::Machine;
use super::message::{AnswerBody, Body, Greeting, Hello, RaftRefusal};
use super::network::Network;
use super::pace::pace;
use super::shared::{RaftNode, Unanswered};
use super::store::LogStore;
use super::types::{Entry, LogId, Membership, Openraft, RaftId, StoredMembership, Types, term_of};
use super::{Leadership, Members};
use crate::cluster::NodeId;
use crate::election::rpc::CallError;
use crate::election::table::Term;

/// Between two attempts to use a disk that has failed.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until it is stopped.
pub(crate) async fn run(shared: Arc<RaftNode>, config: Arc<Config>) {
    let mut stopping = shared.stopping.subscribe();
    let life = async {
        be_admitted(&shared).await;
        let mut last_word = String::new();
        loop {
            let why = serve(&shared, &config).await;
            if why != last_word {
                error!("this node takes part in no election until Raft can run again: {why}");
                last_word = why;
            }
            revive(&shared).await;
        }
    };
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = life => {}
    }
    if let Some(core) = shared.core() {
        // An error means that it has ended by itself.
        let _ = core.shutdown().await;
    }
    quiet(&shared);
}

/// Waits until the file can be written, and reads what it holds now.
async fn revive(shared: &RaftNode) {
    let mut complained = false;
    loop {
        sleep(RETRY).await;
        let Some(identity) = shared.identity() else { continue };
        let again = async {
            shared.store.reopen().await?;
            // To know whether there is room, something has to be written.
            shared.store.save_identity(shared.identity().unwrap_or(identity)).await
        };
        match again.await {
            Ok(()) if complained => return info!("the Raft store can be written again"),
            Ok(()) => return,
            Err(error) if !complained => {
                complained = true;
                error!("the Raft store cannot be written: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Runs openraft until it ends, and says why it did.
async fn serve(shared: &Arc<RaftNode>, config: &Arc<Config>) -> String {
    let stopped = || Fatal::<Types>::Stopped.to_string();
    let Some(id) = shared.raft_id() else { return stopped() };
    let machine = Machine::new(shared.store.clone(), shared.published.clone());
    let log = LogStore(shared.store.clone());
    let network = Network(shared.clone());
    let core = match Openraft::new(id, config.clone(), network, log, machine).await {
        Ok(core) => core,
        Err(fatal) => return fatal.to_string(),
    };
    shared.core.send_replace(Some(core.clone()));
    let ended = async {
        let mut metrics = core.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return stopped();
            }
        }
    };
    let why = tokio::select! {
        biased;
        why = ended => why,
        () = publish(shared, &core) => stopped(),
        () = announce(shared) => stopped(),
        () = keep_name(shared) => stopped(),
        () = pace(shared, &core) => stopped(),
        // openraft would go on, with a store that takes nothing any more.
        () = shared.disk_failed.notified() => "its disk cannot be written".to_owned(),
    };
    // An error means that it has ended by itself.
    let _ = core.shutdown().await;
    quiet(shared);
    why
}

/// Nobody is known to lead, and nothing is answered.
fn quiet(shared: &RaftNode) {
    shared.leadership.send_modify(|leadership| {
        *leadership = Leadership { leader: None, ours: false, term: leadership.term };
    });
    shared.core.send_replace(None);
}

/// Tells how openraft stands, at each change.
async fn publish(shared: &RaftNode, core: &Openraft) {
    let mut server = core.server_metrics();
    let mut applied = shared.published.applied.subscribe();
    loop {
        {
            let now = server.borrow_and_update();
            let applied = *applied.borrow_and_update();
            let leader = now.current_leader;
            let name = leader.and_then(|id| {
                now.membership_config.get_node(&id).map(|member| member.name.clone())
            });
            let term = Term(now.vote.leader_id().term);
            let ours = now.state == ServerState::Leader
                && leader == Some(now.id)
                && applied.is_some_and(|log_id| term_of(&log_id) == term);
            let seen = Leadership { leader: name, term, ours };
            shared.leadership.send_if_modified(|known| {
                let changed = *known != seen;
                *known = seen;
                changed
            });
            if now.membership_config.nodes().next().is_some() {
                let members = Members::of(&now.membership_config);
                shared.members.send_if_modified(|known| {
                    let changed = **known != members;
                    *known = Arc::new(members);
                    changed
                });
                shared.renew_peers();
            }
        }
        tokio::select! {
            biased;
            changed = server.changed() => if changed.is_err() { return },
            _ = applied.changed() => {}
        }
    }
}

/// Keeps the cluster's name apart from the table, as soon as it is known: after a restart the table
/// may be behind.
async fn keep_name(shared: &RaftNode) {
    let mut table = shared.published.table.subscribe();
    let known = table.wait_for(|table| table.cluster.is_some()).await.map(|t| t.cluster.clone());
    let kept = shared.identity().filter(|identity| identity.cluster.is_none());
    if let (Ok(cluster), Some(identity)) = (known, kept) {
        // If it fails, openraft's next write does too, and all begins anew.
        let _ = shared.store.save_identity(Identity { cluster, ..identity }).await;
    }
    std::future::pending().await
}

/// Shows this node's disk to every member, once each: the more remember it, the better. While no
/// leader is heard, again and again: there may be one that this node does not know as a member.
async fn announce(shared: &RaftNode) {
    let mut members = shared.members.subscribe();
    let mut told: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let now = members.borrow_and_update().clone();
        let led = shared.leadership.borrow().ours || shared.has_heard(shared.setup.ttl);
        told.retain(|node| led && now.get(node).is_some());
        let rest = now.iter().map(|listed| listed.member.name.clone());
        let rest: Vec<_> = rest.filter(|node| !told.contains(node)).collect();
        let register = shared.identity().and_then(|identity| identity.admitted);
        let (greetings, strange) = hello(shared, &rest, register).await;
        let mut outdated = false;
        for (node, greeting) in &greetings {
            outdated |= mind(shared, node, greeting);
        }
        // A member that is behind may not know this node yet: then another one answers, or leads it.
        if !rest.is_empty() {
            shared.set_removed(!led && (outdated || greetings.is_empty() && strange));
        }
        told.extend(greetings.into_keys());
        tokio::select! {
            biased;
            changed = members.changed() => if changed.is_err() { return },
            () = sleep(shared.setup.ttl) => {}
        }
    }
}

/// Says so if the others hold this node's disk for void; whether it was replaced or removed.
fn mind(shared: &RaftNode, node: &NodeId, greeting: &Greeting) -> bool {
    let Some(identity) = shared.identity() else { return false };
    let outdated = identity.admitted.is_some_and(|own| own < greeting.generation);
    let other = greeting.known.as_ref().is_some_and(|known| *known != identity.disk);
    match () {
        () if outdated => shared.complain(node, &RaftRefusal::Outdated(greeting.generation)),
        () if other => shared.complain(node, &RaftRefusal::OtherDisk),
        () => {}
    }
    outdated
}

/// Asks `nodes`, all at once, and takes note of whom they name. Also whether somebody takes this node for
/// no member.
async fn hello(
    shared: &RaftNode,
    nodes: &[NodeId],
    register: Option<u64>,
) -> (BTreeMap<NodeId, Greeting>, bool) {
    let others = nodes.iter().filter(|node| **node != shared.setup.own);
    let asked = others.map(|node| async move {
        let body = Body::Hello(Hello { register });
        match shared.ask(node, body, shared.setup.ttl / 2).await {
            Ok(AnswerBody::Hello(greeting)) => Ok((node.clone(), greeting)),
            Err(Unanswered::Call(CallError::NotAMember(_))) => Err(true),
            _ => Err(false),
        }
    });
    let answers = join_all(asked).await;
    let strange = answers.contains(&Err(true));
    let greetings: BTreeMap<_, _> = answers.into_iter().flatten().collect();
    greetings.values().for_each(|greeting| shared.peers.hear(greeting));
    shared.renew_peers();
    (greetings, strange)
}

/// Returns once this node may take part; at once if it did before.
async fn be_admitted(shared: &RaftNode) {
    let mut register = None;
    let mut last_word = String::new();
    // Nodes that start together find each other at once.
    let mut pause = shared.setup.ttl / 64;
    loop {
        let Some(identity) = shared.identity() else { return };
        if identity.admitted.is_some() {
            return;
        }
        // Those that are configured, and whom they have named since.
        let names: Vec<_> = shared.peers.subscribe().borrow().keys().cloned().collect();
        let (greetings, _) = hello(shared, &names, register).await;
        let verdict = decide(&identity.node, &identity.disk, &shared.setup.seeds, &greetings);
        let (word, refused) = match verdict {
            Verdict::Register(generation) if register != Some(generation) => {
                register = Some(generation);
                continue;
            }
            verdict @ (Verdict::Found | Verdict::Join(_)) => {
                match take_part(shared, identity, &verdict).await {
                    Ok(()) => return,
                    Err(error) => wait_for_disk(shared, &error).await,
                }
                continue;
            }
            Verdict::Register(_) => ("waiting for others to remember this disk".to_owned(), false),
            Verdict::Wait(why) => (why, false),
            Verdict::Refused(why) => (why, true),
        };
        if word != last_word {
            match refused {
                true => error!("this node takes part in no election yet: {word}"),
                false => info!("this node takes part in no election yet: {word}"),
            }
            last_word = word;
        }
        sleep(pause).await;
        pause = (2 * pause).min(shared.setup.ttl / 4);
    }
}

/// Keeps on disk that this node takes part from now on.
async fn take_part(
    shared: &RaftNode,
    identity: Identity,
    verdict: &Verdict,
) -> std::io::Result<()> {
    if let Verdict::Join(generation) = *verdict {
        let identity = Identity { admitted: Some(generation), ..identity };
        shared.store.save_identity(identity).await?;
        info!(generation, "this node joins its cluster");
    } else {
        found(shared, identity).await?;
        info!("this node begins the cluster that it is configured with");
    }
    Ok(())
}

async fn wait_for_disk(shared: &RaftNode, error: &std::io::Error) {
    error!("this node takes part in no election yet: {error}");
    revive(shared).await;
}

/// The log of a new cluster begins with its membership, in one transaction with the right to take
/// part: the same entry on every node that begins it.
async fn found(shared: &RaftNode, identity: Identity) -> std::io::Result<()> {
    let seeds = &shared.setup.seeds;
    let nodes: BTreeMap<_, _> =
        seeds.iter().map(|seed| (RaftId::of(&seed.name, seed.generation), seed.clone())).collect();
    let voters = nodes.keys().copied().collect();
    let membership = Membership::new(vec![voters], nodes).map_err(std::io::Error::other)?;
    let first =
        Entry::new(LogId::new_term_index(0, 0), EntryPayload::blank().with_membership(membership));
    shared.store.found(Identity { admitted: Some(0), ..identity }, first).await
}

/// Of the other voters that have answered this leader within that time, the one whose log is the most
/// complete.
pub(crate) fn most_level(core: &Openraft, within: Duration) -> Option<NodeId> {
    let metrics = core.data_metrics();
    let metrics = metrics.borrow_watched();
    let (heard, matched) = (metrics.heartbeat.as_ref()?, metrics.replication.as_ref()?);
    let answers =
        |id: &RaftId| heard.get(id).copied().flatten().is_some_and(|at| at.elapsed() <= within);
    let membership =
        StoredMembership::clone(&core.server_metrics().borrow_watched().membership_config);
    let own = core.server_metrics().borrow_watched().id;
    let voters = membership.voter_ids().filter(|id| *id != own && answers(id));
    let best = voters.max_by_key(|id| matched.get(id).copied().flatten())?;
    membership.get_node(&best).map(|member| member.name.clone())
}

/// Whether a majority has acknowledged this leader within that time.
pub(crate) fn quorum_answers(core: &Openraft, within: Duration) -> bool {
    let metrics = core.data_metrics();
    let metrics = metrics.borrow_watched();
    let alone = core.voter_ids().count() == 1;
    alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= within)
}
