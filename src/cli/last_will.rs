//! `litepilot last-will`, which no user types.

use std::process::ExitCode;

use crate::last_will::executor;

/// Runs it.
pub(crate) fn main() -> ExitCode {
    executor::main()
}
