//! Restoring into a running cluster: one transaction on its primary, through SQLite, that LiteFS replicates as
//! any other. So it extends the history that is there, in the backup too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::config::{Config, EngineKind};
use crate::litefs::{mount, position};
use crate::txid::Txid;

/// For whoever writes meanwhile.
const BUSY: Duration = Duration::from_secs(60);

/// A database in this node's mount.
#[derive(Clone)]
pub(super) struct Target {
    mount: PathBuf,
    pub(super) db: String,
}

impl Target {
    /// # Errors
    ///
    /// When this node cannot write it.
    pub(super) fn of(config: &Config, db: &str) -> anyhow::Result<Self> {
        let mount = config.litefs.mount.clone();
        if config.litefs.engine == EngineKind::Embedded {
            bail!(
                "litefs.engine is embedded: restore into a file, and that with sqlite3's .restore through \
                 `litepilot on-primary`"
            );
        }
        if !mount::is_fuse(&mount).unwrap_or(false) {
            bail!("LiteFS is not mounted at {}: start the node first", mount.display());
        }
        match std::fs::read_to_string(mount.join(".primary")) {
            Ok(primary) => Err(anyhow!(
                "this node is a replica; restore on the primary, {}: `litepilot on-primary -- litepilot backup \
                 restore …` there",
                primary.trim()
            )),
            Err(_) => Ok(Self { mount, db: db.to_owned() }),
        }
    }

    /// What the cluster has of it; `None`: nothing.
    ///
    /// # Errors
    ///
    /// When that cannot be read.
    pub(super) fn held(&self) -> anyhow::Result<Option<Txid>> {
        let at = position::read_one(&self.mount, &self.db)?;
        // A database that was deleted has a number, and no file.
        let there = self.mount.join(&self.db).exists();
        Ok(at.map(|at| at.txid).filter(|txid| *txid > Txid(0) && there))
    }
}

/// Replaces the database's content by that of a file.
///
/// # Errors
///
/// When nothing was written.
pub(super) fn write(from: &Path, to: &Target) -> anyhow::Result<()> {
    let failed = |what: &str, why: rusqlite::Error| anyhow!("{what}: {why}");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?immutable=1", from.display());
    let source = Connection::open_with_flags(uri, flags).map_err(|why| failed("the copy", why))?;
    let path = to.mount.join(&to.db);
    let mut target = Connection::open(&path).map_err(|why| failed(&to.db, why))?;
    target.busy_timeout(BUSY).map_err(|why| failed(&to.db, why))?;
    let backup = Backup::new(&source, &mut target).map_err(|why| failed(&to.db, why))?;
    // All pages in one step: one transaction.
    match backup.step(-1) {
        Ok(StepResult::Done) => Ok(()),
        Ok(_) => Err(anyhow!("{} is written by somebody else without end: try again", to.db)),
        Err(why) => Err(failed(&to.db, why)),
    }
}
