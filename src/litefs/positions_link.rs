//! What LiteFS' own stream does not carry: a replica tells its primary how far it is, which
//! acknowledges writes, and the primary tells where the epochs started and how far itself is, from which
//! lag is known.
//!
//! Lines of JSON in both directions, over the peer port; the replica dials. That a replica's copy is of
//! the primary's history needs no proof here: LiteFS checks that each transaction fits the one before,
//! and a copy is said to be of an epoch only then ([`super::follow`]).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf,
    WriteHalf,
};
use tokio::time::timeout;

use super::engine::{Duty, Litefs};
use crate::cluster::{Epoch, EpochStart};
use crate::txid::EpochTxid;

/// Whoever has nothing to say says it again this often.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Whoever hears nothing for this long is cut off.
const SILENCE: Duration = Duration::from_secs(5);
/// For the first line.
const GREETING: Duration = Duration::from_secs(2);
/// To write a line.
const WRITING: Duration = Duration::from_secs(1);
/// Bytes of a line. The longest has 64 starts.
const MAX_LINE: u64 = 32 * 1024;

/// What a primary says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// Where the last epochs started, its own last.
    starts: Vec<EpochStart>,
}

/// What is said from then on: how far a copy is.
#[derive(Debug, Serialize, Deserialize)]
struct At {
    at: EpochTxid,
}

struct JsonLines<S>(BufReader<ReadHalf<S>>);

impl<S: AsyncRead + AsyncWrite> JsonLines<S> {
    async fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = Vec::new();
        (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&line).map_err(io::Error::from)
    }
}

async fn say<S: AsyncRead + AsyncWrite>(
    to: &mut WriteHalf<S>,
    what: &impl Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let written = async {
        to.write_all(&line).await?;
        to.flush().await
    };
    timeout(WRITING, written).await?
}

/// A replica's end.
pub(crate) struct ReplicaLink<S> {
    lines: JsonLines<S>,
    to: WriteHalf<S>,
    epoch: Epoch,
}

impl<S: AsyncRead + AsyncWrite> ReplicaLink<S> {
    /// Hears where the epochs started, of which the other end's is the last.
    ///
    /// # Errors
    ///
    /// When the other end does not say.
    pub(crate) async fn open(stream: S) -> io::Result<(Self, Arc<[EpochStart]>)> {
        let (from, to) = tokio::io::split(stream);
        let mut lines = JsonLines(BufReader::new(from));
        let Hello { starts } = timeout(GREETING, lines.next()).await??;
        let epoch = starts.last().map(|start| start.epoch).unwrap_or_default();
        Ok((Self { lines, to, epoch }, starts.into()))
    }

    /// Tells how far `litefs` is for as long as it is of the other end's epoch, and hears how far that
    /// one is.
    ///
    /// # Errors
    ///
    /// Always ends with one.
    pub(crate) async fn run(self, litefs: &Litefs) -> io::Result<Infallible> {
        let Self { mut lines, mut to, epoch } = self;
        let hear = async {
            loop {
                let At { at } = timeout(SILENCE, lines.next()).await??;
                litefs.primary_is_at(at, Instant::now());
            }
        };
        let tell = async {
            let mut news = litefs.told.subscribe();
            loop {
                let at = *news.borrow_and_update();
                if at.epoch == epoch {
                    litefs.acknowledge(epoch, say(&mut to, &At { at })).await?;
                }
                let _ = timeout(HEARTBEAT, news.changed()).await;
            }
        };
        tokio::select! {
            ended = hear => ended,
            ended = tell => ended,
        }
    }
}

impl Litefs {
    /// As primary: tells the replica at the other end of `stream` where the epochs started and how far this
    /// copy is, and `applied` whatever the replica holds of this epoch.
    ///
    /// # Errors
    ///
    /// Always ends with one: this node is no primary any more, or the connection is dead.
    pub(crate) async fn tell<S: AsyncRead + AsyncWrite>(
        &self,
        stream: S,
        applied: impl Fn(EpochTxid),
    ) -> io::Result<Infallible> {
        let (from, mut to) = tokio::io::split(stream);
        let mut lines = JsonLines(BufReader::new(from));
        let starts = self.agreed.starts().to_vec();
        let epoch = match self.duty() {
            Duty::Primary(epoch) if starts.last().is_some_and(|start| start.epoch == epoch) => {
                epoch
            }
            _ => return Err(io::Error::other("this node is not the primary")),
        };
        say(&mut to, &Hello { starts }).await?;
        let hear = async {
            loop {
                let At { at } = lines.next().await?;
                if at.epoch == epoch && self.duty() == Duty::Primary(epoch) {
                    applied(at);
                }
            }
        };
        let tell = async {
            let mut news = self.told.subscribe();
            while self.duty() == Duty::Primary(epoch) {
                let at = *news.borrow_and_update();
                say(&mut to, &At { at }).await?;
                let _ = timeout(HEARTBEAT, news.changed()).await;
            }
            Err(io::Error::other(format!("epoch {epoch} is over")))
        };
        tokio::select! {
            ended = hear => ended,
            ended = tell => ended,
        }
    }
}
