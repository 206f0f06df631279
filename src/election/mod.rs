//! `election: raft`: the primary is the holder of one replicated lease.
//!
//! Raft replicates the lease [`table`]; who leads Raft does not matter to the application. The
//! protocol, with the reason of each complication, is described in `steward` (the Raft leader's
//! part), `reign` (the holder's) and `choice` (who comes next).
//!
//! [`raft`] is the only user of openraft.

pub mod raft;
pub mod rpc;
pub mod table;
