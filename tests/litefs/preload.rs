//! `preload.c`, built: what a stand-in cannot do for want of a file system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// To be preloaded into applications.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litefs/preload.c");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("litefs-preload.so");
    // Test binaries that run at the same time build it each, and none meets half of one.
    let new = built.with_extension(std::process::id().to_string());
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&new)
        .arg(source)
        .arg("-ldl");
    assert!(cc.status().expect("a C compiler").success());
    std::fs::rename(&new, &built).unwrap();
    built
}
