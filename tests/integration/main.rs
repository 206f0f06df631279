//! Whole nodes and real applications, in one test binary.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apps_selftest;
mod bodies;
mod framing;
mod protocol;
mod support;
