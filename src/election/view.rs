//! What a node knows of the cluster, from its table, its own tenure and what it hears. Pure.
//!
//! A primary says itself that it takes writes: faster than the table gets around, and no less sure,
//! since it only does so while its claim is valid. The table tells which of such words are outdated.

use std::sync::Arc;
use std::time::SystemTime;

use super::table::Table;
use super::tenure::Own;
use crate::claim::Claim;
use crate::cluster::{ClusterView, Epoch, EpochStart, NodeId, Primary, Role};
use crate::peer::gossip::{Heard, Peers};

/// What a view is made of.
pub struct Known<'a> {
    /// This node.
    pub node: &'a NodeId,
    /// It holds no data.
    pub witness: bool,
    /// What was agreed upon.
    pub table: &'a Table,
    /// What this node is by itself.
    pub own: &'a Own,
    /// What others say.
    pub peers: &'a Peers,
    /// A majority of the voters is in contact.
    pub quorum: bool,
    /// Why nobody is chosen, if this node is to choose.
    pub waiting: Option<Arc<str>>,
}

/// The view now; `before` is the last one.
pub fn view(known: &Known<'_>, before: Option<&ClusterView>, now: SystemTime) -> ClusterView {
    let primary = primary(known).map(|(node, epoch)| {
        let same = before.and_then(|view| view.primary.clone());
        let same = same.filter(|p| p.node == node && p.epoch == epoch);
        same.unwrap_or(Primary { node, epoch, since: now })
    });
    let holds = primary.as_ref().is_some_and(|primary| primary.node == *known.node);
    ClusterView {
        node: known.node.clone(),
        role: match (holds, known.witness) {
            (true, _) => Role::Primary,
            (false, true) => Role::Witness,
            (false, false) => Role::Replica,
        },
        writable: holds,
        claim: if holds { known.own.claim.clone() } else { Claim::none() },
        elected: true,
        starts: starts(known, before),
        no_primary: primary.is_none().then(|| no_primary(known)).flatten(),
        primary,
        quorum: known.quorum,
    }
}

/// Whom this copy follows: a primary that takes no writes for a moment is still followed.
pub fn source(known: &Known<'_>) -> Option<(NodeId, Epoch)> {
    let agreed = known.table.primary().map(|holder| (holder.node.clone(), holder.epoch));
    let said = speaker(known).map(|heard| (heard.report.node.clone(), heard.report.epoch));
    [agreed, said].into_iter().flatten().max_by_key(|(_, epoch)| *epoch)
}

/// Two nodes that both say to be primary of one epoch.
pub(crate) fn split_brain(known: &Known<'_>) -> Option<Epoch> {
    let mut claims: Vec<Epoch> = writers(known).map(|heard| heard.report.epoch).collect();
    claims.extend(known.own.open.then_some(known.own.epoch));
    claims.sort_unstable();
    claims.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn primary(known: &Known<'_>) -> Option<(NodeId, Epoch)> {
    let own = (known.own.open).then(|| (known.node.clone(), known.own.epoch));
    let said = speaker(known).map(|heard| (heard.report.node.clone(), heard.report.epoch));
    [own, said].into_iter().flatten().max_by_key(|(_, epoch)| *epoch)
}

/// Why nobody takes writes: who leads Raft knows what the choice waits for.
fn no_primary(known: &Known<'_>) -> Option<Arc<str>> {
    let said = || {
        let mut reachable = known.peers.values().filter(|heard| heard.reachable);
        reachable.find_map(|heard| heard.report.no_primary.clone())
    };
    let holder = known.table.holder.as_ref();
    let held = || holder.map(|holder| format!("{holder} has the lease and takes no writes").into());
    known.waiting.clone().or_else(said).or_else(held)
}

/// Who says to take writes, and is not outdated.
fn speaker<'a>(known: &Known<'a>) -> Option<&'a Heard> {
    let current = |heard: &&Heard| heard.report.epoch >= known.table.last_epoch;
    writers(known).filter(current).max_by_key(|heard| heard.report.epoch)
}

fn writers<'a>(known: &Known<'a>) -> impl Iterator<Item = &'a Heard> + use<'a> {
    known.peers.values().filter(|heard| heard.reachable && heard.report.writable)
}

/// Those that were agreed upon. A primary knows of its own before its table does.
fn starts(known: &Known<'_>, before: Option<&ClusterView>) -> Arc<[EpochStart]> {
    let agreed = &known.table.starts;
    let newest = agreed.back().map(|start| start.epoch).unwrap_or_default();
    let own = known.own.start.as_ref().filter(|start| start.epoch > newest);
    let starts = agreed.iter().chain(own);
    match before {
        Some(view) if view.starts.iter().eq(starts.clone()) => view.starts.clone(),
        _ => starts.copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::election::table::{Command, Holder, Opening, Session, Term};
    use crate::peer::gossip::Report;
    use crate::txid::Position;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// A table in which `name` holds the lease.
    fn table(name: &str, epoch: u64) -> Table {
        let mut table = Table { last_epoch: Epoch(epoch - 1), ..Table::default() };
        let holder =
            Holder { node: node(name), session: Session(String::new()), epoch: Epoch(epoch) };
        table.apply(Command::Acquire(holder), Term(1));
        let start = EpochStart { epoch: Epoch(epoch), held: Position::default() };
        let opening =
            Opening { start, revision: 0, electorates: None, unheard: Vec::new(), promised: false };
        table.apply(Command::Opened(opening), Term(1));
        table
    }

    fn heard(name: &str, epoch: u64, writable: bool) -> Peers {
        let mut report = Report::new(node(name), Role::Primary);
        (report.epoch, report.writable) = (Epoch(epoch), writable);
        [(node(name), Heard::new(report, Instant::now()))].into()
    }

    fn idle() -> Own {
        Own { epoch: Epoch(0), claim: Claim::none(), open: false, holding: false, start: None }
    }

    fn known<'a>(name: &'a NodeId, table: &'a Table, own: &'a Own, peers: &'a Peers) -> Known<'a> {
        Known { node: name, witness: false, table, own, peers, quorum: true, waiting: None }
    }

    #[test]
    fn a_primary_is_who_says_so_unless_outdated() {
        let (me, own) = (node("me"), idle());
        let (old, new) = (table("a", 3), table("b", 4));
        let says = heard("a", 3, true);
        let seen = view(&known(&me, &old, &own, &says), None, SystemTime::now());
        assert_eq!(
            seen.primary.as_ref().map(|p| (p.node.clone(), p.epoch)),
            Some((node("a"), Epoch(3)))
        );
        assert!(!seen.writable && seen.role == Role::Replica);
        let outdated = view(&known(&me, &new, &own, &says), None, SystemTime::now());
        assert_eq!(outdated.primary, None);
        let newer = heard("b", 5, true);
        let early = view(&known(&me, &old, &own, &newer), None, SystemTime::now());
        assert_eq!(early.epoch(), Epoch(5), "before the table has it");
    }

    #[test]
    fn a_primary_that_takes_no_writes_is_followed_but_gets_no_requests() {
        let (me, own, table) = (node("me"), idle(), table("a", 3));
        let quiet = heard("a", 3, false);
        let known = known(&me, &table, &own, &quiet);
        assert_eq!(view(&known, None, SystemTime::now()).primary, None);
        assert_eq!(source(&known), Some((node("a"), Epoch(3))));
    }

    #[test]
    fn why_there_is_no_primary_is_said_everywhere() {
        let (me, own, table) = (node("me"), idle(), Table::default());
        let why = |peers: &Peers| {
            let seen = view(&known(&me, &table, &own, peers), None, SystemTime::now());
            seen.no_primary.map(|why| why.to_string())
        };
        let mut peers = heard("a", 3, false);
        assert_eq!(why(&peers), None);
        peers.get_mut(&node("a")).unwrap().report.no_primary = Some("b is missing".into());
        assert_eq!(why(&peers).as_deref(), Some("b is missing"));
        peers.get_mut(&node("a")).unwrap().report.writable = true;
        assert_eq!(why(&peers), None, "there is one");
        let granted = self::table("b", 3);
        let seen = view(&known(&me, &granted, &own, &Peers::new()), None, SystemTime::now());
        assert!(seen.no_primary.unwrap().contains("b in epoch 3 has the lease"));
    }

    #[test]
    fn an_open_epoch_of_ones_own_takes_writes_while_its_claim_lasts() {
        let (me, table, nobody) = (node("me"), table("me", 3), Peers::new());
        let own = Own {
            epoch: Epoch(3),
            claim: Claim::unlimited(),
            open: true,
            holding: true,
            start: None,
        };
        let before = view(&known(&me, &table, &own, &nobody), None, SystemTime::now());
        assert!(before.takes_writes() && before.role == Role::Primary);
        let later = SystemTime::now() + Duration::from_secs(9);
        let after = view(&known(&me, &table, &own, &nobody), Some(&before), later);
        assert_eq!(after, before, "the same epoch");
        own.claim.end();
        assert!(!before.takes_writes());
        let replaced = heard("b", 4, true);
        let seen = view(&known(&me, &table, &own, &replaced), None, SystemTime::now());
        assert_eq!(seen.epoch(), Epoch(4));
        assert!(!seen.writable);
    }

    #[test]
    fn two_claims_of_one_epoch_are_noticed() {
        let (me, table) = (node("me"), table("me", 3));
        let own = Own {
            epoch: Epoch(3),
            claim: Claim::unlimited(),
            open: true,
            holding: true,
            start: None,
        };
        let other = heard("a", 3, true);
        assert_eq!(split_brain(&known(&me, &table, &own, &other)), Some(Epoch(3)));
        let replaced = heard("a", 4, true);
        assert_eq!(split_brain(&known(&me, &table, &own, &replaced)), None);
    }
}
