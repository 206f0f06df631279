//! `litepilot run`

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::node::{Node, StartError};
use crate::process::init;
use crate::shutdown::Urgency;
use crate::telemetry::log;

/// The arguments of `litepilot run`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
    /// The application, instead of app.command
    #[arg(last = true, value_name = "APP")]
    app: Vec<String>,
}

/// Runs it.
pub fn main(args: RunArgs) -> ExitCode {
    if let Some(code) = init::run_if_pid1() {
        return code;
    }
    let mut config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    if !args.app.is_empty() {
        config.app.command = args.app;
    }
    if let Err(why) = log::init(&config.log) {
        eprintln!("cannot start logging: {why}");
        return ExitCode::FAILURE;
    }
    raise_file_limit();
    let code = run(config);
    log::flush(Duration::from_secs(1));
    code
}

fn run(config: Config) -> ExitCode {
    let node = match Node::start(config) {
        Ok(node) => node,
        Err(StartError::Config(problems)) => return super::refuse(&problems, &mut io::stderr()),
        Err(StartError::Io(why)) => {
            tracing::error!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(why) = obey_signals(&node) {
        tracing::error!(%why, "cannot wait for signals");
        return ExitCode::FAILURE;
    }
    node.wait();
    ExitCode::SUCCESS
}

/// SIGTERM or SIGINT: stop, a second one: at once. SIGHUP: reload. Returns once the node stops.
fn obey_signals(node: &Node) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut urgency = Urgency::Graceful;
        loop {
            tokio::select! {
                () = node.stopped() => return Ok(()),
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {
                    node.reload();
                    continue;
                }
            }
            node.stop(urgency);
            urgency = Urgency::AtOnce;
        }
    })
}

/// Each client may need two files; the usual soft limit of 1,024 would end that early.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(why) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%why, "cannot raise the limit of open files");
    }
}
