//! `litepilot recover`

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::config::Config;
use crate::node::recovery;

/// What it may cost.
const RISK: &str = "\
This node becomes a cluster of its own, because more than half of the voters are lost for good. Whatever they
had acknowledged and this node had not received is lost. Those nodes must never start again as they are: two
of them would be a cluster, too, and take writes. Wipe their data_dir and their database; then each comes back
by `litepilot members add NODE=HOST:PORT`, asked of this node once it runs.";

/// The arguments of `litepilot recover`.
#[derive(Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
    /// You have read what it may cost: nothing is asked
    #[arg(long)]
    yes: bool,
}

/// Runs it.
pub(crate) fn main(args: &RecoverArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    super::finish(super::block_on(recover(&config, args.yes)).context("not recovered"))
}

async fn recover(config: &Config, yes: bool) -> anyhow::Result<ExitCode> {
    let recovery = recovery::prepare(config).await?;
    eprintln!("{RISK}");
    if !yes && !confirmed(config) {
        bail!("it was not confirmed");
    }
    recovery.make().await?;
    let node = &config.node;
    println!("{node} is a cluster of its own: start it, and add the others, wiped, one by one");
    Ok(ExitCode::SUCCESS)
}

/// Whether an operator at a terminal types the node's name.
fn confirmed(config: &Config) -> bool {
    if !io::stdin().is_terminal() {
        eprintln!("There is no terminal to ask at: confirm it with --yes");
        return false;
    }
    eprint!("Type the name of this node to go on: ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == config.node.as_str()
}
