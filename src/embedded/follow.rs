//! A replica's side of replication: takes what the primary ships.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::sleep;

use super::checksum::Position;
use super::image::{MAX_SIZE, Page, Update};
use super::tenure::Tenure;
use super::wire::{self, Frames, HEARTBEAT, Message, VERSION};
use super::worker::Command;
use super::{Duty, Embedded, lock};

/// Between two tries to apply what readers hold up: others get their turn.
const RETRY: Duration = Duration::from_millis(50);

/// Follows the primary at the other end for as long as this node is a replica that has not let go of
/// its reign.
///
/// # Errors
///
/// Always ends with one: the link is dead, the primary refuses (and why), its reign is over, what it
/// sends does not fit, or this node is no replica any more. The caller dials again.
pub(crate) async fn follow<S>(engine: &Embedded, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (read, mut io) = tokio::io::split(stream);
    let mut frames = Frames::new(read);
    let mut standing = engine.shared.standing.subscribe();
    if standing.borrow_and_update().duty != Duty::Replica {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this node is not a replica"));
    }
    // A copy that could not be opened until now is known after this.
    let have = engine.ask(Command::Held).await?.position;
    wire::send(&mut io, &Message::Hello { version: VERSION, have }).await?;
    let reign = match frames.next().await? {
        Message::Tenure(reign) => Arc::new(reign),
        Message::Refused(reason) => return Err(refused(engine, reason)),
        _ => return Err(wire::bad("no reign first")),
    };
    engine.ask(|reply| Command::Follow(reign.clone(), reply)).await?;
    let epoch = reign.epoch();
    tokio::select! {
        biased;
        _ = standing.wait_for(|standing| !standing.follows(epoch)) => {
            Err(io::Error::new(io::ErrorKind::Interrupted, "this node has let go of the primary"))
        }
        ended = obey(engine, &reign, &mut frames, &mut io) => ended,
    }
}

async fn obey<S>(
    engine: &Embedded,
    reign: &Arc<Tenure>,
    frames: &mut Frames<ReadHalf<S>>,
    io: &mut WriteHalf<S>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    loop {
        let message = frames.next().await?;
        // The primary was here when it sent this, hence not later than now.
        let heard = Instant::now();
        let applied = match message {
            Message::Alive => continue,
            Message::Level(position) => {
                engine.ask(|reply| Command::Level(position, reign.clone(), reply)).await?
            }
            Message::Update { base, position, page_size, count, changed } => {
                let head = Update { base, position, page_size, count, pages: Vec::new() };
                let update = Arc::new(receive(frames, head, changed).await?);
                while_alive(io, apply(engine, update, reign)).await?
            }
            Message::Refused(reason) => return Err(refused(engine, reason)),
            _ => return Err(wire::bad("a message that a primary does not send")),
        };
        *lock(&engine.shared.level_at) = Some(heard);
        acknowledge(engine, reign, io, applied).await?;
    }
}

/// Tells the primary, unless this node has let go of it: whoever was told that waits until nothing is
/// said any more.
async fn acknowledge<S>(
    engine: &Embedded,
    reign: &Tenure,
    io: &mut WriteHalf<S>,
    applied: Position,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let _saying = engine.shared.acknowledging.read().await;
    if !engine.shared.standing.borrow().follows(reign.epoch()) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "its reign is over"));
    }
    wire::send(io, &Message::Applied(applied)).await
}

fn refused(engine: &Embedded, reason: String) -> io::Error {
    engine.shared.set_refusal(Some(reason.clone()));
    io::Error::new(io::ErrorKind::ConnectionRefused, reason)
}

/// Collects the pages of an update.
async fn receive<R>(
    frames: &mut Frames<ReadHalf<R>>,
    mut update: Update,
    changed: u32,
) -> io::Result<Update>
where
    R: AsyncRead + AsyncWrite,
{
    let Update { page_size, count, .. } = update;
    let possible = page_size.is_power_of_two()
        && (512..=65536).contains(&page_size)
        && u64::from(page_size) * u64::from(count) <= MAX_SIZE
        && changed <= count;
    if !possible {
        return Err(wire::bad("an update of impossible size"));
    }
    while update.pages.len() < changed as usize {
        match frames.next().await? {
            Message::Alive => {}
            Message::Pages(pages) => split(pages, page_size, &mut update.pages)?,
            _ => return Err(wire::bad("something else in the middle of an update")),
        }
    }
    if update.pages.len() > changed as usize {
        return Err(wire::bad("more pages than it announced"));
    }
    Ok(update)
}

fn split(mut pages: Bytes, page_size: u32, into: &mut Vec<Page>) -> io::Result<()> {
    let whole = 4 + page_size as usize;
    if pages.is_empty() || !pages.len().is_multiple_of(whole) {
        return Err(wire::bad("a part of a page"));
    }
    while pages.has_remaining() {
        let mut page = pages.split_to(whole);
        into.push((page.get_u32(), page[..].into()));
    }
    Ok(())
}

/// Applies an update, as often as readers make it necessary.
async fn apply(
    engine: &Embedded,
    update: Arc<Update>,
    reign: &Arc<Tenure>,
) -> io::Result<Position> {
    if !engine.apply_delay.is_zero() {
        sleep(engine.apply_delay).await;
    }
    let mut told = false;
    loop {
        let (update, reign) = (update.clone(), reign.clone());
        let applied = engine.ask(|reply| Command::Apply(update, reign, reply)).await;
        match applied {
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
    io: &mut WriteHalf<S>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T>
where
    S: AsyncRead + AsyncWrite,
{
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = sleep(HEARTBEAT) => wire::send(io, &Message::Alive).await?,
        }
    }
}
