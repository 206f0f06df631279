//! `litepilot primary`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::admin_client::{self, Failure, Node};
use crate::telemetry::clock::parse_duration;

/// How often a node is asked while there is no primary.
const PAUSE: Duration = Duration::from_millis(250);

/// The arguments of `litepilot primary`.
#[derive(Args)]
pub struct PrimaryArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// How long to wait for there to be a primary, e.g. 30s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    wait: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a number with a unit: 250ms, 30s, 5m".to_owned())
}

/// Runs it.
pub fn main(args: PrimaryArgs) -> ExitCode {
    admin_client::run(async {
        let node = Node::from_args(&args.node)?;
        // `None`: later than the clock can tell, which is for good.
        let deadline = Instant::now().checked_add(args.wait);
        loop {
            let outcome = ask(&node).await;
            let next = Instant::now() + PAUSE;
            if outcome.is_ok() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return outcome;
            }
            // A node that cannot be reached yet is waited for too: it may be starting.
            sleep_until(deadline.map_or(next, |deadline| next.min(deadline))).await;
        }
    })
}

async fn ask(node: &Node) -> Result<ExitCode, Failure> {
    match node.status().await?.1.primary {
        Some(primary) => {
            println!("{}", primary.node);
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Failure::new("there is no primary now; --wait 30s waits for one")),
    }
}
