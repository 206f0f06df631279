//! WebSockets: after the application's 101 bytes flow both ways until one side ends, the node stops,
//! or the primary that the socket was tied to loses its claim.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::claim_watch;
use super::client::Client;
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
    tokio::task::spawn_local(async move {
        let _place = client;
        let flow = async {
            let mut client_side = TokioIo::new(client_side.await?);
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
            () = over => tracing::debug!("closed a socket that was tied to the primary"),
            _ = draining.wait_for(|draining| *draining) => {}
        }
    });
}
