//! The commands that ask a running node, against a real admin port.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;
mod status;
mod steering;
