//! `litepilot members`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::AdminArgs;
use super::status::columns;
use super::{ask, progress};
use crate::admin::change::Members;
use crate::admin::client::{AskError, Node};
use crate::cluster::NodeId;
use crate::config::HostPort;
use crate::control::{MemberChange, MemberStatus};
use crate::yaml::value::parse_duration;

/// Longer than a node takes for it.
const PATIENCE: Duration = Duration::from_secs(70);

/// What forgetting LiteFS' cluster ID may lead to.
const RISK: &str = "\
LiteFS' cluster ID keeps apart databases that have nothing to do with each other. Once it is forgotten, the
next primary sets its own, and a node that still has the old one, with the data that goes with it, can no
longer join: it has to be given an empty litefs.data. Do this only if every node that knew the ID is gone for
good (`litepilot status` says \"LiteFS has no cluster ID\"), and then with --yes";

/// The arguments of `litepilot members`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct MembersArgs {
    #[command(flatten)]
    node: AdminArgs,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List the members, which is the default
    List {
        #[command(flatten)]
        node: AdminArgs,
    },
    /// Add a node; it votes once it has caught up
    Add {
        #[command(flatten)]
        node: AdminArgs,
        /// The node's name, and its peer port as the others dial it
        #[arg(value_name = "NODE=HOST:PORT", value_parser = new_member)]
        member: (NodeId, HostPort),
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove a node that will not come back
    Remove {
        #[command(flatten)]
        node: AdminArgs,
        /// Its name
        #[arg(value_name = "NODE")]
        member: NodeId,
    },
    /// Let a LiteFS without a cluster ID become primary, when every node that knew the ID is gone
    ResetLitefsId {
        #[command(flatten)]
        node: AdminArgs,
        /// You have read what it risks
        #[arg(long)]
        yes: bool,
    },
    /// Let a node come back that has lost its disk
    Replace {
        #[command(flatten)]
        node: AdminArgs,
        /// Its name
        #[arg(value_name = "NODE")]
        member: NodeId,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Args)]
struct Wait {
    /// How long to wait for it to start and to catch up; given again, the command goes on from there
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    wait: Duration,
}

/// Runs it.
pub(crate) fn main(args: MembersArgs) -> ExitCode {
    if let Some(Action::ResetLitefsId { node, yes }) = args.action {
        return reset_litefs_id(&node, yes);
    }
    match args.action {
        None => list(&args.node),
        Some(Action::List { node } | Action::ResetLitefsId { node, .. }) => list(&node),
        Some(Action::Add { node, member: (name, address), wait }) => {
            let change = MemberChange::Add { node: name.clone(), address };
            ask::run_as_operator(&node, async |node: &Node| {
                bring(node, &name, &change, wait.wait).await
            })
        }
        Some(Action::Remove { node, member }) => {
            ask::run_as_operator(&node, async |node: &Node| {
                let members = post(node, &MemberChange::Remove { node: member.clone() }).await?;
                super::print(table(&members).trim_end())
            })
        }
        Some(Action::Replace { node, member, wait }) => {
            ask::run_as_operator(&node, async |node: &Node| {
                let listed = listed(node).await?.members.into_iter().find(|it| it.node == member);
                let generation = listed.map(|it| it.generation);
                let change = MemberChange::Replace { node: member.clone(), generation };
                bring(node, &member, &change, wait.wait).await
            })
        }
    }
}

fn list(node: &AdminArgs) -> ExitCode {
    ask::run(node, async |node: &Node| {
        let members = listed(node).await?;
        super::print(table(&members).trim_end())
    })
}

async fn listed(node: &Node) -> Result<Members, AskError> {
    node.read(&node.get("/members").await?)
}

async fn bring(
    node: &Node,
    member: &NodeId,
    change: &MemberChange,
    limit: Duration,
) -> anyhow::Result<ExitCode> {
    let members = progress::bring(node, member, limit, async || post(node, change).await);
    super::print(table(&members.await?).trim_end())
}

fn reset_litefs_id(node: &AdminArgs, yes: bool) -> ExitCode {
    if !yes {
        eprintln!("{RISK}");
        return ExitCode::FAILURE;
    }
    ask::run_as_operator(node, async |node: &Node| {
        node.post("/litefs-id/reset", String::new(), PATIENCE).await?;
        super::print("LiteFS' cluster ID is forgotten: the next primary sets its own")
    })
}

async fn post(node: &Node, change: &MemberChange) -> Result<Members, AskError> {
    let json = serde_json::to_string(change);
    let json = json.map_err(|error| AskError::lasting(error.to_string()))?;
    node.read(&node.post("/members", json, PATIENCE).await?)
}

fn new_member(text: &str) -> anyhow::Result<(NodeId, HostPort)> {
    let (node, address) = text.split_once('=').context("write NODE=HOST:PORT")?;
    Ok((node.parse()?, address.parse()?))
}

fn table(members: &Members) -> String {
    if members.members.is_empty() {
        return "this node is on its own: it has no peers".to_owned();
    }
    let head = ["NODE", "ADDRESS", "DATA", "VOTES"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(members.members.iter().map(row)).collect();
    columns(&rows)
}

fn row(member: &MemberStatus) -> [String; 4] {
    [
        member.node.to_string(),
        member.address.to_string(),
        if member.witness { "no (witness)" } else { "yes" }.to_owned(),
        if member.voter { "yes" } else { "not yet" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_member_has_a_name_and_an_address() {
        let (node, address) = new_member("n-4=db.internal:4321").unwrap();
        assert_eq!((node.as_str(), address.to_string().as_str()), ("n-4", "db.internal:4321"));
        assert_eq!(new_member("n4=[fd00::4]:1").unwrap().1.to_string(), "[fd00::4]:1");
        for bad in ["", "n4", "n4=", "=a:1", "n4=a", "n4=a:0", "n 4=a:1", "n4:a=1"] {
            assert!(new_member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_see_who_votes_and_who_holds_data() {
        let member = |node: &str, witness, voter| MemberStatus {
            node: node.parse().unwrap(),
            address: "10.0.0.1:4321".parse().unwrap(),
            witness,
            voter,
            generation: 2,
        };
        let members = vec![member("n1", false, false), member("referee", true, true)];
        let expected = "\
NODE     ADDRESS        DATA          VOTES
n1       10.0.0.1:4321  yes           not yet
referee  10.0.0.1:4321  no (witness)  yes
";
        assert_eq!(table(&Members { members }), expected);
    }
}
