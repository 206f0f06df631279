//! `litepilot primary`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::ask;
use crate::admin::client::Node;
use crate::yaml::value::parse_duration;

/// How often a node is asked while there is no primary.
const PAUSE: Duration = Duration::from_millis(250);

/// The arguments of `litepilot primary`.
#[derive(Args)]
pub(crate) struct PrimaryArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// How long to wait for there to be a primary, e.g. 30s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    wait: Duration,
}

/// Runs it.
pub(crate) fn main(args: PrimaryArgs) -> ExitCode {
    ask::run(&args.node, async |node| {
        let deadline = Instant::now() + args.wait;
        loop {
            let outcome = ask(node).await;
            if outcome.is_ok() || Instant::now() >= deadline {
                return outcome;
            }
            // A node that cannot be reached yet is waited for too: it may be starting.
            sleep_until(deadline.min(Instant::now() + PAUSE)).await;
        }
    })
}

async fn ask(node: &Node) -> anyhow::Result<ExitCode> {
    let primary = node.status().await?.primary;
    let primary = primary.context("there is no primary now; --wait 30s waits for one")?;
    super::print(primary.node.as_str())
}
