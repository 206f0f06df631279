//! Strong reads where writes wait for a majority: the answer waits, too, until a majority holds all that
//! the application can have seen. Else a client could see a write that the next primary does not have, and
//! nobody sees ever after.

use http::StatusCode;
use tokio::time::timeout;

use super::exchange::Exchange;
use super::problem::{Problem, ProblemKind};
use crate::cluster::ClusterView;
use crate::config::{Ack, Consistency};
use crate::rules::Class;
use crate::telemetry::log_throttle::may_say;

impl Exchange {
    /// Whether that is asked of this read, which the application has answered so.
    pub(super) fn waits_for_majority(&self, status: StatusCode) -> bool {
        self.class() == Class::Read
            && self.facts.consistency == Consistency::Strong
            && self.facts.ack == Ack::Majority
            && !status.is_server_error()
    }

    /// Waits until a majority holds what this node's application has seen by now. `false`: this node is the
    /// primary no more, and the next one is to be asked.
    ///
    /// # Errors
    ///
    /// When no majority has acknowledged it in time, or nobody can say what it has seen.
    pub(super) async fn until_held(&self, view: &ClusterView) -> Result<bool, Problem> {
        let shared = &self.worker.shared;
        let position = match shared.engine.read_position().await {
            Ok(position) if position.epoch <= view.epoch() => position,
            Ok(_) => return Ok(false),
            Err(why) => {
                if let Some(held_back) = may_say("position after a read") {
                    tracing::error!(%why, held_back, "cannot read the position after a read");
                }
                let detail = "the application has answered, but the database cannot be read";
                return Err(Problem::new(ProblemKind::AppUnreachable, detail));
            }
        };
        let waiting = timeout(shared.ack.timeout, shared.ack.acks.majority(position));
        match self.while_primary(view, waiting).await {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(_)) => {
                let detail = "no majority of the nodes confirmed in time that they hold what this \
                              read has seen";
                Err(Problem::new(ProblemKind::AckTimeout, detail).retry_safe(true))
            }
        }
    }
}
