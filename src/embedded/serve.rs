//! The primary's side of replication: ships the newest state, whatever was skipped on the way.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::Embedded;
use super::checksum::Position;
use super::image::Update;
use super::primary::Shipped;
use super::wire::{self, CHUNK, Frames, HEARTBEAT, Message, VERSION};
use super::worker::Command;
use crate::cluster::Epoch;
use crate::txid::{EpochTxid, Txid};

struct Link<S> {
    frames: Frames<ReadHalf<S>>,
    io: WriteHalf<S>,
    /// What the replica holds.
    have: Position,
    /// What it was sent by us.
    sent: Option<Shipped>,
}

/// Serves one replica for as long as this node reigns in the epoch that it has now. `on_applied` is
/// called with what the replica's copy holds, each time that it says so; it is what we sent in this
/// reign.
///
/// # Errors
///
/// Always ends with one: the link is dead, the other side is no replica, or this node no primary.
pub(crate) async fn serve<S>(
    engine: &Embedded,
    stream: S,
    on_applied: impl Fn(Position) + Send,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (read, io) = tokio::io::split(stream);
    let mut frames = Frames::new(read);
    let Message::Hello { version, have } = frames.next().await? else {
        return Err(wire::bad("no greeting first"));
    };
    let mut link = Link { frames, io, have, sent: None };
    if version != VERSION {
        let ours = format!("this node speaks version {VERSION} of replication, not {version}");
        return link.refuse(ours).await;
    }
    let Ok(reign) = engine.ask(Command::Tenure).await else {
        return link.refuse("this node is not the primary".to_owned()).await;
    };
    let epoch = reign.epoch();
    if have.at.epoch > epoch {
        return link.refuse(format!("this node still reigns in epoch {epoch}")).await;
    }
    wire::send(&mut link.io, &Message::Tenure(reign)).await?;
    let mut standing = engine.shared.standing.subscribe();
    tokio::select! {
        biased;
        _ = standing.wait_for(|standing| !standing.reigns(epoch)) => {
            Err(over(epoch))
        }
        ended = link.run(engine, epoch, on_applied) => ended,
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Link<S> {
    async fn run(
        &mut self,
        engine: &Embedded,
        epoch: Epoch,
        on_applied: impl Fn(Position) + Send,
    ) -> io::Result<()> {
        loop {
            let known = engine.shared.position.get();
            let at = match self.bring_level(engine, epoch).await? {
                Some(holds) => {
                    on_applied(holds);
                    holds.at
                }
                None => known,
            };
            // A look at least with each heartbeat.
            let news = EpochTxid { txid: Txid(at.txid.0 + 1), ..at };
            let _ = timeout(HEARTBEAT, engine.shared.position.wait(news)).await;
        }
    }

    /// Sends what the replica lacks. Returns what it then holds, `None` if nothing can be sent now.
    async fn bring_level(
        &mut self,
        engine: &Embedded,
        epoch: Epoch,
    ) -> io::Result<Option<Position>> {
        let shipped = match engine.ask(Command::Ship).await {
            Ok(shipped) => shipped,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return self.refuse(error.to_string()).await.map(|()| None);
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error),
            Err(_) => {
                // Locked, or not readable now: `state` says why.
                wire::send(&mut self.io, &Message::Alive).await?;
                return Ok(None);
            }
        };
        let position = shipped.position();
        if position.at.epoch != epoch {
            return Err(over(epoch));
        }
        if position.checksum == self.have.checksum {
            wire::send(&mut self.io, &Message::Level(position)).await?;
        } else if shipped.image.is_empty() {
            // A primary without a database never wipes a replica that has one.
            wire::send(&mut self.io, &Message::Alive).await?;
            return Ok(None);
        } else {
            // What the replica brought along is known by its checksum only.
            let base =
                self.sent.as_ref().filter(|sent| sent.position().checksum == self.have.checksum);
            let update = shipped.image.update(base.map(|base| &*base.image), position.at);
            self.send_update(&update).await?;
        }
        self.have = self.applied().await?;
        if self.have != position {
            return Err(wire::bad("that it applied something else"));
        }
        self.sent = Some(shipped);
        Ok(Some(position))
    }

    async fn send_update(&mut self, update: &Update) -> io::Result<()> {
        let Update { base, position, page_size, count, .. } = *update;
        let changed = u32::try_from(update.pages.len()).unwrap_or(u32::MAX);
        let head = Message::Update { base, position, page_size, count, changed };
        wire::send(&mut self.io, &head).await?;
        let mut chunk = BytesMut::new();
        for (number, page) in &update.pages {
            chunk.put_u32(*number);
            chunk.put_slice(page);
            if chunk.len() >= CHUNK {
                wire::send(&mut self.io, &Message::Pages(chunk.split().freeze())).await?;
            }
        }
        if chunk.is_empty() {
            return Ok(());
        }
        wire::send(&mut self.io, &Message::Pages(chunk.freeze())).await
    }

    async fn applied(&mut self) -> io::Result<Position> {
        loop {
            match self.frames.next().await? {
                Message::Alive => {}
                Message::Applied(position) => return Ok(position),
                _ => return Err(wire::bad("a message that a replica does not send")),
            }
        }
    }

    /// Tells the replica why it gets nothing.
    async fn refuse(&mut self, reason: String) -> io::Result<()> {
        wire::send(&mut self.io, &Message::Refused(reason.clone())).await?;
        // Let it be read before the link is closed.
        let _ = timeout(HEARTBEAT, self.frames.next()).await;
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason))
    }
}

fn over(epoch: Epoch) -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, format!("the reign in epoch {epoch} is over"))
}
