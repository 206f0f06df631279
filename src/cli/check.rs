//! `litepilot check`

use std::process::ExitCode;

use clap::Args;

/// The arguments of `litepilot check`.
#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Runs it.
pub fn main(args: CheckArgs) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
