//! Whole nodes and real applications, in one test binary.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acks;
mod application;
mod apps_selftest;
mod bodies;
mod claims;
mod drain;
mod framing;
mod limits;
mod lost_writes;
mod misclassified_reads;
mod old_copies;
mod operation;
mod protocol;
mod real_restarts;
mod real_sites;
mod real_transfers;
mod support;
mod tokens;
mod trace;
mod websocket;
