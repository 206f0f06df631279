//! `litepilot completions`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// The arguments of `litepilot completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete
    shell: Shell,
}

/// Prints the script. It is made in memory, since clap's own writing panics where nobody reads it.
pub(crate) fn main(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "litepilot", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("litepilot completions: cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}
