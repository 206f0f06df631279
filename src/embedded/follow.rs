//! A replica's side of replication: applies what the primary ships.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::image::Update;
use super::lineage::Lineage;
use super::wire::{HEARTBEAT, Message, Wire, bad};
use super::worker::Worker;
use super::{CopyRole, Embedded, over};
use crate::txid::Position;

/// Between two tries to apply what readers hold up: others get their turn.
const RETRY: Duration = Duration::from_millis(50);

/// Follows the primary at the other end of `stream` while this node is a replica that has promised no
/// later epoch.
///
/// # Errors
///
/// Always ends with one: the connection is dead, the primary refuses (and why), its epoch is over, what
/// it sends does not fit, or this node is no replica any more. The caller dials again.
pub(crate) async fn follow<S>(engine: &Embedded, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut wire = Wire::new(stream);
    let mut standing = engine.published.standing.subscribe();
    if standing.borrow_and_update().role != CopyRole::Replica {
        return Err(super::not("a replica"));
    }
    // A copy that could not be opened until now is known after this.
    let have = engine.ask(Worker::held).await?.position;
    wire.send(&Message::Hello(have)).await?;
    let lineage = match wire.receive().await? {
        Message::Lineage(lineage) => Arc::new(lineage),
        Message::Refused(reason) => return Err(refused(engine, reason)),
        _ => return Err(bad("no history first")),
    };
    let primary = lineage.clone();
    engine.ask(move |worker| worker.follows(&primary).map(drop)).await?;
    let epoch = lineage.epoch();
    tokio::select! {
        biased;
        _ = standing.wait_for(|standing| !standing.follows(epoch)) => Err(over(epoch)),
        ended = receive(engine, &lineage, &mut wire) => ended,
    }
}

async fn receive<S>(engine: &Embedded, lineage: &Arc<Lineage>, wire: &mut Wire<S>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = wire.receive().await?;
        // The primary was here when it sent this, hence not later than now.
        let heard = Instant::now();
        let applied = match message {
            Message::Alive => continue,
            Message::Level(position) => {
                let lineage = lineage.clone();
                engine.ask(move |worker| worker.level(position, &lineage)).await?
            }
            Message::Update(update) => {
                while_alive(wire, apply(engine, Arc::new(update), lineage)).await?
            }
            Message::Refused(reason) => return Err(refused(engine, reason)),
            _ => return Err(bad("a message that a primary does not send")),
        };
        *engine.published.level_at.lock() = Some(heard);
        // Whoever was promised a later epoch waits until nothing is acknowledged any more.
        let _acknowledging = engine.published.acknowledging.read().await;
        if !engine.published.standing.borrow().follows(lineage.epoch()) {
            return Err(over(lineage.epoch()));
        }
        wire.send(&Message::Applied(applied)).await?;
    }
}

fn refused(engine: &Embedded, reason: String) -> io::Error {
    engine.published.set_refusal(Some(reason.clone()));
    io::Error::new(io::ErrorKind::ConnectionRefused, reason)
}

/// Applies an update, as often as readers make it necessary.
async fn apply(
    engine: &Embedded,
    update: Arc<Update>,
    lineage: &Arc<Lineage>,
) -> io::Result<Position> {
    sleep(engine.apply_delay).await;
    let mut told = false;
    loop {
        let (update, lineage) = (update.clone(), lineage.clone());
        match engine.ask(move |worker| worker.apply(&update, &lineage)).await {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if !told {
                    tracing::warn!(%error, "an open read transaction holds up replication");
                    told = true;
                }
                sleep(RETRY).await;
            }
            applied => return applied,
        }
    }
}

/// Says that we are alive for as long as `work` takes.
async fn while_alive<S, T>(
    wire: &mut Wire<S>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = sleep(HEARTBEAT) => wire.send(&Message::Alive).await?,
        }
    }
}
