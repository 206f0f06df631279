//! Waiting until as many nodes hold a write as were asked for, before its client is answered.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, timeout};

use super::problem::{Problem, ProblemKind};
use crate::acks::Acks;
use crate::config::Ack;
use crate::telemetry::metrics::NodeMetrics;
use crate::txid::EpochTxid;

/// `cluster.ack`, and who tells what the replicas hold.
pub struct Acknowledging {
    /// What is asked for where no rule says otherwise.
    pub level: Ack,
    /// `cluster.ack_timeout`
    pub timeout: Duration,
    /// What the replicas hold of this node's writes.
    pub acks: Arc<Acks>,
    /// There are no other nodes: nobody will ever acknowledge anything.
    pub alone: bool,
}

impl Acknowledging {
    /// Waits until a write is held as `level` asks for, for at most `timeout`. Returns what the answer
    /// says of it; nothing where only the primary was asked for.
    ///
    /// # Errors
    ///
    /// 504 if no majority has acknowledged it in time.
    pub(crate) async fn wait(
        &self,
        level: Ack,
        position: EpochTxid,
        metrics: &NodeMetrics,
    ) -> Result<Option<HeaderValue>, Problem> {
        let began = Instant::now();
        let acknowledged = match level {
            Ack::Primary => return Ok(None),
            Ack::One if self.alone => false,
            Ack::One => timeout(self.timeout, self.acks.one(position)).await.is_ok(),
            Ack::Majority => timeout(self.timeout, self.acks.majority(position)).await.is_ok(),
        };
        if acknowledged {
            metrics.ack(began.elapsed());
            return Ok(Some(HeaderValue::from_static(level.as_str())));
        }
        metrics.ack_timeouts.inc();
        match level {
            Ack::Majority => Err(Problem::new(
                ProblemKind::AckTimeout,
                "the application has done it, but no majority of the nodes confirmed in time that they \
                 hold it: it stays, unless this node is lost now",
            )),
            _ => Ok(Some(TIMEOUT)),
        }
    }
}

/// What `Litepilot-Ack` says if the replicas did not answer in time.
pub(crate) const TIMEOUT: HeaderValue = HeaderValue::from_static("timeout");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acks::Electorate;
    use crate::cluster::{Epoch, NodeId};
    use crate::telemetry::metrics::Metrics;
    use crate::txid::Txid;

    const WRITE: EpochTxid = EpochTxid { epoch: Epoch(2), txid: Txid(7) };

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// A primary with these candidates beside it.
    fn primary(others: &[&str]) -> Acknowledging {
        let acks = Arc::<Acks>::default();
        acks.begin(
            WRITE.epoch,
            vec![Electorate {
                others: others.iter().copied().map(node).collect(),
                unheard: 0,
                own: true,
            }],
        );
        let timeout = Duration::from_secs(1);
        Acknowledging { level: Ack::Primary, timeout, acks, alone: others.is_empty() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_says_who_holds_the_write() {
        let metrics = Metrics::new(1);
        let says = async |who: &Acknowledging, level| {
            who.wait(level, WRITE, metrics.node())
                .await
                .map(|said| said.map(|v| v.as_bytes().to_vec()))
        };
        let cluster = primary(&["a", "b", "c"]);
        assert_eq!(says(&cluster, Ack::Primary).await.unwrap(), None);
        assert_eq!(says(&cluster, Ack::One).await.unwrap().unwrap(), b"timeout");
        assert_eq!(
            says(&cluster, Ack::Majority).await.unwrap_err().kind(),
            ProblemKind::AckTimeout
        );
        cluster.acks.heard(&node("a"), WRITE);
        assert_eq!(says(&cluster, Ack::One).await.unwrap().unwrap(), b"one");
        assert_eq!(
            says(&cluster, Ack::Majority).await.unwrap_err().kind(),
            ProblemKind::AckTimeout
        );
        cluster.acks.heard(&node("b"), WRITE);
        assert_eq!(says(&cluster, Ack::Majority).await.unwrap().unwrap(), b"majority");
        assert_eq!(metrics.node().ack_timeouts.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_alone_is_its_own_majority_and_waits_for_nobody() {
        let (metrics, alone) = (Metrics::new(1), primary(&[]));
        let began = Instant::now();
        let said = alone.wait(Ack::Majority, WRITE, metrics.node()).await;
        assert_eq!(said.unwrap().unwrap(), "majority");
        assert_eq!(alone.wait(Ack::One, WRITE, metrics.node()).await.unwrap().unwrap(), "timeout");
        assert_eq!(Instant::now(), began);
    }
}
