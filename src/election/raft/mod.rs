//! Raft, by openraft: replicates the lease table. Nothing outside of this module names openraft.

use serde::{Deserialize, Serialize};

/// A question of Raft's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message(serde_json::Value);

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply(serde_json::Value);
