//! Whether the cluster serves: every node answers its clients and knows the others, and one of them
//! takes writes.

use std::time::Duration;

use anyhow::{Error, anyhow, bail};
use tokio::time::{Instant, sleep};

use super::plan::Plan;
use crate::admin::client::Node;
use crate::config::{HostPort, Target};
use crate::process::probe::{Probe, ProbeError};
use crate::status::{AppState, Status};

const PAUSE: Duration = Duration::from_millis(50);
/// Whoever waits this long wants to know what for.
const SAY_WHY_AFTER: Duration = Duration::from_secs(5);

/// Returns when it does; tells `say` what is waited for if that takes long.
pub(crate) async fn wait(plans: &[Plan], mut say: impl FnMut(&str)) {
    let (begun, mut said) = (Instant::now(), String::new());
    while let Err(why) = look(plans).await {
        let why = format!("{why:#}");
        if begun.elapsed() >= SAY_WHY_AFTER && why != said {
            say(&format!("still waiting: {why}"));
            said = why;
        }
        sleep(PAUSE).await;
    }
}

/// `Ok`, or what is missing.
async fn look(plans: &[Plan]) -> anyhow::Result<()> {
    let mut takes_writes = false;
    for plan in plans {
        let status = status(plan).await?;
        if status.primary.is_none() {
            bail!("{} hears of no primary", plan.node);
        }
        if let Some(silent) = status.nodes.iter().find(|member| !member.reachable) {
            bail!("{} does not hear {}", plan.node, silent.node);
        }
        if status.app.state != AppState::Up {
            bail!("{} has no application that answers", plan.node);
        }
        takes_writes |= status.writable;
        serves(plan).await?;
    }
    if takes_writes { Ok(()) } else { Err(anyhow!("no node takes writes")) }
}

async fn status(plan: &Plan) -> anyhow::Result<Status> {
    let node: Node = format!("http://{}", plan.admin).parse().map_err(Error::msg)?;
    Ok(node.status().await?)
}

/// Whether a GET reaches the application; an application without a front page has answered, too.
async fn serves(plan: &Plan) -> anyhow::Result<()> {
    let proxy = HostPort { host: plan.proxy.ip().to_string(), port: plan.proxy.port() };
    match Probe::new(Target::Tcp(proxy), Some("/".to_owned())).look().await {
        Ok(()) => Ok(()),
        Err(ProbeError::Status(status, ..)) if !status.is_server_error() => Ok(()),
        Err(why) => {
            Err(Error::new(why).context(format!("{} does not serve its application", plan.node)))
        }
    }
}
