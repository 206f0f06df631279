//! Has this node's engine follow another node's.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::cluster::{Epoch, NodeId};
use crate::engine::replication::{Dial, FollowError, Stream};
use crate::engine::{BoxFuture, Engine};
use crate::peer::Dialer;
use crate::telemetry::log_throttle::LogThrottle;

/// Before a replica dials its primary again, and before an engine is asked again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

impl Dial for Dialer {
    fn dial<'a>(
        &'a self,
        node: &'a NodeId,
        protocol: &'static str,
    ) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let dialed = Self::dial(self, node, protocol).await;
            let stream = dialed.map_err(|why| io::Error::other(why.to_string()))?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

/// Follows primaries, one after the other.
pub(crate) struct Follower {
    engine: Arc<dyn Engine>,
    dial: Arc<dyn Dial>,
    log: LogThrottle<String>,
}

impl Follower {
    pub(crate) fn new(engine: Arc<dyn Engine>, dialer: Arc<Dialer>) -> Self {
        Self { engine, dial: dialer, log: LogThrottle::new() }
    }

    /// Follows one primary until the connection ends, and waits a little.
    pub(crate) async fn follow(&self, primary: &NodeId, epoch: Epoch) {
        match self.engine.follow(primary, epoch, &self.dial).await {
            Err(FollowError::Unreachable(why)) => tracing::debug!(%primary, %why, "cannot follow"),
            Err(FollowError::Ended(why)) => self.tell(primary, why.to_string()),
            Ok(never) => match never {},
        }
        sleep(PAUSE).await;
    }

    /// One that is no longer primary says so until there is another.
    fn tell(&self, primary: &NodeId, why: String) {
        if let Some(held_back) = self.log.may_speak(why.clone(), Instant::now()) {
            tracing::warn!(
                %primary, why, held_back,
                "the database is no longer received; dialing again"
            );
        }
    }
}
