//! `litepilot run`

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::lifeline;
use crate::config::Config;
use crate::node::{Node, StartError, Tuning};
use crate::process::{guard, init};
use crate::shutdown::Urgency;
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
    let code = run(config, args.until_stdin_ends);
    log::flush(Duration::from_secs(1));
    code
}

fn run(config: Config, until_stdin_ends: bool) -> ExitCode {
    // Before anybody can know that this node runs, and tell it to stop.
    let orders = match Orders::take() {
        Ok(orders) => orders,
        Err(why) => {
            tracing::error!(%why, "cannot wait for signals");
            return ExitCode::FAILURE;
        }
    };
    let tuning = Tuning { guard: Some(guard::THIS_PROGRAM.into()), ..Tuning::default() };
    let node = match Node::start_with(config, tuning) {
        Ok(node) => node,
        Err(StartError::Config(problems)) => return super::refuse(&problems, &mut io::stderr()),
        Err(StartError::Io(why)) => {
            tracing::error!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(why) = orders.obey(&node, until_stdin_ends) {
        tracing::error!(%why, "cannot wait for the end of standard input");
        return ExitCode::FAILURE;
    }
    node.wait();
    ExitCode::SUCCESS
}

/// What the node is told from outside.
struct Orders {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Orders {
    /// From now on signals are kept until they are obeyed.
    fn take() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        drop(context);
        Ok(Self { runtime, terminate, interrupt, hang_up })
    }

    /// SIGTERM or SIGINT: stop, a second one: at once. SIGHUP: reload. Returns once the node stops.
    /// With `until_stdin_ends`, that end is as a SIGTERM.
    fn obey(self, node: &Node, until_stdin_ends: bool) -> io::Result<()> {
        let Self { runtime, mut terminate, mut interrupt, mut hang_up } = self;
        runtime.block_on(async {
            let mut alone = std::pin::pin!(left_alone(until_stdin_ends)?);
            let mut urgency = Urgency::Graceful;
            loop {
                tokio::select! {
                    () = node.stopped() => return Ok(()),
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = &mut alone => alone.set(left_alone(false)?),
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
}

/// Ready when standard input ends, if that is waited for.
fn left_alone(wanted: bool) -> io::Result<impl Future<Output = ()>> {
    let end = if wanted { Some(lifeline::stdin_ends()?) } else { None };
    Ok(async move {
        match end {
            Some(end) => end.await,
            None => std::future::pending().await,
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
