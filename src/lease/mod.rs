//! LiteFS' lease: the part of Consul's HTTP API that LiteFS uses, on loopback.
//!
//! [`request`] says what is asked, a [`LeaseSource`] what is so, [`answer`] how to say it, and [`server`]
//! does the talking. Observed of LiteFS, and relied upon:
//!
//! * It renews twice in its TTL. A 404 ends its tenure at once. A renewal that is never answered does not:
//!   it has no time limit. So everything but the cluster ID is answered from local knowledge.
//! * Anything else than 200 and 404 is a failure that it tries again, for about a second.
//! * A demoted LiteFS asks for the lease again at once, and then every
//!   [`RECONNECT_DELAY`](crate::litefs::render). It creates a new session each time.
//! * Of the primary's `advertise-url` only host and port are used. A LiteFS that is named itself there
//!   connects to itself, again and again.
//! * In a handoff the next primary renews, and then acquires with, the session of the one before.

use serde::{Deserialize, Serialize};

use crate::engine::BoxFuture;

pub(crate) mod answer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod request;
pub mod server;

/// The key under which LiteFS looks for its lease; `<key>/clusterid` holds its cluster ID.
pub(crate) const KEY: &str = "litefs/primary";
/// The file in `data_dir` that holds the password of the lease's URL.
pub(crate) const SECRET_FILE: &str = "lease.token";

/// Names one attempt of a LiteFS to hold the lease, and its tenure if that succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub String);

/// How LiteFS finds the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PrimaryInfo {
    pub(crate) hostname: String,
    /// `http://host:port` of its LiteFS, or of a tunnel to it.
    pub(crate) advertise_url: String,
}

/// What the lease's server asks for. Only the cluster ID may take time.
pub trait LeaseSource: Send + Sync + 'static {
    /// LiteFS' cluster ID, if one was set.
    fn cluster_id(&self) -> Option<String>;

    /// Sets it, for the whole cluster. To be answered before LiteFS counts as primary.
    ///
    /// # Errors
    ///
    /// When it could not be set, or there is another; LiteFS then gives its lease back.
    fn set_cluster_id(&self, id: String) -> BoxFuture<'_, Result<(), String>>;

    /// Where LiteFS finds the primary that it is to follow. Never itself.
    fn primary(&self) -> Option<PrimaryInfo>;

    /// LiteFS wants to become primary: a new session.
    fn create(&self) -> Session;

    /// Whether LiteFS is the primary with that session.
    fn acquire(&self, session: &Session) -> bool;

    /// Whether LiteFS, primary with that session, may stay so. Also asked with a session of another
    /// node, by a LiteFS to which it was handed.
    fn renew(&self, session: &Session) -> bool;

    /// LiteFS, primary with that session, is so no more. Says whether it was.
    fn release(&self, session: &Session) -> bool;
}
