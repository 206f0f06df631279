//! `litepilot run`

use std::process::ExitCode;

use clap::Args;

/// The arguments of `litepilot run`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Runs it.
pub fn main(args: RunArgs) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
