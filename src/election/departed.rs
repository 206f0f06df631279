//! Whose process has died, as its last will says ([`crate::last_will`]).
//!
//! Every node keeps this, not only whoever leads Raft: that may have been the one that died.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::watch;

use super::rpc::Fitness;
use super::table::{Life, Session};
use crate::cluster::NodeId;

/// So many are kept; what is older has long been decided by time.
const KEPT: usize = 64;

#[derive(Default)]
pub(crate) struct Departed(watch::Sender<VecDeque<(NodeId, Life)>>);

impl Departed {
    /// Takes note of it, and says whether that is news.
    pub(crate) fn add(&self, node: NodeId, life: Life) -> bool {
        self.0.send_if_modified(|known| {
            let news = !known.contains(&(node.clone(), life.clone()));
            if news {
                known.push_back((node, life));
                known.drain(..known.len().saturating_sub(KEPT));
            }
            news
        })
    }

    /// Ready once that session's life is over, and known to be.
    pub(crate) async fn includes(&self, node: &NodeId, session: &Session) {
        let mut known = self.0.subscribe();
        // It ends with this, so it does not while we wait.
        let _ = known.wait_for(|known| is_over(known, node, session)).await;
    }

    /// Whoever has died since it answered is not fit. What it held counts: it has promised.
    pub(crate) fn mark(&self, answers: &mut BTreeMap<NodeId, Fitness>) {
        let known = self.0.borrow();
        for (node, fitness) in answers {
            if is_over(&known, node, &fitness.session) {
                fitness.unfit = Some("its process has died".to_owned());
            }
        }
    }
}

fn is_over(known: &VecDeque<(NodeId, Life)>, node: &NodeId, session: &Session) -> bool {
    known.iter().any(|(name, life)| name == node && life.had(session))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn life(text: &str) -> Life {
        Life(text.to_owned())
    }

    #[tokio::test]
    async fn a_life_is_over_with_all_its_sessions_and_no_other() {
        let (departed, node) = (Departed::default(), "a".parse().unwrap());
        let over = async |session: &Session| {
            let mut over = std::pin::pin!(departed.includes(&node, session));
            std::future::poll_fn(|cx| Poll::Ready(over.as_mut().poll(cx).is_ready())).await
        };
        departed.add("b".parse().unwrap(), life("one"));
        assert!(!over(&life("one").session(0)).await, "of another node");
        departed.add(node.clone(), life("one"));
        departed.add(node.clone(), life(""));
        for n in [0, 7] {
            assert!(over(&life("one").session(n)).await);
            assert!(!over(&life("two").session(n)).await);
        }
        assert!(!over(&Session("00f0".repeat(8))).await, "of an older node");
        for n in 0..KEPT {
            assert!(departed.add(node.clone(), life(&n.to_string())));
        }
        assert!(!over(&life("one").session(0)).await, "forgotten");
    }
}
