//! `litepilot status`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::ask;
use crate::admin::client::Node;
use crate::status::{AppState, BackupStatus, Member, ServiceStatus, Status};

/// Before a node that cannot be reached is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The arguments of `litepilot status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// Print what GET /status answers
    #[arg(long)]
    json: bool,
    /// Only say whether the node can serve, by exit code 0 or 1: for checks of a container
    #[arg(long, conflicts_with = "json")]
    ready: bool,
    /// Print it anew whenever it changes, until interrupted
    #[arg(long, conflicts_with_all = ["json", "ready"])]
    watch: bool,
}

/// Runs it.
pub(crate) fn main(args: StatusArgs) -> ExitCode {
    ask::run(&args.node, async |node| {
        if args.watch {
            return watch(node).await;
        }
        let text = if args.json {
            node.status_json().await?
        } else if args.ready {
            node.get("/health/ready").await?
        } else {
            table(&node.status().await?)
        };
        // Whoever reads may have seen enough (`| head`).
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows each status that differs from the one before, for as long as somebody looks. A node that
/// cannot be reached is waited for: it may be starting.
async fn watch(node: &Node) -> anyhow::Result<ExitCode> {
    let mut shown = String::new();
    loop {
        let why = match node.listen("/events?live").await {
            Err(why) => why.message,
            Ok(mut feed) => loop {
                match feed.next().await {
                    Ok(Some(message)) if message.name == "status" => {
                        let text = table(&node.read(&message.data)?);
                        if text != std::mem::replace(&mut shown, text.clone()) && !show(&text) {
                            return Ok(ExitCode::SUCCESS);
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break "the node has stopped".to_owned(),
                    Err(why) => break format!("{why:#}"),
                }
            },
        };
        if why != std::mem::replace(&mut shown, why.clone()) && !show(&format!("{why}\n")) {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(AGAIN).await;
    }
}

/// In place of what was shown before, if that is a terminal. Whether anybody reads it.
fn show(text: &str) -> bool {
    let mut out = io::stdout();
    let before = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "\n" };
    write!(out, "{before}{text}").and_then(|()| out.flush()).is_ok()
}

fn table(status: &Status) -> String {
    let head = ["NODE", "ROLE", "REACHABLE", "POSITION", "LAG"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(status.nodes.iter().map(row)).collect();
    let mut text = columns(&rows);
    text.push('\n');
    for (name, value) in facts(status) {
        text.push_str(&format!("{name:<8} {value}\n"));
    }
    let learned = status.learned_writes.len();
    if learned > 0 {
        text.push_str(&format!(
            "learned  {learned} routes that write: litepilot rules --learned\n"
        ));
    }
    for warning in &status.warnings {
        text.push_str(&format!("WARNING  {} (on {})\n", warning.text, status.node));
    }
    text
}

fn row(member: &Member) -> [String; 5] {
    [
        member.node.to_string(),
        member.role.as_str().to_owned(),
        if member.reachable { "yes" } else { "no" }.to_owned(),
        member.position.map_or("-".to_owned(), |position| position.to_string()),
        member.lag_ms.map_or("-".to_owned(), span),
    ]
}

/// As the page writes it.
fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn facts(status: &Status) -> Vec<(&'static str, String)> {
    let primary = match &status.primary {
        Some(primary) => format!("{} since {}", primary.node, primary.since),
        None => match &status.no_primary {
            Some(why) => format!("none: {why}"),
            None => "none".to_owned(),
        },
    };
    let epoch = match &status.primary {
        Some(primary) => primary.epoch.to_string(),
        None => "-".to_owned(),
    };
    let quorum = if status.quorum { "quorum" } else { "NO quorum" };
    let app = match status.app.state {
        AppState::Up => "up",
        AppState::Down => "DOWN",
        AppState::Standby => "standby, it runs on the primary",
    };
    let app = process(app, status.app.pid, status.app.restarts);
    let state = format!("{}, {}", status.litefs.engine, status.litefs.state);
    let engine = process(&state, status.litefs.pid, status.litefs.restarts);
    let mut facts = Vec::new();
    if status.raft.as_ref().is_some_and(|raft| raft.removed) {
        let text = "NO: this node was removed, or its disk was replaced; see its log";
        facts.push(("member", text.to_owned()));
    }
    facts.extend([
        ("primary", primary),
        ("epoch", format!("{epoch}, {quorum}")),
        ("app", format!("{app} (on {})", status.node)),
    ]);
    facts.extend(status.app.note.iter().map(|note| ("", format!("the application {note}"))));
    facts.extend(status.services.iter().map(|service| {
        let ServiceStatus { name, state, pid, restarts } = service;
        ("service", format!("{name}: {}", process(state, *pid, *restarts)))
    }));
    facts.push(("engine", format!("{engine} (on {})", status.node)));
    facts.extend(
        status.backup.iter().map(|b| ("backup", format!("{} (on {})", backup(b), status.node))),
    );
    facts.push(("version", status.version.clone()));
    facts
}

fn backup(backup: &BackupStatus) -> String {
    let BackupStatus { place, lag_ms, lag_transactions, last, error } = backup;
    let lag = match (lag_ms, lag_transactions) {
        (None, _) => "the primary's".to_owned(),
        (Some(_), Some(0)) => "up to date".to_owned(),
        (Some(ms), Some(lacks)) => format!("lacks {lacks} transactions of the last {}", span(*ms)),
        (Some(ms), None) => format!("not reached for {}", span(*ms)),
    };
    let last = last.as_ref().map(|last| format!(", last written {last}")).unwrap_or_default();
    let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{place}, {lag}{last}{error}")
}

fn process(state: &str, pid: Option<u32>, restarts: u64) -> String {
    match pid {
        Some(pid) => format!("{state}, pid {pid}, {restarts} restarts"),
        None => state.to_owned(),
    }
}

/// Columns as wide as their widest cell.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;

    #[test]
    fn people_see_the_nodes_and_who_is_primary() {
        let expected = "\
NODE    ROLE     REACHABLE  POSITION            LAG
node-1  primary  yes        3/000000000000002a  0 ms

primary  node-1 since 1970-01-01T00:00:00Z
epoch    3, quorum
app      up, pid 4711, 1 restarts (on node-1)
engine   embedded, running (on node-1)
";
        let table = table(&example());
        assert_eq!(
            table.strip_suffix(&format!("version  {}\n", example().version)),
            Some(expected)
        );
    }

    #[test]
    fn what_is_wrong_comes_last() {
        let warnings = vec![("disk-full", "3 MiB are left".to_owned()).into()];
        let table = table(&Status { warnings, ..example() });
        assert!(table.ends_with("WARNING  3 MiB are left (on node-1)\n"), "{table}");
    }

    #[test]
    fn what_runs_beside_the_application_and_what_keeps_it_from_running_is_said() {
        let mut status = example();
        status.app.note = Some("exits on this replica".into());
        status.services.push(ServiceStatus {
            name: "worker".into(),
            state: "resting".into(),
            pid: None,
            restarts: 0,
        });
        let table = table(&status);
        assert!(table.contains("\n         the application exits on this replica\n"), "{table}");
        assert!(table.contains("\nservice  worker: resting\n"), "{table}");
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let mut status = example();
        (status.primary, status.quorum, status.app.state) = (None, false, AppState::Down);
        (status.nodes[0].position, status.nodes[0].lag_ms) = (None, None);
        let table = table(&status);
        assert!(table.contains("node-1  primary  yes        -         -\n"), "{table}");
        assert!(table.contains("primary  none\nepoch    -, NO quorum\napp      DOWN"), "{table}");
        status.no_primary = Some("node-2 did not answer yet".to_owned());
        let table = super::table(&status);
        assert!(table.contains("primary  none: node-2 did not answer yet\n"), "{table}");
    }

    #[test]
    fn a_lag_has_a_unit_that_fits() {
        let spans = [0, 999, 1_000, 2_449, 61_000, 7_200_000].map(span);
        assert_eq!(spans, ["0 ms", "999 ms", "1.0 s", "2.4 s", "1 min", "2 h"]);
    }
}
