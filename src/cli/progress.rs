//! `litepilot members add` and `replace`: asked for until it is done, while it says how far it is.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep, sleep_until};

use crate::admin::change::Members;
use crate::admin::client::{AskError, Node};
use crate::cluster::NodeId;
use crate::status::{Member, Status};

/// Between two looks, and before it is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Has a change made that brings `node`, within `limit`.
///
/// # Errors
///
/// Why that cannot be, or what it still waits for.
pub(crate) async fn bring(
    asked: &Node,
    node: &NodeId,
    limit: Duration,
    change: impl AsyncFn() -> Result<Members, AskError>,
) -> anyhow::Result<Members> {
    let end = Instant::now() + limit;
    let changing = async {
        loop {
            match change().await {
                Err(why) if why.passing => sleep(PAUSE).await,
                made => return made,
            }
        }
    };
    tokio::select! {
        made = changing => Ok(made?),
        () = tell(asked, node) => Err(anyhow!("nobody tells how far it is")),
        () = sleep_until(end) => Err(anyhow!(
            "{node} does not vote yet: give the same command again, it goes on from there"
        )),
    }
}

/// Says how far it is whenever that changes. Never ends.
async fn tell(asked: &Node, node: &NodeId) {
    let mut told = String::new();
    loop {
        sleep(PAUSE).await;
        // It is only told; what goes wrong the change itself says.
        let Ok(status) = asked.status().await else { continue };
        let text = progress(&status, node);
        if text != told {
            eprintln!("{text}");
            told = text;
        }
    }
}

fn progress(status: &Status, node: &NodeId) -> String {
    let find = |name: &NodeId| status.nodes.iter().find(|member| member.node == *name);
    let held = |member: &Member| member.position.map(|position| position.to_string());
    match find(node) {
        None => format!("{node} is not listed yet"),
        Some(member) if !member.reachable => {
            format!("{node} is not reachable yet: start it, with an empty data_dir")
        }
        Some(member) => {
            let goal = status.primary.as_ref().and_then(|primary| find(&primary.node));
            let known = |member: Option<&Member>| member.and_then(held).unwrap_or("-".to_owned());
            format!("{node} has {} of {}, and no vote yet", known(Some(member)), known(goal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;

    #[test]
    fn it_says_what_is_waited_for() {
        let (mut status, node) = (example(), "node-1".parse().unwrap());
        let there = "node-1 has 3/000000000000002a of 3/000000000000002a, and no vote yet";
        assert_eq!(progress(&status, &node), there);
        status.nodes[0].reachable = false;
        assert!(progress(&status, &node).contains("not reachable yet: start it"));
        assert!(progress(&status, &"x".parse().unwrap()).contains("not listed"));
    }
}
