//! `litepilot status`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::ask;
use crate::status::{AppState, Member, Status};

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
}

/// Runs it.
pub(crate) fn main(args: StatusArgs) -> ExitCode {
    ask::run(&args.node, async |node| {
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
    text
}

fn row(member: &Member) -> [String; 5] {
    [
        member.node.to_string(),
        member.role.as_str().to_owned(),
        if member.reachable { "yes" } else { "no" }.to_owned(),
        member.position.map_or("-".to_owned(), |position| position.to_string()),
        member.lag_ms.map_or("-".to_owned(), |lag| format!("{lag} ms")),
    ]
}

fn facts(status: &Status) -> [(&'static str, String); 5] {
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
    };
    let app = process(app, status.app.pid, status.app.restarts);
    let state = format!("{}, {}", status.litefs.engine, status.litefs.state);
    let engine = process(&state, status.litefs.pid, status.litefs.restarts);
    [
        ("primary", primary),
        ("epoch", format!("{epoch}, {quorum}")),
        ("app", format!("{app} (on {})", status.node)),
        ("engine", format!("{engine} (on {})", status.node)),
        ("version", status.version.clone()),
    ]
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
}
