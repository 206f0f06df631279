//! `litepilot promote`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ask;
use crate::cluster::NodeId;
use crate::control::Promoted;
use crate::yaml::value::parse_duration;

/// The arguments of `litepilot promote`.
#[derive(Args)]
pub(crate) struct PromoteArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// The node that is to be primary [default: the one that is asked]
    #[arg(value_name = "NODE")]
    to: Option<NodeId>,
    /// If there is no primary: make that node the primary although others may hold more than it does
    #[arg(long)]
    force: bool,
    /// How long to wait until it takes writes, which it does once its app.on_promote has run
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    wait: Duration,
}

/// Runs it.
pub(crate) fn main(args: PromoteArgs) -> ExitCode {
    let to = args.to.as_ref().map(|node| format!("node={node}"));
    let force = args.force.then(|| "force=true".to_owned());
    let query: Vec<_> = to.into_iter().chain(force).collect();
    let target = format!("/promote?{}", query.join("&"));
    ask::run_as_operator(&args.node, async |node| {
        let answer = node.post(&target, String::new(), args.wait).await?;
        let promoted: Promoted = node.read(&answer)?;
        super::print(&format!("{} is the primary, in epoch {}", promoted.node, promoted.epoch))
    })
}
