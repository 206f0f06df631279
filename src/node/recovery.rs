//! Before a node becomes a cluster of its own: whether it may.

use std::time::Duration;

use anyhow::anyhow;

use crate::config::Config;
use crate::election::raft::{Member, Recovery};
use crate::peer::{self, DialError, Times, outside};

/// For another node to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads what the node knows, which must not run; changes nothing.
///
/// # Errors
///
/// Why it may not: above all because another member is there.
pub(crate) async fn prepare(config: &Config) -> anyhow::Result<Recovery> {
    let recovery = Recovery::read(&config.data_dir.join("raft"), &config.node)
        .map_err(|why| anyhow!("{why}. Stop this node first, if it runs"))?;
    match somebody_there(config, recovery.others()).await? {
        None => Ok(recovery),
        Some(node) => Err(anyhow!(
            "{node} answers at its peer port. While others live there may be a majority, or one can \
             be had by starting them; if it is to be given up all the same, stop it first"
        )),
    }
}

/// A member that is there, whatever it answers, at its configured address or the one agreed upon.
async fn somebody_there(config: &Config, others: &[Member]) -> anyhow::Result<Option<String>> {
    let agreed = others.iter().filter_map(|member| Some((member.name.clone(), member.address()?)));
    let configured = config.cluster.peers.iter().filter(|(node, _)| *node != config.node);
    let times = Times { connect: PATIENCE, greeting: PATIENCE, unacknowledged: PATIENCE };
    for (node, at) in agreed.chain(configured.cloned()) {
        let tls = config.cluster.tls.as_ref();
        let dialer = outside::dialer(&config.node, &[(node.clone(), at)], times, tls)?;
        match dialer.dial_now(&node, peer::RAFT).await {
            Err(DialError::Net(_) | DialError::Greeting(_) | DialError::Unknown(_)) => {}
            Ok(_) | Err(_) => return Ok(Some(node.to_string())),
        }
    }
    Ok(None)
}
