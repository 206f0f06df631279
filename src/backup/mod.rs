//! Continuous backup of what LiteFS replicates: LiteFS Cloud's API, which LiteFS speaks and whose service is
//! gone, over a directory or a bucket.
//!
//! # What LiteFS does with the answers
//!
//! The primary's LiteFS asks `GET /pos` at the beginning, each 10 s, and a second after any error; then, for
//! each database, with what that said:
//!
//! | the answer has | LiteFS |
//! | --- | --- |
//! | no such database | `POST /db/tx` with a snapshot: `min` is 1, every page |
//! | the position that it is at | nothing |
//! | an earlier one, whose transactions after it LiteFS still keeps | `POST /db/tx` with up to 256 of them as one |
//! | an earlier one, whose transactions it keeps no more | `GET /db/snapshot`, and **overwrites itself** |
//! | a later one, or the same with another checksum | the same |
//! | one of a database that it does not have | the same |
//!
//! To a `POST` the code `EPOSMISMATCH` has it do the same; any other error is logged and tried again. What a
//! later answer names does not matter to a database at an earlier position whose history is another one: its
//! transactions are sent, and only their `pre` checksum tells.
//!
//! LiteFS takes the backup for the authority. We do not: after a lossy failover, or a restore, what is kept has
//! transactions that the cluster gave up. So, each enough by itself:
//!
//! 1. `GET /db/snapshot` is always refused, and `EPOSMISMATCH` never said: nothing can overwrite LiteFS.
//! 2. A database is named only at a position from which LiteFS can go on ([`tenure`]); of any other it sends a
//!    snapshot, which begins a new generation.
//!
//! Asked for a snapshot nevertheless, we know that LiteFS cannot go on, and name that database no more.
//!
//! # Who writes
//!
//! Only a node that holds the lease answers. A deposed one may still write for a moment: names bear an
//! epoch and nothing is ever replaced ([`object`]), and of two ends of a history, as of two generations, that of
//! the later epoch counts ([`history`]).
//!
//! | module | subject |
//! | --- | --- |
//! | [`ltx`], [`merge`] | LiteFS' files; several as one |
//! | [`object`], `escape`, [`history`], [`tenure`], [`plan`], [`lag`] | names; what they lead to; what LiteFS is answered; what is merged and removed; how far behind. Pure |
//! | [`store`], [`catalog`] | a directory or a bucket; what is in it, and whose it is |
//! | [`server`], [`keeper`], [`mod@spool`], [`refusal`] | what LiteFS asks, and how it is kept |
//! | [`upkeep`] | compaction, snapshots, retention |
//! | [`restore`] | back to a database |
//! | [`progress`] | for status, metrics and warnings |

pub(crate) mod catalog;
mod escape;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod history;
mod keeper;
mod lag;
pub(crate) mod ltx;
pub(crate) mod merge;
pub(crate) mod object;
pub(crate) mod plan;
pub(crate) mod progress;
mod refusal;
pub(crate) mod restore;
mod server;
pub(crate) mod spool;
pub(crate) mod store;
mod tenure;
mod upkeep;

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::{ClusterView, Role};
use crate::position::PositionCell;
use crate::secret::Secret;
use crate::telemetry::warnings::Warnings;
use crate::txid::{EpochTxid, Txid};

use keeper::Keeper;
use progress::Progress;
use spool::Spool;
use store::Place;

/// Between two looks at the position, while that changes.
const LOOK: Duration = Duration::from_millis(250);

/// What a node backs up, and how.
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) schedule: plan::Schedule,
    pub(crate) data_dir: PathBuf,
    /// LiteFS'.
    pub(crate) mount: PathBuf,
    pub(crate) untracked: BTreeSet<String>,
    /// What LiteFS is to know.
    pub(crate) secret: Secret,
    pub(crate) view: watch::Receiver<ClusterView>,
    pub(crate) position: Arc<PositionCell>,
    pub(crate) warnings: Arc<Warnings>,
}

/// Where files on their way are.
pub(crate) fn spool(data_dir: &Path) -> PathBuf {
    data_dir.join("backup")
}

/// Serves LiteFS on `listener` for as long as the tasks go on.
///
/// # Errors
///
/// When the store cannot be used at all, or `data_dir` not be written.
pub(crate) fn start(
    options: Options,
    listener: TcpListener,
    tasks: &mut JoinSet<()>,
) -> io::Result<Arc<Progress>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let place = options.place.to_string();
    let store = store::open(&options.place)
        .map_err(|why| io::Error::other(format!("backup.url: {place}: {why}")))?;
    let progress = Arc::new(Progress::new(place.clone(), options.warnings));
    let keeper = Arc::new(Keeper {
        store,
        place,
        spool: Spool::new(spool(&options.data_dir))?,
        mount: options.mount,
        untracked: options.untracked,
        view: options.view.clone(),
        progress: progress.clone(),
        tenure: Default::default(),
    });
    let server = server::BackupServer { keeper: keeper.clone(), secret: options.secret };
    tasks.spawn(server.serve(listener));
    tasks.spawn(upkeep::run(keeper, options.schedule));
    tasks.spawn(watch_lag(options.view, options.position, progress.clone()));
    Ok(progress)
}

/// Remembers when the primary had how many transactions.
async fn watch_lag(
    mut view: watch::Receiver<ClusterView>,
    position: Arc<PositionCell>,
    progress: Arc<Progress>,
) {
    let primary = |view: &ClusterView| view.role == Role::Primary;
    while view.wait_for(primary).await.is_ok() {
        progress.begin(true);
        tokio::select! {
            _ = view.wait_for(|view| !primary(view)) => {}
            () = note_moves(&position, &progress) => {}
        }
        progress.begin(false);
    }
}

async fn note_moves(position: &PositionCell, progress: &Progress) {
    loop {
        let EpochTxid { epoch, txid } = position.get();
        progress.has(txid);
        sleep(LOOK).await;
        position.wait(EpochTxid { epoch, txid: Txid(txid.0.saturating_add(1)) }).await;
    }
}

#[cfg(test)]
mod tests;
