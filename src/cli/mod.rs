//! The command line: one short file per subcommand.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::admin::client::Node;
use crate::config::{self, Config};
use crate::yaml::Problem;

mod ask;
mod backup;
mod certs;
mod check;
mod classify;
mod completions;
mod demo;
mod events;
mod guard;
mod hold;
mod host;
mod import;
mod last_will;
mod lifeline;
mod members;
mod on_primary;
mod orders;
mod primary;
mod progress;
mod promote;
mod recover;
mod render_litefs;
mod rules;
mod run;
mod status;

/// Exit code for wrong usage, clap's own.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code for a bad configuration: `EX_CONFIG` of `sysexits.h`.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// A reverse proxy that turns copies of a SQLite web application into one highly available service.
#[derive(Parser)]
#[command(name = "litepilot", version = env!("LITEPILOT_VERSION"), about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node: the proxy, and the application if it is given here or as app.command
    Run(run::RunArgs),
    /// Run a whole cluster on this machine, with a guestbook or in front of running applications
    Demo(demo::DemoArgs),
    /// The guestbook, as started by the nodes of a demo
    #[command(hide = true)]
    DemoApp(demo::DemoAppArgs),
    /// What runs the application for a node, and kills it when the node cannot
    #[command(hide = true)]
    Guard(guard::GuardArgs),
    /// What a guard starts, and what becomes the application
    #[command(hide = true)]
    Guarded(guard::GuardedArgs),
    /// What tells the others that a node's process has died
    #[command(hide = true)]
    LastWill,
    /// What keeps everybody from writing LiteFS' database while the primary changes
    #[command(hide = true)]
    Hold(hold::HoldArgs),
    /// Validate configuration, rules and certificates, and print every problem
    Check(check::CheckArgs),
    /// Print the litefs.yml that LiteFS runs with, its secret included
    RenderLitefs(render_litefs::RenderArgs),
    /// Print a litepilot.yml that does what a litefs.yml did, its proxy included
    Import(import::ImportArgs),
    /// Print what a request would be taken for, and the rule that says so
    Classify(classify::ClassifyArgs),
    /// Print the requests that were found to write, as a rule file
    Rules(rules::RulesArgs),
    /// Show every node's role, position, lag and health
    Status(status::StatusArgs),
    /// Print what has happened lately on a node, and go on with what happens
    Events(events::EventsArgs),
    /// Print the primary's name; exit 1 if there is none
    Primary(primary::PrimaryArgs),
    /// Hand over to a node: it becomes the primary, and nobody sees an error
    Promote(promote::PromoteArgs),
    /// List, add, remove or replace the members of the cluster
    Members(members::MembersArgs),
    /// Make a node that does not run a cluster of its own, when most nodes are lost for good
    Recover(recover::RecoverArgs),
    /// Run a command on the primary only, and one at a time: migrations, scheduled jobs
    OnPrimary(on_primary::OnPrimaryArgs),
    /// List, verify and restore continuous backups
    Backup(backup::BackupArgs),
    /// Make the cluster's certificates
    Certs(certs::CertsArgs),
    /// Print a script with which a shell completes litepilot's arguments
    Completions(completions::CompletionsArgs),
}

/// Where the configuration is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConfigArgs {
    /// The configuration [default: ./litepilot.yml, then /etc/litepilot.yml]
    #[arg(short, long = "config", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Loads the configuration, or prints what is wrong with it.
    ///
    /// # Errors
    ///
    /// The exit code for a bad configuration.
    pub(crate) fn load(&self) -> Result<Config, ExitCode> {
        config::load(self.config.as_deref())
            .map_err(|problems| refuse(&problems, &mut io::stderr()))
    }
}

/// Prints problems, one per line, and gives the exit code for them.
pub(crate) fn refuse(problems: &[Problem], to: &mut dyn Write) -> ExitCode {
    for problem in problems {
        // Nobody is left to tell if this fails; the exit code says it.
        let _ = writeln!(to, "{problem}");
    }
    ExitCode::from(EXIT_CONFIG)
}

/// Prints a command's result.
///
/// # Errors
///
/// When nobody can read it.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stdout(), "{text}").context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that waits, on this thread.
///
/// # Errors
///
/// What goes wrong with it, or when the system gives us no event queue.
fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(command)
}

/// How a command went; what went wrong with it is printed.
fn finish(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|why| {
        eprintln!("{why:#}");
        ExitCode::FAILURE
    })
}

/// How to reach a running node.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    /// Address and token are found there.
    pub(crate) config: ConfigArgs,
    /// The node's admin URL, e.g. http://127.0.0.1:9180, instead of a configuration
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(crate) admin: Option<Node>,
    /// The file that holds its token
    #[arg(long, value_name = "FILE", requires = "admin")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Parses the arguments, runs the command, and says how it went: 0 fine, 1 failed, 2 wrong usage,
/// 78 bad configuration.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::main(args),
        Command::Demo(args) => demo::main(args),
        Command::DemoApp(args) => demo::app(&args),
        Command::Guard(args) => guard::main(&args),
        Command::Guarded(args) => guard::become_program(&args),
        Command::LastWill => last_will::main(),
        Command::Hold(args) => hold::main(&args),
        Command::Check(args) => check::main(args),
        Command::RenderLitefs(args) => render_litefs::main(&args),
        Command::Import(args) => import::main(&args),
        Command::Classify(args) => classify::main(args),
        Command::Rules(args) => rules::main(args),
        Command::Status(args) => status::main(args),
        Command::Events(args) => events::main(args),
        Command::Primary(args) => primary::main(args),
        Command::Promote(args) => promote::main(args),
        Command::Members(args) => members::main(args),
        Command::Recover(args) => recover::main(&args),
        Command::OnPrimary(args) => on_primary::main(args),
        Command::Backup(args) => backup::main(args),
        Command::Certs(args) => certs::main(&args),
        Command::Completions(args) => completions::main(&args),
    }
}
