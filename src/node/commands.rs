//! Commands that operators give on other nodes, for the primary's machine: `litepilot on-primary
//! --forward`. Such a command has its turn, and counts as done, as one that is given here; it runs as the
//! application does, and ends when whoever gave it goes away.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::context::NodeContext;
use crate::admin::client::Node;
use crate::admin::conversation::Conversation;
use crate::admin::on_primary::{DONE, FAILED, Notice};
use crate::config::Config;
use crate::control::command::{ForwardedCommand, Said};
use crate::lines::{JsonLines, json_line};
use crate::peer::{self, ConnectionLimits, Incoming, Protocol};
use crate::process::guard::Guard;
use crate::process::running::{End, Process};
use crate::process::spawn::{self, Launch};
use crate::telemetry::events::Events;

const LIMITS: ConnectionLimits = ConnectionLimits { per_peer: 8, total: 32 };
/// For the command itself to come.
const ASKING: Duration = Duration::from_secs(10);
/// For its outcome to be noted, which may take an agreement with others.
const NOTING: Duration = Duration::from_secs(30);
/// Bytes of a command.
const MAX_COMMAND: usize = 64 * 1024;
/// Lines ready for whoever gave it; more are left out while that one does not read.
const READY: usize = 4096;

const FORBIDDEN: &str = "its node runs no commands of others: set admin.allow_forwarded_commands: true \
     there, or give the command there";

/// Runs them, if that is allowed here.
struct Commands {
    config: Config,
    guard: Option<Guard>,
    events: Arc<Events>,
}

/// What takes them.
pub(crate) fn protocol(config: &Config, context: &NodeContext) -> Protocol {
    let (guard, events) = (context.guard.clone(), context.events.clone());
    let commands = Arc::new(Commands { config: config.clone(), guard, events });
    let handler = Arc::new(move |incoming: Incoming| {
        let commands = commands.clone();
        tokio::spawn(async move { commands.serve(incoming).await });
    });
    Protocol { name: peer::COMMANDS, limits: LIMITS, handler }
}

impl Commands {
    async fn serve(&self, incoming: Incoming) {
        let from = incoming.node.clone();
        let (reader, writer) = tokio::io::split(incoming.stream);
        let mut reader = BufReader::new(reader);
        let (say, said) = mpsc::channel(READY);
        let work = async {
            let outcome = match timeout(ASKING, read(&mut reader)).await {
                Ok(Ok(asked)) => {
                    let what = asked.command.first().cloned().unwrap_or_default();
                    self.events.record("on-primary", format!("{from} gives a command: {what}"));
                    // It says nothing more: an end means that whoever gave it is gone.
                    tokio::select! {
                        outcome = self.carry_out(&asked, say.clone()) => outcome,
                        _ = reader.read_u8() => return,
                    }
                }
                Ok(Err(why)) => Said::Refused(format!("the command cannot be read: {why}")),
                Err(_) => return,
            };
            let _ = say.send(outcome).await;
            drop(say);
        };
        let _ = tokio::join!(work, speak(writer, said));
    }

    /// From the command to the last word.
    async fn carry_out(&self, asked: &ForwardedCommand, say: mpsc::Sender<Said>) -> Said {
        if !self.config.admin.allow_forwarded_commands {
            return Said::Refused(FORBIDDEN.to_owned());
        }
        let turn = match self.turn(asked, &say).await {
            Ok(turn) => turn,
            Err(said) => return said,
        };
        let left_out = Arc::new(AtomicU64::new(0));
        let launch = self.launch(asked, say.clone(), left_out.clone());
        let process = match spawn::spawn(&launch).await {
            Ok(process) => process,
            Err(why) => return settle(turn, FAILED, Said::Refused(why.to_string())).await,
        };
        let outcome = run(process, turn).await;
        let left_out = left_out.load(Relaxed);
        if left_out > 0 {
            let told = format!("litepilot: {left_out} lines were left out, which came too fast");
            let _ = say.send(Said::Err(told)).await;
        }
        outcome
    }

    /// Waits for its turn on this node, or says why there is none.
    async fn turn(
        &self,
        asked: &ForwardedCommand,
        say: &mpsc::Sender<Said>,
    ) -> Result<Conversation, Said> {
        let refused = |why: &dyn std::fmt::Display| Said::Refused(why.to_string());
        let key = asked.key().map_err(|why| refused(&why))?;
        let node = Node::configured(&self.config);
        let begun = Conversation::begin(&node, key.as_ref()).await;
        let mut turn = begun.map_err(|why| refused(&why.message))?;
        loop {
            let waits = match turn.next().await.map_err(|why| refused(&why.message))? {
                Notice::Granted { .. } => return Ok(turn),
                Notice::AlreadyDone => return Err(Said::AlreadyDone),
                Notice::NoPrimary => "waiting for a primary that takes writes",
                Notice::Queued => "waiting for another command to end",
                Notice::Elsewhere { node } => {
                    return Err(refused(&format!("{node} has become the primary: try again")));
                }
                Notice::Failed { detail } => return Err(Said::Refused(detail)),
                notice => return Err(refused(&format!("the node answered {notice:?}"))),
            };
            let _ = say.send(Said::Waits(waits.to_owned())).await;
        }
    }

    fn launch(
        &self,
        asked: &ForwardedCommand,
        say: mpsc::Sender<Said>,
        left_out: Arc<AtomicU64>,
    ) -> Launch {
        let tell = move |_: &str, stream: &str, line: &str| {
            let line = line.to_owned();
            let said = if stream == "stdout" { Said::Out(line) } else { Said::Err(line) };
            // Never waits: who does not read must not hold up the command.
            if say.try_send(said).is_err() {
                left_out.fetch_add(1, Relaxed);
            }
        };
        Launch {
            name: "forwarded".into(),
            key: "the command",
            command: asked.command.clone(),
            user: self.config.app.user.clone(),
            env: vec![("LITEPILOT_NODE".to_owned(), self.config.node.to_string())],
            log: tell.into(),
            guard: self.guard.clone(),
        }
    }
}

/// Runs it to its end, unless its turn is lost.
async fn run(mut process: Process, mut turn: Conversation) -> Said {
    let lost = tokio::select! {
        _ = process.wait() => None,
        told = turn.next() => Some(told),
    };
    let end = process.end().await;
    if lost.is_some() {
        return Said::Refused("its node is not the primary any more: it was ended".to_owned());
    }
    match end {
        Ok(End::Exited(status)) => {
            let signal = status.signal().map_or(1, |signal| 128 + signal);
            let code = u8::try_from(status.code().unwrap_or(signal)).unwrap_or(1);
            let outcome = if code == 0 { DONE } else { FAILED };
            settle(turn, outcome, Said::Exit(code)).await
        }
        Ok(End::Late) => Said::Refused(End::Late.to_string()),
        Err(why) => Said::Refused(format!("how it ended cannot be learned: {why}")),
    }
}

/// Has the outcome noted, and then says `what`.
async fn settle(mut turn: Conversation, outcome: &'static str, what: Said) -> Said {
    turn.conclude(outcome);
    match timeout(NOTING, turn.next()).await {
        Ok(Ok(Notice::Finished)) => what,
        // That is said whatever was noted.
        _ if what != Said::Exit(0) => what,
        Ok(Ok(Notice::Failed { detail })) => Said::Refused(detail),
        _ => Said::Refused("it exited with 0, and that could not be noted".to_owned()),
    }
}

async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<ForwardedCommand> {
    JsonLines::of_at_most(MAX_COMMAND, reader).more().await
}

async fn speak(
    mut writer: impl AsyncWrite + Unpin,
    mut said: mpsc::Receiver<Said>,
) -> io::Result<()> {
    while let Some(said) = said.recv().await {
        writer.write_all(&json_line(&said)?).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}
