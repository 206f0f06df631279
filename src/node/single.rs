//! `election: single`: a node without others.

use tokio::sync::watch;

use super::SINGLE_EPOCH;
use super::context::NodeContext;
use super::permanent::PermanentPrimary;
use crate::cluster::ClusterView;
use crate::config::{Config, EngineKind};
use crate::election::context::NodeCallbacks;

pub(crate) struct SingleMembership(watch::Sender<ClusterView>);

impl SingleMembership {
    pub(crate) fn new(config: &Config) -> Self {
        let mut view = ClusterView::single(config.node.clone(), SINGLE_EPOCH);
        if !config.app.on_promote.command().is_empty()
            || config.litefs.engine != EngineKind::Embedded
        {
            // No primary before on_promote has run and LiteFS is there.
            view = closed(view);
        }
        Self(watch::Sender::new(view))
    }

    pub(crate) fn view(&self) -> watch::Receiver<ClusterView> {
        self.0.subscribe()
    }

    /// Takes writes while the engine can, once `on_promote` has run. Returns when nobody looks any more.
    pub(crate) async fn run(self, primary: PermanentPrimary, context: NodeContext) {
        let open = |open| {
            self.0.send_if_modified(|view| {
                let news = view.writable != open;
                if news {
                    *view = match open {
                        true => ClusterView::single(view.node.clone(), SINGLE_EPOCH),
                        false => closed(view.clone()),
                    };
                }
                news
            });
        };
        primary.hold(SINGLE_EPOCH, context.promoted(SINGLE_EPOCH), open).await;
        // The channel has to stay open.
        self.0.closed().await;
    }
}

/// The same without a primary.
fn closed(view: ClusterView) -> ClusterView {
    ClusterView { primary: None, writable: false, ..view }
}
