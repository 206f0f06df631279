//! What the program says of itself: its version, and completions for shells.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::process::{Command, Stdio};

fn litepilot(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_litepilot")).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_version_is_a_version_and_perhaps_a_commit() {
    let printed = litepilot(&["--version"]);
    let rest = printed.trim_end().strip_prefix("litepilot ").unwrap();
    let (version, commit) = rest.split_once(' ').unwrap_or((rest, "(0000000)"));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let commit = commit.strip_prefix('(').unwrap().strip_suffix(')').unwrap();
    assert!(commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{printed}");
}

#[test]
fn every_shell_gets_a_script_with_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = litepilot(&["completions", shell]);
        for command in ["run", "demo", "check", "promote", "on-primary"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn bash_completes_a_command() {
    let script = litepilot(&["completions", "bash"]);
    let ask = "COMP_WORDS=(litepilot prom); COMP_CWORD=1; _litepilot litepilot prom litepilot\n\
               echo \"${COMPREPLY[@]}\"\n";
    let mut bash = Command::new("bash")
        .arg("--norc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(format!("{script}\n{ask}").as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "promote");
}
