//! `litepilot classify`

use std::process::ExitCode;

use clap::Args;

/// The arguments of `litepilot classify`.
#[derive(Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Runs it.
pub fn main(args: ClassifyArgs) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
