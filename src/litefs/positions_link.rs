//! What LiteFS' own stream does not carry: a replica tells its primary how far it is, which
//! acknowledges writes, and the primary tells where the epochs started and how far itself is, from which
//! lag is known.
//!
//! Lines of JSON in both directions, over the peer port; the replica dials. The primary announces in order
//! how far it is and which databases have changed; the replica says what it has reached of that
//! ([`super::announced`]). That its copy is of the primary's history LiteFS checks: each transaction has to
//! fit the one before, and a copy is said to be of an epoch only then ([`super::follow`]).
//!
//! Builds that know one database send and understand no `databases`, `lineage` or `checksum`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::content::Told;
use super::databases::Databases;
use super::engine::{Duty, Litefs};
use super::lineage::Lineage;
use super::sole::Sole;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::files;
use crate::lines::{JsonLines, json_line};
use crate::txid::{Checksum, EpochTxid};

/// Whoever has nothing to say says it again this often.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Whoever hears nothing for this long is cut off.
const SILENCE: Duration = Duration::from_secs(5);
/// For the first line.
const GREETING: Duration = Duration::from_secs(2);
/// To write a line.
const WRITING: Duration = Duration::from_secs(1);
/// Bytes of a line. The longest names all databases of a mount, each with less than 100 bytes and its name.
const MAX_LINE: usize = 1024 * 1024;

/// What a primary says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// Where the last epochs started, its own last.
    starts: Vec<EpochStart>,
    /// What the databases held there.
    #[serde(default)]
    lineage: Lineage,
    /// The databases that there are by now.
    #[serde(default)]
    names: BTreeSet<String>,
    /// If there was a single one at first, in this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sole: Option<Sole>,
}

/// What a replica hears first.
pub(crate) struct Heard {
    pub(crate) starts: Arc<[EpochStart]>,
    pub(crate) lineage: Lineage,
    pub(crate) names: BTreeSet<String>,
    pub(crate) sole: Option<Sole>,
}

/// What a primary announces from then on.
#[derive(Debug, Serialize, Deserialize)]
struct At {
    at: EpochTxid,
    /// The databases that have changed since the announcement before; at first all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    databases: Option<Databases>,
    /// As in what it says first: with the announcement of the second one, and from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sole: Option<Sole>,
}

/// What a replica acknowledges.
#[derive(Debug, Serialize, Deserialize)]
struct Reached {
    at: EpochTxid,
    /// Of all databases, if the copy holds exactly what was announced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<Checksum>,
}

type Lines<S> = JsonLines<BufReader<ReadHalf<S>>>;

async fn say<S: AsyncRead + AsyncWrite>(
    to: &mut WriteHalf<S>,
    what: &impl Serialize,
) -> io::Result<()> {
    let line = json_line(what)?;
    let written = async {
        to.write_all(&line).await?;
        to.flush().await
    };
    timeout(WRITING, written).await?
}

/// A replica's end.
pub(crate) struct ReplicaLink<S> {
    lines: Lines<S>,
    to: WriteHalf<S>,
    epoch: Epoch,
}

impl<S: AsyncRead + AsyncWrite> ReplicaLink<S> {
    /// Hears where the epochs started, of which the other end's is the last.
    ///
    /// # Errors
    ///
    /// When the other end does not say.
    pub(crate) async fn open(stream: S) -> io::Result<(Self, Heard)> {
        let (from, to) = tokio::io::split(stream);
        let mut lines = JsonLines::of_at_most(MAX_LINE, BufReader::new(from));
        let Hello { starts, lineage, names, sole } = timeout(GREETING, lines.more()).await??;
        let epoch = starts.last().map(|start| start.epoch).unwrap_or_default();
        Ok((Self { lines, to, epoch }, Heard { starts: starts.into(), lineage, names, sole }))
    }

    /// Tells how far `litefs` is for as long as it is of the other end's epoch, and hears how far that
    /// one is.
    ///
    /// # Errors
    ///
    /// Always ends with one.
    pub(crate) async fn run(self, litefs: &Litefs) -> io::Result<Infallible> {
        let Self { mut lines, mut to, epoch } = self;
        let heard = watch::Sender::new(false);
        let hear = async {
            loop {
                let At { at, databases, sole } = timeout(SILENCE, lines.more()).await??;
                if !litefs.follows_epoch(epoch) {
                    // To be followed anew, if this is still the primary.
                    return Err(io::Error::other("LiteFS was told to leave this primary"));
                }
                litefs.heard(at, databases, sole).await;
                litefs.primary_is_at(at, Instant::now());
                heard.send_replace(true);
            }
        };
        let tell = async {
            let mut news = litefs.told.subscribe();
            // Before the first word what is here of one database could be taken for all.
            let _ = heard.subscribe().wait_for(|heard| *heard).await;
            loop {
                let Told { at, databases } = news.borrow_and_update().clone();
                if at.epoch == epoch {
                    litefs.note_reached(at, &databases).await?;
                    let reached =
                        Reached { at, checksum: litefs.checksum_if_level(at, &databases) };
                    litefs.acknowledge(epoch, say(&mut to, &reached)).await?;
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
    /// Before it is acknowledged: of several databases LiteFS' positions alone do not tell it after a
    /// restart.
    async fn note_reached(&self, at: EpochTxid, content: &Databases) -> io::Result<()> {
        let file = {
            let store = self.store();
            store.are_several(content).then(|| store.reached_file())
        };
        let Some(file) = file else { return Ok(()) };
        files::on_disk(move || file.save(at)).await.flatten()
    }

    fn checksum_if_level(&self, at: EpochTxid, content: &Databases) -> Option<Checksum> {
        let store = self.store();
        let announced = store.announced();
        let said = announced.said(at.epoch)?;
        let same = content.among(said);
        (same == *said && said.seq() == at.txid).then(|| same.checksum())
    }

    /// Whether a replica that says so can be believed: where this node is as far, both hold the same.
    fn agrees(&self, reached: &Reached) -> bool {
        let told = self.told.borrow();
        let same = |checksum| told.at != reached.at || told.databases.checksum() == checksum;
        reached.checksum.is_none_or(same)
    }
}

impl Litefs {
    /// As primary: tells `replica` at the other end of `stream` where the epochs started and how far this
    /// copy is, and `applied` whatever the replica holds of this epoch.
    ///
    /// # Errors
    ///
    /// Always ends with one: this node is no primary any more, or the connection is dead.
    pub async fn tell<S: AsyncRead + AsyncWrite>(
        &self,
        replica: &NodeId,
        stream: S,
        applied: impl Fn(EpochTxid),
    ) -> io::Result<Infallible> {
        let (from, mut to) = tokio::io::split(stream);
        let mut lines = JsonLines::of_at_most(MAX_LINE, BufReader::new(from));
        let starts = self.agreed.starts().to_vec();
        let epoch = match self.duty() {
            Duty::Primary(epoch) if starts.last().is_some_and(|start| start.epoch == epoch) => {
                epoch
            }
            _ => return Err(io::Error::other("this node is not the primary")),
        };
        self.told_replicas.add(replica, epoch);
        let lineage = self.store().lineage().clone();
        let names = self.holds().names().cloned().collect();
        let sole = || {
            let store = self.store();
            store.sole().filter(|sole| sole.is_over() && sole.until.epoch == epoch).cloned()
        };
        say(&mut to, &Hello { starts, lineage, names, sole: sole() }).await?;
        let hear = async {
            loop {
                let reached: Reached = lines.more().await?;
                if !self.agrees(&reached) {
                    let why = format!("its copy at {} is of another history", reached.at);
                    return Err(io::Error::other(why));
                }
                if reached.at.epoch == epoch && self.duty() == Duty::Primary(epoch) {
                    applied(reached.at);
                }
            }
        };
        let tell = async {
            let mut news = self.told.subscribe();
            let mut said = Databases::default();
            while self.duty() == Duty::Primary(epoch) {
                let Told { at, databases } = news.borrow_and_update().clone();
                if at.epoch == epoch {
                    let changed = databases.other_than(&said);
                    said = databases;
                    say(&mut to, &At { at, databases: Some(changed), sole: sole() }).await?;
                }
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
