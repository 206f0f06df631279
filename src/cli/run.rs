//! `litepilot run`

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::orders::Orders;
use crate::config::{Config, Source, environment};
use crate::node::{Node, StartError, Tuning};
use crate::process::service_manager::{self, Sockets};
use crate::process::{file_limit, guard, init};
use crate::telemetry::log;

/// The arguments of `litepilot run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
    /// The application, instead of app.command
    #[arg(last = true, value_name = "APP")]
    app: Vec<String>,
    /// Stop, too, when standard input, a pipe, ends: whoever started this node is gone
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// Runs it.
pub(crate) fn main(args: RunArgs) -> ExitCode {
    if let Some(code) = init::run_if_pid1() {
        return code;
    }
    // While there is one thread only.
    let sockets = match Sockets::inherit() {
        Ok(sockets) => sockets,
        Err(why) => {
            eprintln!(
                "cannot use the sockets of the service manager: {why}; hand over TCP sockets that listen"
            );
            return ExitCode::FAILURE;
        }
    };
    let loaded = Source::open(args.config.config.as_deref())
        .and_then(|source| source.check(&environment).map(|config| (source, config)));
    let (source, mut config) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return super::refuse(&problems, &mut io::stderr()),
    };
    if !args.app.is_empty() {
        config.app.command = args.app;
    }
    if let Err(why) = log::init(&config.log) {
        eprintln!("cannot start logging: {why}");
        return ExitCode::FAILURE;
    }
    file_limit::raise();
    let code = run(config, source, sockets, args.until_stdin_ends);
    log::flush(Duration::from_secs(1));
    code
}

fn run(config: Config, source: Source, sockets: Sockets, until_stdin_ends: bool) -> ExitCode {
    // Before anybody can know that this node runs, and tell it something.
    let orders = match Orders::take(source) {
        Ok(orders) => orders,
        Err(why) => {
            tracing::error!(%why, "cannot wait for signals");
            return ExitCode::FAILURE;
        }
    };
    let guard = Some(guard::THIS_PROGRAM.into());
    let tuning = Tuning { guard, sockets, ..Tuning::default() };
    let node = match Node::start_with(config, tuning) {
        Ok(node) => node,
        Err(StartError::Config(problems)) => return super::refuse(&problems, &mut io::stderr()),
        Err(StartError::Io(why)) => {
            tracing::error!("{why}");
            return ExitCode::FAILURE;
        }
    };
    service_manager::tell("READY=1");
    if let Err(why) = orders.obey(&node, until_stdin_ends) {
        tracing::error!(%why, "cannot wait for the end of standard input");
        return ExitCode::FAILURE;
    }
    node.wait();
    ExitCode::SUCCESS
}
