//! Arguments in, exit code out.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

/// It takes less of a request's time than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = litepilot::process::init::run_if_pid1() {
        return code;
    }
    litepilot::cli::main()
}
