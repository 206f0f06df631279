//! The primary's side of replication: ships the newest state, whatever was skipped on the way.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::image::Image;
use super::wire::{HEARTBEAT, Message, Wire, bad};
use super::worker::Worker;
use super::{Embedded, over};
use crate::cluster::Epoch;
use crate::txid::{EpochTxid, Position, Txid};

/// What one replica is sent.
struct Feed<S> {
    wire: Wire<S>,
    epoch: Epoch,
    /// What the replica holds.
    have: Position,
    /// What it was sent by us.
    sent: Option<Arc<Image>>,
}

/// Serves the replica at the other end of `stream` while this node holds the lease of its present epoch.
/// `on_applied` is told what the replica's copy holds, each time that it says so: what we sent in this
/// epoch.
///
/// # Errors
///
/// Always ends with one: the connection is dead, the other side is no replica, or this node no primary.
pub(crate) async fn serve<S>(
    engine: &Embedded,
    stream: S,
    on_applied: impl Fn(Position) + Send,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut wire = Wire::new(stream);
    let Message::Hello(have) = wire.receive().await? else {
        return Err(bad("no greeting first"));
    };
    let lineage = engine.ask(|worker| worker.lineage()).await;
    let epoch = lineage.as_ref().map(|lineage| lineage.epoch()).unwrap_or_default();
    let mut feed = Feed { wire, epoch, have, sent: None };
    let Ok(lineage) = lineage else {
        return feed.refuse("this node is not the primary".to_owned()).await;
    };
    if have.at.epoch > epoch {
        return feed.refuse(format!("this node is still the primary of epoch {epoch}")).await;
    }
    feed.wire.send(&Message::Lineage(lineage)).await?;
    let mut standing = engine.published.standing.subscribe();
    tokio::select! {
        biased;
        _ = standing.wait_for(|standing| !standing.leads(epoch)) => Err(over(epoch)),
        ended = feed.run(engine, on_applied) => ended,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Feed<S> {
    async fn run(
        &mut self,
        engine: &Embedded,
        on_applied: impl Fn(Position) + Send,
    ) -> io::Result<()> {
        loop {
            let mut at = engine.published.position.get();
            if let Some(holds) = self.bring_level(engine).await? {
                on_applied(holds);
                at = holds.at;
            }
            // A look at least with each heartbeat.
            let news = EpochTxid { txid: Txid(at.txid.0 + 1), ..at };
            let _ = timeout(HEARTBEAT, engine.published.position.wait(news)).await;
        }
    }

    /// Sends what the replica lacks. Returns what it then holds, `None` if nothing can be sent now.
    async fn bring_level(&mut self, engine: &Embedded) -> io::Result<Option<Position>> {
        let image = match engine.ask(Worker::ship).await {
            Ok(image) => image,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return self.refuse(error.to_string()).await.map(|()| None);
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error),
            // Locked, or not readable now: `state` says why.
            Err(_) => return self.wire.send(&Message::Alive).await.map(|()| None),
        };
        let position = image.position();
        if position.at.epoch != self.epoch {
            return Err(over(self.epoch));
        }
        let message = if position.checksum == self.have.checksum {
            Message::Level(position)
        } else if image.is_empty() {
            // A primary without a database never wipes a replica that has one.
            return self.wire.send(&Message::Alive).await.map(|()| None);
        } else {
            // What the replica brought along is known by its checksum only.
            let base = self.sent.as_deref();
            let base = base.filter(|sent| sent.position().checksum == self.have.checksum);
            Message::Update(image.update(base))
        };
        self.wire.send(&message).await?;
        self.have = self.applied().await?;
        if self.have != position {
            return Err(bad("that it applied something else"));
        }
        self.sent = Some(image);
        Ok(Some(position))
    }

    async fn applied(&mut self) -> io::Result<Position> {
        loop {
            match self.wire.receive().await? {
                Message::Alive => {}
                Message::Applied(position) => return Ok(position),
                _ => return Err(bad("a message that a replica does not send")),
            }
        }
    }

    /// Tells the replica why it gets nothing.
    async fn refuse(&mut self, reason: String) -> io::Result<()> {
        self.wire.send(&Message::Refused(reason.clone())).await?;
        // It is read before the connection is closed.
        let _ = timeout(HEARTBEAT, self.wire.receive()).await;
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason))
    }
}
