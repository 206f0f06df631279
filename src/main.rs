//! Arguments in, exit code out.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

/// Measured: see `loadtests/results/`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = litepilot::process::init::run_if_pid1() {
        return code;
    }
    litepilot::cli::main()
}
