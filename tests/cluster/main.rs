//! Clusters of whole nodes in front of real applications, in one test binary.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acks;
mod consistency;
mod forwarding;
mod links;
mod primary_gone;
mod replay;
mod support;
mod tls;
mod tokens;
mod websocket;
