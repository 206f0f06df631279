//! What LiteFS' engine asks of the cluster: of the election, or of a primary that is always the same.

use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

use crate::claim::Claim;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::config::{self, Config};
use crate::election::Election;
use crate::election::table::Command;
use crate::engine::BoxFuture;
use crate::litefs::cluster::{Cluster, Stream};
use crate::peer::{self, Dialer};

/// The cluster around a LiteFS.
pub(crate) struct Around {
    elects: bool,
    dialer: Option<Arc<Dialer>>,
    /// There while it runs, if there is one.
    election: Mutex<Option<Election>>,
    /// As the primary has told; it knows before the table here does.
    starts: Mutex<Arc<[EpochStart]>>,
    /// LiteFS' cluster ID, where nobody agrees upon it: each LiteFS keeps its own on disk.
    id: Mutex<Option<String>>,
}

impl Around {
    pub(crate) fn new(config: &Config, dialer: Option<Arc<Dialer>>) -> Self {
        Self {
            elects: config.cluster.election == config::Election::Raft,
            dialer,
            election: Mutex::default(),
            starts: Mutex::default(),
            id: Mutex::default(),
        }
    }

    pub(crate) fn join(&self, election: Election) {
        *self.election.lock() = Some(election);
    }

    /// The node stops: the election holds the engine, which holds this.
    pub(crate) fn leave(&self) {
        self.election.lock().take();
    }

    fn election(&self) -> Option<Election> {
        self.election.lock().clone()
    }

    /// A primary has told where the reigns began, its own last.
    pub(crate) fn heard(&self, starts: Arc<[EpochStart]>) {
        let mut known = self.starts.lock();
        if newest(&starts) >= newest(&known) {
            *known = starts;
        }
    }
}

fn newest(starts: &[EpochStart]) -> Epoch {
    starts.last().map(|start| start.epoch).unwrap_or_default()
}

impl Cluster for Around {
    fn claim(&self, epoch: Epoch) -> Claim {
        match self.election() {
            Some(election) => {
                let own = election.own().borrow().clone();
                if own.epoch == epoch { own.claim } else { Claim::none() }
            }
            None if self.elects => Claim::none(),
            None => Claim::unlimited(),
        }
    }

    fn elects(&self) -> bool {
        self.elects
    }

    fn starts(&self) -> Arc<[EpochStart]> {
        let told = self.starts.lock().clone();
        let Some(election) = self.election() else { return told };
        let mut agreed: Vec<EpochStart> =
            election.table().borrow().starts.iter().copied().collect();
        // A primary knows of its own before its table does.
        let own = election.own().borrow().start;
        agreed.extend(own.filter(|start| start.epoch > newest(&agreed)));
        if newest(&told) > newest(&agreed) { told } else { agreed.into() }
    }

    fn litefs_id(&self) -> Option<String> {
        match self.election() {
            Some(election) => election.table().borrow().litefs_id.clone(),
            None => self.id.lock().clone(),
        }
    }

    fn set_litefs_id(&self, id: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.election() {
                Some(election) => election.agree(Command::SetLitefsId { id }).await,
                None if self.elects => Err("the election does not run yet".to_owned()),
                None => {
                    *self.id.lock() = Some(id);
                    Ok(())
                }
            }
        })
    }

    fn dial_litefs(&self, node: NodeId) -> BoxFuture<'static, io::Result<Stream>> {
        let dialer = self.dialer.clone();
        Box::pin(async move {
            let dialer = dialer.ok_or(io::ErrorKind::NotConnected)?;
            let stream = dialer.dial(&node, peer::LITEFS).await;
            let stream = stream.map_err(|why| io::Error::other(why.to_string()))?;
            Ok(Box::new(stream) as Stream)
        })
    }
}
