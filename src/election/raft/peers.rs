//! Who may connect to this node, and where they are.
//!
//! These are the members, as this node's log says. A log that is empty or behind may not name the
//! leader that would complete it: whom another member's newer log names may connect too, until
//! this node has applied as much. Where somebody is that the configuration names, the configuration says:
//! addresses change, also all of them at once, when nobody can agree upon anything.

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
    configured: Vec<Member>,
}

/// What others' newest log says.
struct Told {
    as_of: LogId,
    members: Vec<Member>,
}

impl Peers {
    /// `configured` says where members are, not who is one.
    pub(crate) fn new(own: &Members, configured: &[Member]) -> Self {
        let now = watch::Sender::new(Arc::new(by_name(own)));
        Self { now, told: Mutex::new(None), configured: configured.to_vec() }
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
        for Member { name, address, .. } in &self.configured {
            if let Some(known) = peers.get_mut(name) {
                known.address.clone_from(address);
            }
        }
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

    #[test]
    fn where_somebody_is_the_configuration_says_and_not_who_is_a_member() {
        let own = Members::of_seeds(&[member("a", "old:1"), member("b", "old:2")]);
        let peers = Peers::new(&own, &[member("a", "new:1"), member("x", "new:9")]);
        peers.renew(&own, Some(at(1)));
        assert_eq!(names(&peers), ["a", "b"]);
        let addresses: Vec<_> =
            peers.subscribe().borrow().values().map(|m| m.address.clone()).collect();
        assert_eq!(addresses, ["new:1", "old:2"]);
    }

    fn names(peers: &Peers) -> Vec<String> {
        peers.subscribe().borrow().keys().map(NodeId::to_string).collect()
    }

    #[test]
    fn whom_a_newer_log_names_may_connect_until_ours_is_as_new() {
        let own = Members::of_seeds(&[member("a", "a:1"), member("b", "b:1")]);
        let peers = Peers::new(&own, &[]);
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
