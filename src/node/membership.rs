//! How this node finds out who is primary, by `cluster.election`.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::kept::Kept;
use super::peers::{self, Peering, reign_for_good};
use super::{SINGLE_EPOCH, elected};
use crate::cluster::{ClusterView, Epoch};
use crate::config::{Config, Election, EngineKind};
use crate::peer::Credentials;

/// One of the ways, before the engine and the data plane are there.
pub(crate) enum Beginning {
    /// There is only this node.
    Alone(Alone),
    /// It is always the same node.
    Fixed(peers::Beginning),
    Elected(elected::Beginning),
}

/// A node without others.
#[derive(Clone)]
pub(crate) struct Alone(watch::Sender<ClusterView>);

impl Beginning {
    /// The one that is configured. Others are told once `draining`.
    ///
    /// # Errors
    ///
    /// When what is on disk cannot be read or written.
    pub(crate) fn new(
        config: &Config,
        credentials: Option<Arc<Credentials>>,
        draining: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        Ok(match &config.cluster.election {
            Election::Single => Self::Alone(Alone::new(config)),
            Election::Static(primary) => {
                Self::Fixed(peers::Beginning::new(config, primary, credentials, draining)?)
            }
            Election::Raft => Self::Elected(elected::Beginning::new(config, credentials, draining)),
        })
    }

    /// The view that requests are routed by.
    pub(crate) fn view(&self) -> watch::Receiver<ClusterView> {
        match self {
            Self::Alone(Alone(view)) => view.subscribe(),
            Self::Fixed(fixed) => fixed.view(),
            Self::Elected(elected) => elected.view(),
        }
    }

    /// The epoch in which this node would reign, if that is known; `None` without other nodes.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Alone(_) => None,
            Self::Fixed(fixed) => Some(fixed.epoch()),
            Self::Elected(_) => Some(Epoch(0)),
        }
    }

    /// To the other nodes, if there are any.
    pub(crate) fn peering(&self) -> Option<&Peering> {
        match self {
            Self::Alone(_) => None,
            Self::Fixed(fixed) => Some(&fixed.peering),
            Self::Elected(elected) => Some(&elected.peering),
        }
    }
}

impl Alone {
    fn new(config: &Config) -> Self {
        let mut view = ClusterView::single(config.node.clone(), SINGLE_EPOCH);
        if !config.app.on_promote.is_empty() || config.litefs.engine != EngineKind::Embedded {
            // No primary until it has done its work, and LiteFS is there.
            view = closed(view);
        }
        Self(watch::Sender::new(view))
    }

    /// Takes writes while the engine can, if `promoted` says so. Returns when nobody looks any more.
    pub(crate) async fn begin(self, kept: Kept, promoted: impl Future<Output = bool>) {
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
        reign_for_good(&kept, SINGLE_EPOCH, promoted, open).await;
        // The channel has to stay open.
        self.0.closed().await;
    }
}

/// The same without a primary.
fn closed(view: ClusterView) -> ClusterView {
    ClusterView { primary: None, writable: false, ..view }
}
