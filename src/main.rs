//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = litepilot::process::init::run_if_pid1() {
        return code;
    }
    litepilot::cli::main()
}
