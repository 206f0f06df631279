//! `app:`, the application as our child.

use std::time::Duration;

use super::reader::Section;
use super::value;
use crate::yaml::Node;

const DOWN_AFTER: Duration = Duration::from_secs(5);
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(30);
const STUCK_AFTER: Duration = Duration::from_secs(30);

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
    /// Run at each promotion.
    pub on_promote: Vec<String>,
    /// Run at each demotion.
    pub on_demote: Vec<String>,
    /// Run when the quorum is lost.
    pub on_quorum_lost: Vec<String>,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// Between SIGTERM and SIGKILL.
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
        on_promote: read_command(section, "on_promote"),
        on_demote: read_command(section, "on_demote"),
        on_quorum_lost: read_command(section, "on_quorum_lost"),
        hook_timeout: section.get("hook_timeout", value::duration).unwrap_or(HOOK_TIMEOUT),
        grace: section.get("grace", value::duration_or_zero).unwrap_or(GRACE),
        stuck_after: section.get("stuck_after", duration_or_never).unwrap_or(Some(STUCK_AFTER)),
    }
}

fn duration_or_never(node: &Node) -> Result<Option<Duration>, String> {
    match value::text(node) {
        Ok("never") => Ok(None),
        _ => value::duration(node).map(Some).map_err(|why| format!("{why}, or never")),
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
