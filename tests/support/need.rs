//! What a test needs of the machine. Without it the test is skipped, but nobody can miss that: it is
//! said past the capture of test output, and with `LITEPILOT_REQUIRE_ALL` set (as `.ci/run` does) it is
//! a failure.

use std::env;
use std::io::Write;
use std::process::Command;
use std::thread;

/// Whether a program is there; otherwise the test is to return.
pub fn need(program: &str, package: &str) -> bool {
    let found = match program.contains('/') {
        true => std::path::Path::new(program).is_file(),
        false => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .any(|dir| dir.join(program).is_file()),
    };
    found || skip(&format!("{program} is not installed (apt install {package})"))
}

/// Whether a command may be run, for what takes root or namespaces; otherwise the test is to return.
pub fn permitted(what: &str, command: &[&str]) -> bool {
    let why = match Command::new(command[0]).args(&command[1..]).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    skip(&format!("{what} ({why})"))
}

/// Whether this is root; otherwise the test is to return.
pub fn root() -> bool {
    rustix::process::getuid().is_root() || skip("only root can switch users")
}

/// Says that the running test, or a part of it, is skipped; always `false`.
pub fn skip(why: &str) -> bool {
    let thread = thread::current();
    let test = match thread.name() {
        None | Some("main") => env!("CARGO_CRATE_NAME"),
        Some(test) => test,
    };
    assert!(
        env::var_os("LITEPILOT_REQUIRE_ALL").is_none(),
        "{test}: nothing may be skipped: {why}"
    );
    // Not through eprintln!, which the test harness keeps to itself. If nobody reads it, so be it.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    false
}
