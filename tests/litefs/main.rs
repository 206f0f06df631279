//! LiteFS' engine, whole: its configuration, process, lease, events, roles.
//!
//! By default the LiteFS is a stand-in without a file system (`stand_in.py`), which `contract` checks
//! against recordings of a real one. With `LITEFS_BIN` naming a real LiteFS it is that one, on FUSE: that takes
//! root, `/dev/fuse` and `fusermount3`.

mod backup_contract;
mod backups;
mod cluster;
mod contract;
mod empty;
mod external;
mod fence;
mod gets_that_write;
mod handoffs;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
mod leftovers;
mod migrations;
#[path = "../support/port.rs"]
mod port;
mod preload;
mod process;
#[path = "../integration/support/python.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod python;
mod replicas;
mod roles;
mod several;
mod stuck;
mod support;
mod whole;
