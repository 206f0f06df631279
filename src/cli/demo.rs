//! `litepilot demo`, and the guestbook that its nodes start.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, anyhow, bail};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Target;
use crate::demo::cluster::{Cluster, Logs, Node};
use crate::demo::plan::{self, ADMIN_OFFSET, App, Engine, HIGHEST_PORT, MOST_NODES, Plan};
use crate::demo::reserve::{self, Reserved};
use crate::demo::scratch::Scratch;
use crate::demo::{guestbook, ready};
use crate::litefs::{mount, preflight};

/// How many nodes there are unless something says otherwise.
const NODES: u16 = 3;

/// The arguments of `litepilot demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How many nodes [default: 3, or one for each --target]
    #[arg(long, value_parser = up_to(MOST_NODES))]
    nodes: Option<u16>,
    /// The first node's port; the others follow, and the admin ports are 1000 higher
    #[arg(long, default_value_t = 8080, value_parser = up_to(HIGHEST_PORT))]
    port: u16,
    /// Instead of the guestbook, an application that already runs; once for each node
    #[arg(long, value_name = "HOST:PORT", num_args = 1..)]
    target: Vec<Target>,
    /// The directory of that application's database; once for each --target
    #[arg(long, value_name = "DIR", num_args = 1.., value_parser = directory)]
    mount: Vec<PathBuf>,
    /// The name of the database in each --mount
    #[arg(long, value_name = "NAME", default_value = "db.sqlite3", requires = "target")]
    db: PathBuf,
    /// What keeps the databases [default: LiteFS if this machine has it, else embedded]
    #[arg(long, value_enum)]
    engine: Option<EngineArg>,
    /// The LiteFS to use, instead of the one in PATH
    #[arg(long, value_name = "FILE", default_value = "litefs")]
    litefs: PathBuf,
    /// Print the nodes as one line of JSON
    #[arg(long)]
    json: bool,
    /// Print the nodes' logs on standard error
    #[arg(long)]
    verbose: bool,
}

/// The engines of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EngineArg {
    /// LiteFS
    Litefs,
    /// Plain directories
    Embedded,
}

/// The arguments of `litepilot demo-app`.
#[derive(Args)]
pub(crate) struct DemoAppArgs {
    /// The Unix socket to serve at
    #[arg(long)]
    socket: PathBuf,
    /// The database
    #[arg(long)]
    db: PathBuf,
}

fn up_to(most: u16) -> RangedU64ValueParser<u16> {
    RangedU64ValueParser::new().range(1..=u64::from(most))
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let dir = Path::new(text).canonicalize().map_err(|why| why.to_string())?;
    if dir.is_dir() { Ok(dir) } else { Err("name a directory, not a file".to_owned()) }
}

/// Runs it, until it is told to stop.
pub(crate) fn main(args: DemoArgs) -> ExitCode {
    let apps = match args.apps() {
        Ok(apps) => apps,
        Err(why) => {
            eprintln!("error: {why}\n\nFor more information, try 'litepilot demo --help'.");
            return ExitCode::from(super::EXIT_USAGE);
        }
    };
    done(super::block_on(run(&args, apps)))
}

/// Runs the guestbook.
pub(crate) fn app(args: &DemoAppArgs) -> ExitCode {
    done(guestbook::run(&args.socket, &args.db).map_err(Error::new))
}

fn done(work: anyhow::Result<()>) -> ExitCode {
    super::finish(work.map(|()| ExitCode::SUCCESS))
}

impl DemoArgs {
    /// One application for each node, or what is wrong with the arguments together.
    fn apps(&self) -> anyhow::Result<Vec<App>> {
        let (targets, mounts) = (self.target.len(), self.mount.len());
        let nodes =
            self.nodes.map_or(if targets > 0 { targets } else { NODES.into() }, usize::from);
        if targets == 0 && mounts == 0 {
            let program = std::env::current_exe()?;
            return Ok(vec![App::Guestbook(program); nodes]);
        }
        if nodes > usize::from(MOST_NODES) {
            bail!("{nodes} nodes are too many: {MOST_NODES} at most");
        }
        for (option, given) in [("--target", targets), ("--mount", mounts)] {
            if given != nodes {
                bail!("{nodes} nodes need {option} {nodes} times, not {given} times");
            }
        }
        let mut shared = repeated(&self.target).map(|target| ("--target", target.to_string()));
        shared = shared.or(repeated(&self.mount).map(|dir| ("--mount", dir.display().to_string())));
        if let Some((option, value)) = shared {
            bail!("{option} {value} is given twice: each node needs its own");
        }
        let pairs = self.target.iter().cloned().zip(self.mount.iter().cloned());
        Ok(pairs
            .map(|(target, mount)| App::Running { target, mount, db: self.db.clone() })
            .collect())
    }

    /// The LiteFS to use, if any, and what to say about that.
    fn find_litefs(&self) -> anyhow::Result<(Option<PathBuf>, String)> {
        let own_files = !self.mount.is_empty();
        let found = match self.engine {
            Some(EngineArg::Embedded) => Err("asked for with --engine".to_owned()),
            _ if own_files => Err("the databases of --mount lie in plain directories".to_owned()),
            _ => preflight::available(&self.litefs).map_err(|why| why.to_string()),
        };
        match (found, self.engine) {
            (Ok(binary), _) => {
                let line = format!("engine: LiteFS, {}", binary.display());
                Ok((Some(binary), line))
            }
            (Err(why), Some(EngineArg::Litefs)) => Err(anyhow!("there is no LiteFS here: {why}")),
            (Err(why), _) => {
                Ok((None, format!("engine: embedded, for demos and tests; no LiteFS: {why}")))
            }
        }
    }

    /// Where each node listens. The ports are kept from others as long as the answer's second half.
    fn plans(
        &self,
        apps: Vec<App>,
        dir: &Path,
        litefs: Option<&Path>,
    ) -> anyhow::Result<(Vec<Plan>, Vec<Reserved>)> {
        let (mut plans, mut reserved) = (Vec::new(), Vec::new());
        for (app, number) in apps.into_iter().zip(1..) {
            let (node, port) = (plan::name(number), self.port + number - 1);
            let (kept, proxy) = reserve::asked_for(port, &node)?;
            reserved.push(kept);
            let (kept, admin) =
                reserve::asked_for(port + ADMIN_OFFSET, &format!("{node}'s admin port"))?;
            reserved.push(kept);
            let mut any_port = || {
                let (kept, port) = reserve::port(0).context("there is no free port")?;
                reserved.push(kept);
                anyhow::Ok(port)
            };
            let peer = any_port()?;
            let engine = match litefs {
                Some(binary) => {
                    let binary = binary.to_owned();
                    Engine::Litefs { binary, http: any_port()?, lease: any_port()? }
                }
                None => Engine::Embedded,
            };
            let dir = dir.join(&node);
            let node = node.parse()?;
            plans.push(Plan { node, proxy, admin, peer, dir, app, engine });
        }
        Ok((plans, reserved))
    }
}

/// A value that is there twice.
fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    values.iter().enumerate().find_map(|(i, value)| values[..i].contains(value).then_some(value))
}

async fn run(args: &DemoArgs, apps: Vec<App>) -> anyhow::Result<()> {
    // First, so that nothing is left behind when a signal comes early.
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let scratch = Scratch::new()?;
    let (litefs, engine) = args.find_litefs()?;
    let (plans, _reserved) = args.plans(apps, scratch.path(), litefs.as_deref())?;
    let logs = if args.verbose { Logs::Stderr } else { Logs::Files };
    let mut cluster = Cluster::start(&plans, logs)?;
    eprintln!("{engine}");
    print(&if args.json { as_json(cluster.nodes()) } else { for_people(cluster.nodes()) });
    if logs == Logs::Files {
        eprintln!("logs: {}/*/node.log; Ctrl-C stops everything", scratch.path().display());
    }
    let outcome = attend(&mut cluster, &plans, &mut signals).await;
    cluster.stop(signals.next()).await;
    let others = cluster.taken_over().await;
    for plan in plans.iter().filter(|plan| matches!(plan.engine, Engine::Litefs { .. })) {
        // A node that was killed has left its file system behind.
        if let Err(why) = mount::clear_dead(&plan.mount()) {
            tracing::debug!(%why, "a mount is left");
        }
    }
    for plan in &others {
        eprintln!(
            "{} was started by somebody else and goes on in {}",
            plan.node,
            plan.dir.display()
        );
    }
    if !others.is_empty() {
        scratch.keep();
    }
    outcome
}

/// Says when the cluster serves and when a node ends, until told to stop.
async fn attend(
    cluster: &mut Cluster,
    plans: &[Plan],
    signals: &mut Signals,
) -> anyhow::Result<()> {
    tokio::select! {
        () = ready::wait(plans, |why| eprintln!("{why}")) => print("ready\n"),
        end = cluster.next_end() => bail!(end.failure()),
        () = signals.next() => return Ok(()),
    }
    loop {
        tokio::select! {
            end = cluster.next_end() => eprintln!("{}", end.report()),
            () = signals.next() => return Ok(()),
        }
    }
}

fn for_people(nodes: &[Node]) -> String {
    let mut text = String::new();
    for Node { plan, pid, .. } in nodes {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  http://{}  admin http://{}  pid {pid}",
            plan.node, plan.proxy, plan.admin
        );
    }
    text
}

fn as_json(nodes: &[Node]) -> String {
    let node = |Node { plan, token, pid, .. }: &Node| {
        json!({
            "node": plan.node,
            "url": format!("http://{}", plan.proxy),
            "admin": format!("http://{}", plan.admin),
            "token": token,
            "pid": pid,
            "data_dir": plan.dir,
        })
    };
    let nodes: Vec<_> = nodes.iter().map(node).collect();
    format!("{}\n", json!({ "nodes": nodes }))
}

/// A reader that has gone away is no failure of the cluster.
fn print(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What tells us to stop: SIGTERM, Ctrl-C, or the end of the terminal.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        use SignalKind as Kind;
        Ok(Self([signal(Kind::terminate())?, signal(Kind::interrupt())?, signal(Kind::hangup())?]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hang_up] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}
