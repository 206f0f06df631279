//! The nodes' processes: started, watched, ended.

use std::fs::{self, File};
use std::future::poll_fn;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Error};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::sleep;

use super::plan::Plan;
use crate::admin::token;
use crate::cluster::NodeId;
use crate::config::Config;

/// Nodes that are told to stop have this long, twice what their configuration allows them.
const GRACE: Duration = Duration::from_secs(10);
/// So much of a log is shown when its node did not start.
const LAST_LINES: usize = 5;

/// Where the nodes' logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    /// To a file each.
    Files,
    /// To our standard error.
    Stderr,
}

/// The nodes. Dropping it kills them.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
}

/// A node that was started.
pub(crate) struct Node {
    pub(crate) plan: Plan,
    /// For what changes state through its admin port.
    pub(crate) token: String,
    /// Its process id, which may be somebody else's once it has ended.
    pub(crate) pid: u32,
    process: Option<Child>,
    /// It stops when this is closed, however that comes.
    _lifeline: Option<ChildStdin>,
}

/// How a node ended.
#[derive(Debug)]
pub(crate) struct End {
    plan: Plan,
    how: String,
    /// Nodes that run still, of so many.
    left: (usize, usize),
}

impl Cluster {
    /// Starts a node for each plan.
    ///
    /// # Errors
    ///
    /// When a file cannot be written or a process not be started. Those that were are killed.
    pub(crate) fn start(plans: &[Plan], logs: Logs) -> anyhow::Result<Self> {
        let program = this_program()?;
        let failed = |plan: &Plan| format!("cannot start {}", plan.node);
        let prepare = |plan| prepare(plan, plans).with_context(|| failed(plan));
        let tokens = plans.iter().map(prepare).collect::<anyhow::Result<Vec<_>>>()?;
        let spawn =
            |(plan, token)| spawn(&program, plan, token, logs).with_context(|| failed(plan));
        let nodes = plans.iter().zip(tokens).map(spawn).collect::<anyhow::Result<_>>()?;
        Ok(Self { nodes })
    }

    /// The nodes, ended ones too.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns when a node ends; never if none is left.
    pub(crate) async fn next_end(&mut self) -> End {
        let all = self.nodes.len();
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        poll_fn(|context| {
            for node in &mut self.nodes {
                let Some(process) = &mut node.process else { continue };
                let polled = pin!(process.wait()).poll(context);
                if let Poll::Ready(status) = polled {
                    node.process = None;
                    let (plan, how) = (node.plan.clone(), describe(status));
                    return Poll::Ready(End { plan, how, left: (running - 1, all) });
                }
            }
            Poll::Pending
        })
        .await
    }

    /// SIGTERM to every node, SIGKILL to those left after a grace, or once `hurry` is ready. Returns
    /// when all are gone.
    pub(crate) async fn stop(&mut self, hurry: impl Future<Output = ()>) {
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            let pid = i32::try_from(node.pid).ok().and_then(Pid::from_raw);
            // It is not reaped yet, so the number is still its own.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        tokio::select! {
            () = self.all_ended() => return,
            () = sleep(GRACE) => eprintln!("killing the nodes that did not stop within {GRACE:?}"),
            () = hurry => {}
        }
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                // An error means that it has just ended.
                let _ = process.start_kill();
            }
        }
        self.all_ended().await;
    }

    async fn all_ended(&mut self) {
        while self.nodes.iter().any(|node| node.process.is_some()) {
            self.next_end().await;
        }
    }

    /// The nodes that run although ours have ended: the user has started them again.
    pub(crate) async fn taken_over(&self) -> Vec<&Plan> {
        let mut found = Vec::new();
        for node in self.nodes.iter().filter(|node| node.process.is_none()) {
            if TcpStream::connect(node.plan.admin).await.is_ok() {
                found.push(&node.plan);
            }
        }
        found
    }
}

impl End {
    /// What happened, what that means and what can be done, for people.
    pub(crate) fn report(&self) -> String {
        let node = &self.plan.node;
        let meaning = match self.left {
            (left, all) if left > all / 2 => {
                "the others go on, with another primary if it was that"
            }
            _ => "the others are no majority: there are reads and no writes until one is back",
        };
        format!(
            "{node} ended ({}); {meaning}; restart it with: litepilot run -c {}",
            self.how,
            shell_word(&self.plan.config())
        )
    }

    /// Why the cluster does not start.
    pub(crate) fn failure(&self) -> String {
        let log = fs::read_to_string(self.plan.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("{} ended ({}) while it started\n{}", self.plan.node, self.how, last.join("\n"))
    }
}

fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program")
}

/// Writes what a node needs to start; gives its admin token.
fn prepare(plan: &Plan, all: &[Plan]) -> anyhow::Result<String> {
    fs::create_dir_all(&plan.dir)?;
    fs::create_dir_all(plan.mount())?;
    let yaml = plan.yaml(all)?;
    let file = plan.config();
    fs::write(&file, &yaml)?;
    let config = Config::from_yaml(&file.display().to_string(), yaml.as_bytes(), &|_| None);
    let config = config.map_err(|problems| {
        Error::msg(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    token::load_or_create(&config)?;
    let token = fs::read_to_string(plan.dir.join(token::FILE))?;
    Ok(token.trim().to_owned())
}

/// In a process group of its own: a terminal's Ctrl-C reaches it through us only.
fn spawn(program: &Path, plan: &Plan, token: String, logs: Logs) -> io::Result<Node> {
    let mut command = Command::new(program);
    command.args(["run", "--until-stdin-ends", "-c"]).arg(plan.config());
    command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null());
    match logs {
        Logs::Files => command.stderr(File::create(plan.log())?),
        Logs::Stderr => command.stderr(Stdio::piped()),
    };
    let mut process = command.spawn()?;
    if let Some(stderr) = process.stderr.take() {
        tokio::spawn(pass_on(plan.node.clone(), stderr));
    }
    let pid = process.id().ok_or_else(|| io::Error::other("it has no process id"))?;
    // Taken out: waiting for the process would close it.
    let _lifeline = process.stdin.take();
    Ok(Node { plan: plan.clone(), token, pid, process: Some(process), _lifeline })
}

/// A node's log, line by line, under its name. The node bounds its lines.
async fn pass_on(node: NodeId, log: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(log).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        eprintln!("{node}: {}", String::from_utf8_lossy(&line));
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Err(why) => why.to_string(),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => status.to_string(),
        },
    }
}

/// As a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_a_shell() {
        assert_eq!(shell_word(Path::new("/tmp/a-1/b.yml")), "/tmp/a-1/b.yml");
        assert_eq!(shell_word(Path::new("/tmp/it's $HOME")), r"'/tmp/it'\''s $HOME'");
    }
}
