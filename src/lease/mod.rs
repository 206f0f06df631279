//! LiteFS' lease: the part of Consul's HTTP API that LiteFS uses, on loopback.

/// The key under which LiteFS looks for its lease; `<key>/clusterid` holds its cluster ID.
pub const KEY: &str = "litefs/primary";
/// The file in `data_dir` that holds the password of the lease's URL.
pub const SECRET_FILE: &str = "lease.token";
