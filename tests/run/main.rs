//! `litepilot run` as a user runs it: a process of its own, with its files, signals and exit codes.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod application;
mod certificates;
mod costs;
mod edge;
#[path = "../edge/files.rs"]
#[allow(dead_code)]
mod files;
mod fire;
mod log;
mod memory;
#[path = "../support/need.rs"]
mod need;
mod on_primary;
mod pair;
mod pid1;
#[path = "../support/port.rs"]
mod port;
mod program;
mod promotion;
#[path = "../integration/support/raw.rs"]
#[allow(dead_code)]
mod raw;
mod service;
mod signals;
mod start;
#[path = "../integration/support/wire.rs"]
#[allow(dead_code)]
mod wire;
