//! WebSockets: after the application's 101 bytes flow both ways until one side ends, nothing has passed
//! for `proxy.websocket_idle`, the node stops, or the primary that the socket was tied to loses its claim.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::{Instant, sleep_until};

use super::claim_watch;
use super::client::Client;
use super::observed_io::{Clock, ObservedIo};
use super::upstream::Tunnel;
use super::worker::Worker;
use crate::cluster::Epoch;

/// What a socket ends with, beside its two sides and this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tied {
    Freely,
    /// This node's right to take writes in that epoch.
    ToClaim(Epoch),
    /// The epoch of another primary. That one closes it, unless it is cut off.
    ToEpoch(Epoch),
}

/// Ties the two connections together. `client` keeps its place among the connections meanwhile.
pub(crate) fn spawn(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    client_side: OnUpgrade,
    mut app_side: Tunnel,
    tied: Tied,
) {
    let views = worker.shared.view.clone();
    let mut draining = worker.shared.draining.clone();
    let limit = worker.shared.config.websocket_idle;
    tokio::task::spawn_local(async move {
        let _place = client;
        let passed = Rc::new(LastPassed(Cell::new(Instant::now())));
        let flow = async {
            let socket = TokioIo::new(client_side.await?);
            // Whatever passes in either direction passes here.
            let mut client_side = ObservedIo { socket, clock: passed.clone() };
            let _ = copy_bidirectional(&mut client_side, &mut app_side).await;
            Ok::<_, hyper::Error>(())
        };
        let over = async {
            match tied {
                Tied::Freely => std::future::pending().await,
                Tied::ToClaim(epoch) => claim_watch::closed(views, epoch).await,
                Tied::ToEpoch(epoch) => claim_watch::superseded(views, epoch).await,
            }
        };
        tokio::select! {
            flowed = flow => {
                if let Err(why) = flowed {
                    tracing::debug!(%why, "an upgrade failed");
                }
            }
            () = passed.too_long_ago(limit) => {
                tracing::debug!("closed a socket on which nothing had passed for proxy.websocket_idle");
            }
            () = over => tracing::debug!("closed a socket that was tied to the primary"),
            _ = draining.wait_for(|draining| *draining) => {}
        }
    });
}

/// When a byte last passed.
struct LastPassed(Cell<Instant>);

impl LastPassed {
    /// Ready once that is so long ago.
    async fn too_long_ago(&self, limit: Duration) {
        loop {
            let end = self.0.get() + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

impl Clock for LastPassed {
    fn received(&self) {
        self.0.set(Instant::now());
    }

    fn wrote(&self, taken: bool) {
        if taken {
            self.received();
        }
    }

    fn flushed(&self, _all: bool) {}
}
