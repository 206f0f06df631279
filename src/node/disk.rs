//! Room on the disks that hold a node's data. Without it SQLite, LiteFS and Raft fail, each in its own way;
//! so it is said before, and a primary without room hands over to a node that has some.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::Role;
use crate::config::{Config, EngineKind};
use crate::election::failure::{Failure, Relief};
use crate::peer::gossip::Peers;
use crate::telemetry::warnings::Warnings;

const KIND: &str = "disk-full";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Before a handover that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Bytes; a disk with less is full.
const FULL: u64 = 16 << 20;
/// A disk that was full is no more once it has as many: it is not to be full and not full by turns.
const ROOM: u64 = 32 << 20;

/// A directory of this node's, by its key in the configuration.
type Dir = (&'static str, PathBuf);

/// What else is known of full disks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DiskState {
    /// Why this node's counts as full.
    full: watch::Receiver<Option<String>>,
    heard: Option<watch::Receiver<Peers>>,
}

impl DiskState {
    /// Looks again and again, for as long as the tasks go on.
    pub(crate) fn watch(
        config: &Config,
        heard: Option<watch::Receiver<Peers>>,
        warnings: Arc<Warnings>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (publish, full) = watch::channel(None);
        let dirs = dirs(config);
        tasks.spawn(async move {
            loop {
                look(&dirs, &publish, &warnings).await;
                sleep(LOOK).await;
            }
        });
        Self { full, heard }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.borrow().is_some()
    }

    /// Why another node had better be the primary: this one's disk is full, and that one's is not.
    pub(crate) fn unfit(&self) -> Option<String> {
        let why = self.full.borrow().clone()?;
        let has_room = |peers: &Peers| {
            peers.values().any(|peer| {
                peer.reachable && peer.report.role != Role::Witness && !peer.report.disk_full
            })
        };
        self.heard.as_ref().is_some_and(|heard| has_room(&heard.borrow())).then_some(why)
    }
}

/// Of a primary, for as long as another node has room.
impl Failure for DiskState {
    const EVENT: (&'static str, &'static str) =
        (KIND, "this primary's disk is full: another node has taken over");
    const RELIEF: Relief = Relief::AnyNode;

    async fn lasts(&mut self) {
        // Without the looker there is nothing to wait for.
        if self.full.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
        while self.unfit().is_none() {
            sleep(AGAIN).await;
        }
    }

    async fn may_last(&mut self) {
        sleep(AGAIN).await;
    }
}

fn dirs(config: &Config) -> Vec<Dir> {
    let mut dirs = vec![("data_dir", config.data_dir.clone())];
    if !config.is_witness() {
        dirs.push(match config.litefs.engine {
            EngineKind::Embedded => ("litefs.mount", config.litefs.mount.clone()),
            EngineKind::Litefs | EngineKind::External => {
                ("litefs.data", config.litefs.data.clone())
            }
        });
    }
    dirs
}

async fn look(dirs: &[Dir], publish: &watch::Sender<Option<String>>, warnings: &Warnings) {
    let was_full = publish.borrow().is_some();
    let asked = dirs.to_vec();
    let found =
        tokio::task::spawn_blocking(move || asked.iter().find_map(|dir| full(dir, was_full)));
    let Ok(found) = found.await else { return };
    match &found {
        Some(why) => warnings.raise(KIND, why.clone()),
        None => warnings.clear(KIND, "there is room on the disk again"),
    }
    publish.send_replace(found);
}

/// Why a directory's disk is full. One that cannot be asked is not known to be.
fn full((key, dir): &Dir, was_full: bool) -> Option<String> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    let least = if was_full { ROOM } else { FULL };
    // Some file systems do not count files.
    let no_files = disk.f_files > 0 && disk.f_favail == 0;
    if left >= least && !no_files {
        return None;
    }
    let dir = dir.display();
    Some(match no_files {
        true => format!("the disk of {key} ({dir}) takes no more files: remove some"),
        false => {
            format!("the disk of {key} ({dir}) is full, {} MiB are left: make room", left >> 20)
        }
    })
}
