//! Who may connect to this node, and where they are.
//!
//! These are the members, as this node's log says. A log that is empty or behind may not name the
//! leader that would complete it: whom another member's newer log names may connect too, until
//! this node has applied as much.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::message::Greeting;
use super::types::LogId;
use super::{Member, Members};
use crate::cluster::NodeId;

/// Each by its name.
pub(crate) type ByName = BTreeMap<NodeId, Member>;

pub(crate) struct Peers {
    now: watch::Sender<Arc<ByName>>,
    told: Mutex<Option<Told>>,
}

/// What others' newest log says.
struct Told {
    as_of: LogId,
    members: Vec<Member>,
}

impl Peers {
    pub(crate) fn new(own: &Members) -> Self {
        Self { now: watch::Sender::new(Arc::new(by_name(own))), told: Mutex::new(None) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ByName>> {
        self.now.subscribe()
    }

    /// Takes note of what another node says. [`Peers::renew`] has it count.
    pub(crate) fn hear(&self, greeting: &Greeting) {
        let Some(as_of) = greeting.as_of.filter(|_| greeting.begun) else { return };
        let mut told = self.told.lock();
        if told.as_ref().is_none_or(|told| told.as_of < as_of) {
            *told = Some(Told { as_of, members: greeting.members.clone() });
        }
    }

    /// Reckons anew with what this node's log says, of which it has applied that much.
    pub(crate) fn renew(&self, own: &Members, applied: Option<LogId>) {
        let mut peers = by_name(own);
        let mut told = self.told.lock();
        told.take_if(|told| Some(told.as_of) <= applied);
        for member in told.iter().flat_map(|told| &told.members) {
            peers.insert(member.name.clone(), member.clone());
        }
        drop(told);
        self.now.send_if_modified(|known| {
            let changed = **known != peers;
            *known = Arc::new(peers);
            changed
        });
    }
}

fn by_name(members: &Members) -> ByName {
    members.iter().map(|listed| (listed.member.name.clone(), listed.member.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, address: &str) -> Member {
        let (name, address) = (name.parse().unwrap(), address.to_owned());
        Member { name, generation: 0, address, witness: false }
    }

    fn at(index: u64) -> LogId {
        LogId::new_term_index(1, index)
    }

    fn greeting(begun: bool, index: u64, members: &[Member]) -> Greeting {
        let (members, as_of) = (members.to_vec(), Some(at(index)));
        Greeting { begun, members, as_of, known: None, generation: 0 }
    }

    fn names(peers: &Peers) -> Vec<String> {
        peers.subscribe().borrow().keys().map(NodeId::to_string).collect()
    }

    #[test]
    fn whom_a_newer_log_names_may_connect_until_ours_is_as_new() {
        let own = Members::of_seeds(&[member("a", "a:1"), member("b", "b:1")]);
        let peers = Peers::new(&own);
        let newer = [member("a", "a:1"), member("b", "elsewhere:1"), member("d", "d:1")];
        peers.hear(&greeting(true, 7, &newer));
        peers.hear(&greeting(true, 3, &[member("x", "x:1")]));
        peers.hear(&greeting(false, 9, &[member("y", "y:1")]));
        peers.renew(&own, Some(at(6)));
        assert_eq!(names(&peers), ["a", "b", "d"]);
        let b = "b".parse().unwrap();
        assert_eq!(peers.subscribe().borrow()[&b].address, "elsewhere:1");
        peers.renew(&own, Some(at(7)));
        assert_eq!(names(&peers), ["a", "b"]);
    }
}
