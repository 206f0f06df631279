//! `litepilot primary`

use std::process::ExitCode;

use clap::Args;

/// The arguments of `litepilot primary`.
#[derive(Args)]
pub struct PrimaryArgs {
    #[command(flatten)]
    node: super::AdminArgs,
}

/// Runs it.
pub fn main(args: PrimaryArgs) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
