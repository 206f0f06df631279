//! `litepilot status`

use std::process::ExitCode;

use clap::Args;

/// The arguments of `litepilot status`.
#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    node: super::AdminArgs,
}

/// Runs it.
pub fn main(args: StatusArgs) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
