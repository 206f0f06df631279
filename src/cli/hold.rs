//! `litepilot hold`, which no user types.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::litefs::hold;

/// The arguments of `litepilot hold`.
#[derive(Args)]
pub(crate) struct HoldArgs {
    /// How long to wait for writers
    #[arg(value_name = "MILLISECONDS")]
    limit: u64,
    /// The directory of the databases
    mount: PathBuf,
}

/// Holds the locks until standard input ends.
pub(crate) fn main(args: &HoldArgs) -> ExitCode {
    hold::main(&args.mount, Duration::from_millis(args.limit))
}
