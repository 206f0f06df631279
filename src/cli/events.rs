//! `litepilot events`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use serde::Deserialize;

use super::ask;

/// The arguments of `litepilot events`.
#[derive(Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// Print each as JSON, on a line of its own
    #[arg(long)]
    json: bool,
}

/// As a node tells it.
#[derive(Deserialize)]
struct Event {
    at: String,
    kind: String,
    text: String,
}

/// Runs it: the latest ones, and from then on each new one.
pub(crate) fn main(args: EventsArgs) -> ExitCode {
    ask::run(&args.node, async |node| {
        let mut feed = node.listen("/events").await?;
        while let Some(message) = feed.next().await? {
            let line = match (message.name.as_str(), args.json) {
                ("", true) => message.data,
                ("", false) => line(&node.read(&message.data)?),
                ("missed", _) => {
                    eprintln!("too slow: some events were missed ({})", message.data);
                    continue;
                }
                _ => continue,
            };
            // Whoever reads may have seen enough (`| head`).
            if writeln!(io::stdout(), "{line}").is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
        Err(anyhow!("the node has stopped"))
    })
}

fn line(event: &Event) -> String {
    format!("{}  {:<16}  {}", event.at, event.kind, event.text)
}
