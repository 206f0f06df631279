//! The node's end: has the process started, and its will kept up to date.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{LastWill, estate};
use crate::cluster::NodeId;
use crate::config::PeerTls;
use crate::election::raft::Raft;
use crate::election::table::Life;
use crate::process::guard::Tally;

/// What is said when there will be nobody to tell the others.
const WITHOUT: &str = "should this node's process die, the others will notice by its lease only";

/// Dropping it ends the process, which then tells nobody: the node has stopped in order.
pub(crate) struct Testator {
    /// First, so that it is killed before the pipe can end.
    process: Child,
    tally: Tally,
}

/// What a will is made of, but for what changes.
pub(crate) struct Inputs {
    pub(crate) node: NodeId,
    pub(crate) life: Life,
    pub(crate) tls: Option<PeerTls>,
    pub(crate) ttl: Duration,
    pub(crate) raft: Raft,
}

impl Testator {
    /// Starts the process. `program` is a `litepilot`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub(crate) fn start(program: &Path) -> io::Result<Self> {
        let (tally, pipe) = Tally::new()?;
        let mut command = Command::new(program);
        command.arg0("litepilot").arg("last-will");
        // A terminal's Ctrl-C is not for it.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::from(pipe)).stdout(Stdio::null());
        Ok(Self { process: command.spawn()?, tally })
    }

    /// Where this node's guards are counted.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Keeps the will up to date. `certificates` change when they were read anew.
    pub(crate) async fn keep(mut self, inputs: Inputs, mut certificates: watch::Receiver<()>) {
        let (mut leadership, mut peers) = (inputs.raft.leadership(), inputs.raft.peers());
        loop {
            let will = LastWill {
                node: inputs.node.clone(),
                life: inputs.life.clone(),
                term: leadership.borrow_and_update().term,
                members: peers.borrow_and_update().values().cloned().collect(),
                tls: inputs.tls.clone(),
                ttl_ms: inputs.ttl.as_millis() as u64,
            };
            let line = estate::line(&will).map_err(io::Error::from);
            if let Err(why) = line.and_then(|line| self.tally.write(&line)) {
                tracing::warn!(%why, "cannot write this node's last will: {WITHOUT}");
            }
            tokio::select! {
                ended = self.process.wait() => {
                    let how = ended.map_or_else(|why| why.to_string(), |how| how.to_string());
                    return tracing::warn!("the process with this node's last will has ended ({how}): {WITHOUT}");
                }
                Ok(()) = leadership.changed() => {}
                Ok(()) = peers.changed() => {}
                Ok(()) = certificates.changed() => {}
            }
        }
    }
}
