//! The guard as those meet it who depend on it: a program that must not outlive its claim, and a
//! Litepilot that is stopped or killed.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;
mod parent;
mod program;
mod support;
