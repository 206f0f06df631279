//! Gives a command to the primary, from a node that is not.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::ControlError;
use super::command::ForwardedCommand;
use crate::cluster::{ClusterView, NodeId};
use crate::engine::replication::{Dial, Stream};
use crate::lines::json_line;
use crate::peer;

pub(crate) struct Forwarder {
    pub(crate) own: NodeId,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) view: watch::Receiver<ClusterView>,
}

impl Forwarder {
    /// A connection by which the primary says what becomes of the command.
    ///
    /// # Errors
    ///
    /// When there is no other primary, or it cannot be reached.
    pub(crate) async fn give(&self, command: ForwardedCommand) -> Result<Stream, ControlError> {
        let primary = self.view.borrow().primary.clone().ok_or(ControlError::NoPrimary)?.node;
        if primary == self.own {
            let why = "this node has become the primary: give the command again";
            return Err(ControlError::Refused(why.to_owned()));
        }
        let unreachable = |why: io::Error| ControlError::Unreachable {
            node: primary.clone(),
            why: why.to_string(),
        };
        let mut stream = self.dial.dial(&primary, peer::COMMANDS).await.map_err(unreachable)?;
        let say = async {
            stream.write_all(&json_line(&command)?).await?;
            stream.flush().await
        };
        say.await.map_err(unreachable)?;
        Ok(stream)
    }
}
