//! `litepilot recover`

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::config::Config;
use crate::election::raft::{Member, Recovery};
use crate::peer::{self, Credentials, DialError, Dialer, Times};
use crate::tls::Identity;

/// For another node to answer.
const PATIENCE: Duration = Duration::from_secs(3);

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let recovered = match runtime {
        Ok(runtime) => runtime.block_on(recover(&config, args.yes)),
        Err(why) => Err(format!("cannot start: {why}")),
    };
    match recovered {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("not recovered: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn recover(config: &Config, yes: bool) -> Result<(), String> {
    let recovery = Recovery::read(&config.data_dir.join("raft"), &config.node)
        .map_err(|why| format!("{why}. Stop this node first, if it runs"))?;
    if let Some(node) = somebody_there(config, recovery.others()).await? {
        return Err(format!(
            "{node} answers at its peer port. While others live there may be a majority, or one can be \
             had by starting them; if it is to be given up all the same, stop it first"
        ));
    }
    eprintln!("{RISK}");
    if !yes && !confirmed(config) {
        return Err("it was not confirmed".to_owned());
    }
    recovery.make().await.map_err(|why| why.to_string())?;
    let node = &config.node;
    println!("{node} is a cluster of its own: start it, and add the others, wiped, one by one");
    Ok(())
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

/// A node that is there, whatever it answers, at its configured address or the one agreed upon.
async fn somebody_there(config: &Config, others: &[Member]) -> Result<Option<String>, String> {
    let agreed = others.iter().filter_map(|member| Some((member.name.clone(), member.address()?)));
    for (node, at) in agreed.chain(config.cluster.peers.iter().cloned()) {
        let dialer = dialer(config, &[(node.clone(), at)])?;
        if node == config.node {
            continue;
        }
        match dialer.dial_now(&node, peer::RAFT).await {
            Err(DialError::Net(_) | DialError::Greeting(_) | DialError::Unknown(_)) => {}
            Ok(_) | Err(_) => return Ok(Some(node.to_string())),
        }
    }
    Ok(None)
}

fn dialer(
    config: &Config,
    peers: &[(crate::cluster::NodeId, crate::config::HostPort)],
) -> Result<Dialer, String> {
    let times = Times { connect: PATIENCE, greeting: PATIENCE, unacknowledged: PATIENCE };
    let mut dialer = Dialer::new(config.node.clone(), peers, times);
    if let Some(files) = &config.cluster.tls {
        let identity = Identity::read(files, &config.node).map_err(|faults| {
            let faults: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
            format!("cluster.tls: {}", faults.join("; "))
        })?;
        let credentials = Credentials::new(config.node.clone(), &identity);
        dialer.secure(Arc::new(credentials.map_err(|error| error.to_string())?));
    }
    Ok(dialer)
}
