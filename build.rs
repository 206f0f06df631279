//! Tells the program from which commit it is built, for `litepilot --version`.
//!
//! Known from `LITEPILOT_COMMIT` (an image's build has no repository), from git, or from what
//! `cargo package` notes in what it uploads. Without all of these the version stands alone.
//! Development builds do not ask: each commit would compile everything anew.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// How much of a commit's hash is shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LITEPILOT_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given().or_else(|| if release { from_git().or_else(packaged) } else { None });
    match commit {
        Some(commit) => println!("cargo::rustc-env=LITEPILOT_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=LITEPILOT_VERSION={version}"),
    }
}

fn given() -> Option<String> {
    hash(&env::var("LITEPILOT_COMMIT").ok()?)
}

fn from_git() -> Option<String> {
    // Not the repository of somebody who has unpacked a release inside it.
    if !Path::new(".git").exists() {
        return None;
    }
    // The log of HEAD grows with each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    hash(&git(&["rev-parse", "HEAD"])?)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// `.cargo_vcs_info.json`: `{"git": {"sha1": "…"}, …}`
fn packaged() -> Option<String> {
    let noted = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, after) = noted.split_once("\"sha1\"")?;
    hash(after.split('"').nth(1)?)
}

/// A hash, cut for people; nothing if it is none, so that nothing else gets into the version.
fn hash(text: &str) -> Option<String> {
    let good = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| text.chars().take(SHOWN).collect())
}
