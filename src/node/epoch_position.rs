//! Reads the position when this node has become primary: one that nobody asks would go on showing what it
//! was last told of, which may be nothing at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster::{ClusterView, Epoch};
use crate::engine::Engine;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Does so at the start of each epoch of this node, for as long as there are views.
pub(super) async fn take_over(mut view: watch::Receiver<ClusterView>, engine: Arc<dyn Engine>) {
    let mut read = Epoch::default();
    while let Ok(epoch) = next(&mut view, read).await {
        // Reading publishes it. The epoch may be over before that is possible.
        match engine.read_position().await {
            Ok(_) => read = epoch,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// The epoch in which this node takes writes, once it is another one than `read`.
async fn next(
    view: &mut watch::Receiver<ClusterView>,
    read: Epoch,
) -> Result<Epoch, watch::error::RecvError> {
    let other = |view: &ClusterView| view.takes_writes() && view.epoch() != read;
    Ok(view.wait_for(other).await?.epoch())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{BoxFuture, EngineState};
    use crate::position::PositionCell;
    use crate::txid::{EpochTxid, Txid};
    use std::io;

    /// Knows where it is, once asked.
    #[derive(Default)]
    struct Silent(Arc<PositionCell>);

    const HELD: EpochTxid = EpochTxid { epoch: Epoch(3), txid: Txid(7) };

    impl Engine for Silent {
        fn position(&self) -> &Arc<PositionCell> {
            &self.0
        }

        fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
            self.0.advance(HELD);
            Box::pin(async { Ok(HELD) })
        }

        fn state(&self) -> EngineState {
            EngineState { engine: "silent", state: "running".into(), pid: None, restarts: 0 }
        }
    }

    #[tokio::test]
    async fn a_primary_that_nobody_asks_knows_where_it_is() {
        let single = ClusterView::single("a".parse().unwrap(), Epoch(3));
        let view = watch::Sender::new(ClusterView { writable: false, ..single.clone() });
        let engine = Arc::new(Silent::default());
        let position = engine.0.clone();
        tokio::spawn(take_over(view.subscribe(), engine));
        assert_eq!(position.get(), EpochTxid::default());
        view.send_replace(single);
        position.wait(HELD).await;
    }
}
