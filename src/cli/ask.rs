//! Commands that ask a running node through its admin port.

use std::process::ExitCode;

use super::AdminArgs;
use crate::admin::client::Node;

/// As [`run`], for a command that needs the node's token.
pub(crate) fn run_as_operator(
    args: &AdminArgs,
    command: impl AsyncFnOnce(&Node) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    if args.admin.is_some() && args.token_file.is_none() {
        eprintln!("this needs the node's token: give --token-file FILE too, or -c FILE instead");
        return ExitCode::from(super::EXIT_USAGE);
    }
    run(args, command)
}

/// Runs a command that asks a node; what goes wrong with that is printed.
pub(crate) fn run(
    args: &AdminArgs,
    command: impl AsyncFnOnce(&Node) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    let node = match node(args) {
        Ok(node) => node,
        Err(code) => return code,
    };
    super::finish(super::block_on(command(&node)))
}

/// The node that the arguments name: by URL, or by its configuration.
///
/// # Errors
///
/// The exit code for a configuration with problems, which are already printed.
fn node(args: &AdminArgs) -> Result<Node, ExitCode> {
    match (args.admin.clone(), args.token_file.clone()) {
        (Some(node), Some(file)) => Ok(node.with_token_file(file)),
        (Some(node), None) => Ok(node),
        (None, _) => args.config.load().map(|config| Node::configured(&config)),
    }
}
