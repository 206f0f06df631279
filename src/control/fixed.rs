//! The control of a node whose primary never changes: on its own, or with `election: static`.

use std::io;
use std::sync::Arc;

use super::command::ForwardedCommand;
use super::forwarder::Forwarder;
use super::keys::Keys;
use super::{Control, ControlError, MemberChange, MemberStatus, OnceKey, Promoted};
use crate::cluster::{Epoch, NodeId};
use crate::config::Config;
use crate::engine::BoxFuture;
use crate::engine::replication::Stream;

/// Says what the configuration says. What was done once is kept in the primary's `data_dir`: nobody
/// else will ever be asked.
pub(crate) struct FixedControl {
    members: Vec<MemberStatus>,
    keys: Arc<Keys>,
    /// To the primary, if there are other nodes.
    forwarder: Option<Forwarder>,
}

impl FixedControl {
    pub(crate) fn new(config: &Config, forwarder: Option<Forwarder>) -> Self {
        let member = |(node, address): &(NodeId, _)| MemberStatus {
            node: node.clone(),
            witness: config.cluster.witnesses.contains(node),
            address: Clone::clone(address),
            voter: true,
            generation: 0,
        };
        let members = config.cluster.peers.iter().map(member).collect();
        Self { members, keys: Arc::new(Keys::new(&config.data_dir)), forwarder }
    }

    fn not_elected<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, ControlError>> {
        let alone = self.members.len() < 2;
        Box::pin(async move { Err(ControlError::NotElected { alone }) })
    }
}

impl Control for FixedControl {
    fn promote(
        &self,
        _node: Option<NodeId>,
        _force: bool,
    ) -> BoxFuture<'_, Result<Promoted, ControlError>> {
        self.not_elected()
    }

    fn members(&self) -> Result<Vec<MemberStatus>, ControlError> {
        Ok(self.members.clone())
    }

    fn change_members(&self, _change: MemberChange) -> BoxFuture<'_, Result<(), ControlError>> {
        self.not_elected()
    }

    fn forward(&self, command: ForwardedCommand) -> BoxFuture<'_, Result<Stream, ControlError>> {
        match &self.forwarder {
            Some(forwarder) => Box::pin(forwarder.give(command)),
            None => self.not_elected(),
        }
    }

    fn was_done(&self, key: OnceKey) -> BoxFuture<'_, Result<bool, ControlError>> {
        let keys = self.keys.clone();
        Box::pin(blocking(move || keys.contains(&key)))
    }

    fn remember(&self, key: OnceKey, _epoch: Epoch) -> BoxFuture<'_, Result<(), ControlError>> {
        let keys = self.keys.clone();
        Box::pin(blocking(move || keys.add(key)))
    }
}

/// Off the control thread: a disk may be slow.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ControlError> {
    let failed = |why: io::Error| ControlError::Failed(why.to_string());
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|gone| failed(io::Error::other(gone)))?.map_err(failed)
}
