//! Where a peer may be: where this node's configuration or the membership says, and where it says itself.
//!
//! Its own word counts only where nobody else's leads to it: one with a wrong address of itself in its
//! configuration is found all the same.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::NodeId;
use crate::config::HostPort;
use crate::net::Remote;

pub(super) struct Places {
    known: Arc<Remote>,
    announced: Mutex<Option<Announced>>,
}

struct Announced {
    remote: Arc<Remote>,
    /// It was there when it was dialed last.
    works: bool,
}

impl Places {
    pub(super) fn new(known: HostPort) -> Self {
        Self { known: Arc::new(Remote::new(known)), announced: Mutex::default() }
    }

    pub(super) fn known(&self) -> &HostPort {
        self.known.at()
    }

    /// It says that it is at `at`.
    pub(super) fn announce(&self, at: HostPort) {
        let mut announced = self.announced.lock();
        if announced.as_ref().is_none_or(|announced| *announced.remote.at() != at) {
            let elsewhere = at != *self.known();
            let remote = || Announced { remote: Arc::new(Remote::new(at)), works: false };
            *announced = elsewhere.then(remote);
        }
    }

    /// Where to dial it, one after the other.
    pub(super) fn in_order(&self) -> Vec<Arc<Remote>> {
        let announced = self.announced.lock();
        let Some(Announced { remote, works }) = &*announced else {
            return vec![self.known.clone()];
        };
        match works {
            true => vec![remote.clone(), self.known.clone()],
            false => vec![self.known.clone(), remote.clone()],
        }
    }

    /// `node` was found at `at`.
    pub(super) fn found(&self, node: &NodeId, at: &Remote) {
        let mut announced = self.announced.lock();
        let Some(announced) = &mut *announced else { return };
        let there = announced.remote.at() == at.at();
        if there && !announced.works {
            let (at, known) = (at.at(), self.known());
            tracing::warn!(
                "{node} is not at {known} any more but at {at}, as it says: write that into \
                 cluster.peers here, too"
            );
        }
        announced.works = there;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_peer_says_it_is_it_is_looked_for_last_until_it_was_there() {
        let at = |text: &str| text.parse::<HostPort>().unwrap();
        let places = Places::new(at("known:1"));
        let order = || -> Vec<_> {
            places.in_order().iter().map(|remote| remote.at().to_string()).collect()
        };
        let found = |n: usize| places.found(&"n1".parse().unwrap(), &places.in_order()[n]);
        assert_eq!(order(), ["known:1"]);
        places.announce(at("new:2"));
        assert_eq!(order(), ["known:1", "new:2"]);
        found(1);
        places.announce(at("new:2"));
        assert_eq!(order(), ["new:2", "known:1"]);
        found(1);
        assert_eq!(order(), ["known:1", "new:2"], "it is back");
        places.announce(at("known:1"));
        assert_eq!(order(), ["known:1"]);
    }
}
