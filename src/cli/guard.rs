//! `litepilot guard` and `litepilot guarded`, which no user types.

use std::process::ExitCode;

use clap::Args;

use crate::process::file_limit;
use crate::process::guard::{exec, program};
use crate::process::user::Identity;

/// The arguments of `litepilot guard`.
#[derive(Args)]
pub(crate) struct GuardArgs {
    /// How many files it and the program may have open
    #[arg(long, value_name = "NUMBER")]
    files: Option<u64>,
    #[command(flatten)]
    program: ProgramArgs,
}

/// The arguments of `litepilot guarded`.
#[derive(Args)]
pub(crate) struct GuardedArgs {
    /// The guard, with which it dies
    #[arg(long, value_name = "PID")]
    by: u32,
    #[command(flatten)]
    program: ProgramArgs,
}

#[derive(Args)]
struct ProgramArgs {
    /// As whom it runs
    #[arg(long = "as", value_name = "UID:GID:GROUPS")]
    identity: Option<Identity>,
    /// The program
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the guard.
pub(crate) fn main(args: &GuardArgs) -> ExitCode {
    if let Some(files) = args.files {
        file_limit::set(files);
    }
    program::main(args.program.identity.as_ref(), &args.program.command)
}

/// Becomes the program.
pub(crate) fn become_program(args: &GuardedArgs) -> ExitCode {
    exec::become_program(args.by, args.program.identity.as_ref(), &args.program.command)
}
