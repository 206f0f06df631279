//! `app:`, the application as our child; `services:`, what runs beside it.

use std::time::Duration;

use super::reader::Section;
use super::stop_signal::StopSignal;
use super::value;
use crate::yaml::value::ValueError;
use crate::yaml::{Node, Value};

const DOWN_AFTER: Duration = Duration::from_secs(5);
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(30);
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// In place of a command of `on_promote`.
const RESTART: &str = "restart";

/// On which nodes a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOn {
    EveryNode,
    /// Started at each promotion, stopped before another node can become primary.
    Primary,
}

/// What is done before a node takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnPromote {
    /// Program and arguments; empty: nothing.
    Run(Vec<String>),
    /// The application is started anew: it may keep in memory what it has read as a replica's.
    Restart,
}

impl OnPromote {
    /// What is run.
    pub(crate) fn command(&self) -> &[String] {
        match self {
            Self::Run(command) => command,
            Self::Restart => &[],
        }
    }
}

/// An item of `services:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// What logs and the status call it.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// On which nodes it runs.
    pub run_on: RunOn,
    /// The user it runs as: a name or a number.
    pub user: Option<String>,
    /// Asks it to end.
    pub stop_signal: StopSignal,
    /// Between that and SIGKILL.
    pub grace: Duration,
}

/// `app:`
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Program and arguments; empty if somebody else starts the application.
    pub command: Vec<String>,
    /// The user it runs as: a name or a number.
    pub user: Option<String>,
    /// A path whose 2xx or 3xx means health; `None`: a connection is enough.
    pub health: Option<String>,
    /// A primary whose app is down for this long hands over.
    pub down_after: Duration,
    /// On which nodes it runs.
    pub run_on: RunOn,
    /// Done at each promotion.
    pub on_promote: OnPromote,
    /// Run at each demotion.
    pub on_demote: Vec<String>,
    /// Run when the quorum is lost.
    pub on_quorum_lost: Vec<String>,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// Asks it to end.
    pub stop_signal: StopSignal,
    /// Between that and SIGKILL.
    pub grace: Duration,
    /// A process of the application is ended if its open transaction has kept a replica from being brought up
    /// to date for so long; `None`: never.
    pub stuck_after: Option<Duration>,
}

pub(super) fn read(section: &Section<'_>) -> App {
    App {
        command: read_command(section, "command"),
        user: section.get("user", value::name),
        health: section.get("health", value::url_path),
        down_after: section.get("down_after", value::duration).unwrap_or(DOWN_AFTER),
        run_on: section.get("run_on", run_on).unwrap_or(RunOn::EveryNode),
        on_promote: match section.has_word("on_promote", RESTART) {
            true => OnPromote::Restart,
            false => OnPromote::Run(read_command(section, "on_promote")),
        },
        on_demote: read_command(section, "on_demote"),
        on_quorum_lost: read_command(section, "on_quorum_lost"),
        hook_timeout: section.get("hook_timeout", value::duration).unwrap_or(HOOK_TIMEOUT),
        stop_signal: section.get("stop_signal", StopSignal::read).unwrap_or_default(),
        grace: section.get("grace", value::duration_or_zero).unwrap_or(GRACE),
        stuck_after: section.get("stuck_after", duration_or_never).unwrap_or(Some(STUCK_AFTER)),
    }
}

fn duration_or_never(node: &Node) -> Result<Option<Duration>, ValueError> {
    match value::text(node) {
        Ok("never") => Ok(None),
        _ => value::duration(node).map(Some).map_err(|why| format!("{why}, or never").into()),
    }
}

/// The whole list; two of one name could not be told apart.
pub(super) fn read_services(root: &Section<'_>) -> Vec<Service> {
    let services: Vec<_> =
        root.sections("services", read_service).unwrap_or_default().into_iter().flatten().collect();
    for (i, service) in services.iter().enumerate() {
        if services[..i].iter().any(|other| other.name == service.name) {
            root.wrong("services", format!("two are named {:?}: rename one", service.name));
        }
    }
    services
}

fn read_service(section: &Section<'_>) -> Option<Service> {
    let name = section.required("name", "what the log calls it, as `worker`", service_name);
    if !section.is_given("command") {
        section.wrong("command", "missing, but required: write [PROGRAM, ARGUMENT…]");
    }
    Some(Service {
        command: read_command(section, "command"),
        run_on: section.get("run_on", run_on).unwrap_or(RunOn::Primary),
        user: section.get("user", value::name),
        stop_signal: section.get("stop_signal", StopSignal::read).unwrap_or_default(),
        grace: section.get("grace", value::duration_or_zero).unwrap_or(GRACE),
        name: name?,
    })
}

/// It stands in log lines beside those of the application.
fn service_name(node: &Node) -> Result<String, ValueError> {
    let name = value::name(node)?;
    let fits = name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    match fits && name != "app" {
        true => Ok(name),
        false => Err(format!(
            "{name:?} names no service: use at most 63 letters, digits, '.', '_' or '-', and not `app`"
        ).into()),
    }
}

fn run_on(node: &Node) -> Result<RunOn, ValueError> {
    match &node.value {
        Value::Text(text) if text == "every-node" => Ok(RunOn::EveryNode),
        Value::Text(text) if text == "primary" => Ok(RunOn::Primary),
        _ => Err(format!("{} where `every-node` or `primary` is expected", node.describe()).into()),
    }
}

/// Program and arguments. No shell is involved, so a text is not split into words by us.
fn read_command(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let command = section.list(key, value::word).unwrap_or_default();
    if command.first().is_some_and(String::is_empty) {
        section.wrong(key, "the program's name is empty: write [PROGRAM, ARGUMENT…]");
    }
    command
}
