//! What LiteFS' engine hears of the cluster's agreements, and proposes. The node holds the other end.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::EpochStart;

/// Proposals that may wait. LiteFS makes one, and again if that was not answered.
const PROPOSALS: usize = 4;

/// The engine's end.
#[derive(Clone)]
pub struct Agreed {
    /// Where the last epochs started, the newest last. Without an election: where the present one did.
    pub(super) starts: watch::Receiver<Arc<[EpochStart]>>,
    /// LiteFS' cluster ID, if there is one.
    pub(super) litefs_id: watch::Receiver<Option<String>>,
    proposals: mpsc::Sender<IdProposal>,
}

/// The node's end.
pub struct Agreement {
    /// Where the last epochs started, the newest last.
    pub starts: watch::Sender<Arc<[EpochStart]>>,
    /// LiteFS' cluster ID.
    pub litefs_id: watch::Sender<Option<String>>,
    /// Cluster IDs to be agreed upon.
    pub proposals: mpsc::Receiver<IdProposal>,
}

/// A wish to have a cluster ID agreed upon.
pub struct IdProposal {
    /// What LiteFS calls its cluster.
    pub id: String,
    /// Whether that is the cluster's now, else why not.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Both ends; nothing is agreed upon yet.
pub fn agreement() -> (Agreement, Agreed) {
    let (starts, known_starts) = watch::channel(Arc::default());
    let (litefs_id, known_id) = watch::channel(None);
    let (propose, proposals) = mpsc::channel(PROPOSALS);
    let agreed = Agreed { starts: known_starts, litefs_id: known_id, proposals: propose };
    (Agreement { starts, litefs_id, proposals }, agreed)
}

impl Agreed {
    pub(super) fn starts(&self) -> Arc<[EpochStart]> {
        self.starts.borrow().clone()
    }

    pub(super) fn litefs_id(&self) -> Option<String> {
        self.litefs_id.borrow().clone()
    }

    /// Has LiteFS' cluster ID agreed upon.
    pub(super) async fn propose(&self, id: String) -> Result<(), String> {
        let stopping = || "the node stops".to_owned();
        let (reply, answer) = oneshot::channel();
        self.proposals.send(IdProposal { id, reply }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}
