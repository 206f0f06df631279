//! `litepilot on-primary`

mod command;
mod forward;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, anyhow};
use clap::Args;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::ask;
use crate::admin::client::{AskError, Node};
use crate::admin::conversation::Conversation;
use crate::admin::on_primary::{DONE, FAILED, Notice};
use crate::cluster::NodeId;
use crate::control::OnceKey;
use crate::yaml::value::parse_duration;
use command::{Running, Signals, exit_code};

/// How often a node that cannot be reached is tried.
const PAUSE: Duration = Duration::from_millis(250);
/// For the node to note an outcome, which may take an agreement with others.
const NOTING: Duration = Duration::from_secs(30);

/// The arguments of `litepilot on-primary`.
#[derive(Args)]
pub(crate) struct OnPrimaryArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// Not again after it succeeded under this key, e.g. a release's number
    #[arg(long, value_name = "KEY")]
    once: Option<OnceKey>,
    /// How long to wait for there to be a primary, and for this node to start
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
    /// If another node is the primary: run it there, as its app.user, if admin.allow_forwarded_commands is set
    /// there
    #[arg(long)]
    forward: bool,
    /// What to run; no shell
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Where the command is to run.
enum Verdict {
    Here(Conversation),
    Elsewhere(NodeId),
    AlreadyDone,
}

/// Runs it. What it says itself goes to standard error: standard output is the command's.
pub(crate) fn main(args: OnPrimaryArgs) -> ExitCode {
    ask::run_as_operator(&args.node, async |node| {
        let mut signals = Signals::take().context("cannot wait for signals")?;
        let verdict = tokio::select! {
            verdict = Wait::new(node, &args).verdict() => verdict?,
            // Nothing runs yet that it could be passed on to.
            signal = signals.next() => return Ok(ended_by(signal)),
        };
        match verdict {
            Verdict::Here(turn) => run(turn, &args, &mut signals).await,
            Verdict::Elsewhere(primary) if args.forward => {
                tokio::select! {
                    ended = forward::run(node, &primary, &args) => ended,
                    // The command ends with the connection.
                    signal = signals.next() => Ok(ended_by(signal)),
                }
            }
            Verdict::Elsewhere(primary) => {
                say(format_args!(
                    "{primary} is the primary: there is nothing to do here; give it there, or with --forward"
                ));
                Ok(ExitCode::SUCCESS)
            }
            Verdict::AlreadyDone => {
                say("done before, under this key: there is nothing to do");
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Waiting for a verdict.
struct Wait<'a> {
    node: &'a Node,
    args: &'a OnPrimaryArgs,
    deadline: Instant,
    /// What was said last.
    said: Option<String>,
}

impl<'a> Wait<'a> {
    fn new(node: &'a Node, args: &'a OnPrimaryArgs) -> Self {
        Self { node, args, deadline: Instant::now() + args.wait, said: None }
    }

    /// Asks until the node knows.
    async fn verdict(mut self) -> anyhow::Result<Verdict> {
        loop {
            let error = match self.ask().await {
                Ok(verdict) => return Ok(verdict),
                Err(error) => error,
            };
            if !error.passing || Instant::now() >= self.deadline {
                return Err(error.into());
            }
            self.say_once(format!("waiting: {}", error.message));
            sleep_until(self.deadline.min(Instant::now() + PAUSE)).await;
        }
    }

    async fn ask(&mut self) -> Result<Verdict, AskError> {
        let mut turn = Conversation::begin(self.node, self.args.once.as_ref()).await?;
        let mut notice = turn.next().await?;
        loop {
            notice = match notice {
                Notice::Granted { .. } => return Ok(Verdict::Here(turn)),
                Notice::Elsewhere { node } => return Ok(Verdict::Elsewhere(node)),
                Notice::AlreadyDone => return Ok(Verdict::AlreadyDone),
                Notice::NoPrimary => {
                    self.say_once("waiting for a primary that takes writes".to_owned());
                    let next = timeout_at(self.deadline, turn.next()).await;
                    next.unwrap_or_else(|_| Err(self.in_vain()))?
                }
                Notice::Queued => {
                    self.say_once("waiting for another command to end".to_owned());
                    let next = turn.next().await;
                    // That took as long as it took.
                    self.deadline = Instant::now() + self.args.wait;
                    next?
                }
                Notice::Failed { detail } => return Err(AskError::lasting(detail)),
                Notice::Over | Notice::Finished => {
                    return Err(AskError::lasting(format!("the node answered {notice:?}")));
                }
            };
        }
    }

    fn in_vain(&self) -> AskError {
        AskError::lasting(format!(
            "no primary took writes within {:?}: `litepilot status` shows the nodes, --wait waits longer",
            self.args.wait
        ))
    }

    fn say_once(&mut self, what: String) {
        if self.said.as_ref() != Some(&what) {
            say(&what);
            self.said = Some(what);
        }
    }
}

/// Runs the command while it has its turn.
async fn run(
    mut turn: Conversation,
    args: &OnPrimaryArgs,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let inherited = turn.inheritable().context("cannot run a command")?;
    let started = Running::start(&args.command);
    drop(inherited);
    let mut running = match started {
        Ok(running) => running,
        Err(why) => {
            let _ = settle(turn, FAILED).await;
            return Err(why);
        }
    };
    let mut end = std::pin::pin!(running.end(signals));
    let (status, lost) = tokio::select! {
        status = &mut end => (status, None),
        told = turn.next() => {
            let lost = lost_turn(told);
            say(format_args!("{lost}; the command runs on"));
            (end.await, Some(lost))
        }
    };
    let status = status.context("how the command ended cannot be learned")?;
    let code = exit_code(status);
    let outcome = if code == 0 && lost.is_none() { DONE } else { FAILED };
    let settled = settle(turn, outcome).await;
    if code != 0 {
        return Ok(ExitCode::from(code));
    }
    match (lost, settled) {
        (None, Ok(())) => Ok(ExitCode::SUCCESS),
        (Some(why), _) | (None, Err(why)) => {
            Err(why.context("the command exited with 0, but counts as failed"))
        }
    }
}

/// Tells the node how the command ended, and waits until that is noted.
async fn settle(mut turn: Conversation, outcome: &'static str) -> anyhow::Result<()> {
    turn.conclude(outcome);
    match timeout(NOTING, turn.next()).await {
        Ok(Ok(Notice::Finished)) => Ok(()),
        Ok(Ok(Notice::Failed { detail })) => Err(Error::msg(detail)),
        Ok(told) => Err(lost_turn(told)),
        Err(_) => Err(anyhow!("the node has not noted that within {NOTING:?}")),
    }
}

/// Why the turn is lost.
fn lost_turn(told: Result<Notice, AskError>) -> Error {
    match told {
        Ok(Notice::Over) => {
            anyhow!(
                "this node is not the primary any more; what is written after that fails or is lost"
            )
        }
        Ok(notice) => anyhow!("the node answered {notice:?}"),
        Err(why) => anyhow!("{why}; whether it is still the primary is not known"),
    }
}

fn ended_by(signal: Signal) -> ExitCode {
    let number = u8::try_from(signal.as_raw()).unwrap_or(0);
    ExitCode::from(128 + number)
}

fn say(what: impl std::fmt::Display) {
    eprintln!("litepilot on-primary: {what}");
}
