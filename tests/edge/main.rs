//! TLS and HTTP/2 towards clients: whole nodes, certificates of their own, and clients that behave, that
//! are slow, and that attack.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod certificates;
mod files;
mod floods;
mod frames;
mod http2;
#[path = "../integration/support/node.rs"]
#[allow(dead_code)]
mod node;
mod protocols;
#[path = "../integration/support/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "../integration/support/recorder.rs"]
#[allow(dead_code)]
mod recorder;
mod tls;
mod turns;
#[path = "../integration/support/wire.rs"]
#[allow(dead_code)]
mod wire;
