//! `litepilot backup`

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};

use super::ConfigArgs;
use crate::backup::catalog;
use crate::backup::history::Catalog;
use crate::backup::spool::Spool;
use crate::backup::store::{self, Place, Store};
use crate::config::Config;
use crate::secret::random_hex;

mod into_cluster;
mod list;
mod restore;
mod verify;

/// The arguments of `litepilot backup`.
#[derive(Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List what can be restored
    List(list::ListArgs),
    /// Read everything that is kept, and say what is damaged and what can still be restored
    Verify(verify::VerifyArgs),
    /// Restore a database into a file, or into the cluster
    Restore(restore::RestoreArgs),
}

/// Where the backup is.
#[derive(Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Read the backup there, such as another cluster's, instead of backup.url
    #[arg(long, value_name = "URL")]
    from: Option<Place>,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    db: Option<String>,
}

/// What is wrong with the configuration was printed; the exit code says it too.
#[derive(Debug)]
struct BadConfig(ExitCode);

/// A backup that was found.
struct Opened {
    place: String,
    store: Arc<dyn Store>,
    catalog: Catalog,
    scratch: Scratch,
}

/// A directory for what is on its way, which is removed in the end.
struct Scratch(Spool);

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is bad")
    }
}

impl std::error::Error for BadConfig {}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.dir());
    }
}

/// Runs it.
pub(crate) fn main(args: BackupArgs) -> ExitCode {
    let done = super::block_on(async {
        match args.command {
            Command::List(args) => list::list(args).await,
            Command::Verify(args) => verify::verify(args).await,
            Command::Restore(args) => restore::restore(args).await,
        }
    });
    super::finish(done.or_else(|why| why.downcast().map(|BadConfig(code)| code)))
}

impl PlaceArgs {
    /// The configuration, if it is needed: `--from` does without.
    fn config(&self) -> anyhow::Result<Config> {
        Ok(self.config.load().map_err(BadConfig)?)
    }

    fn place(&self) -> anyhow::Result<Place> {
        if let Some(place) = &self.from {
            return Ok(place.clone());
        }
        let backup = self.config()?.backup;
        let none = "there is no backup: in the configuration: write one, or say --from URL";
        backup.map(|backup| backup.place).context(none)
    }

    /// Opens it, with room for what is on its way in `scratch`.
    async fn open(&self, scratch: &Path) -> anyhow::Result<Opened> {
        let place = self.place()?;
        let at = || place.to_string();
        let store = store::open(&place).with_context(at)?;
        let scratch = make_scratch(scratch)?;
        let owner = catalog::owner(&*store, &scratch.0).await.with_context(at)?;
        if owner.is_none() {
            bail!("{place}: there is no backup of Litepilot's: is it the right bucket and prefix?");
        }
        let mut catalog = catalog::list(&*store).await.with_context(at)?;
        if let Some(db) = &self.db {
            let known: Vec<_> = catalog.keys().cloned().collect();
            catalog.retain(|name, _| name == db);
            if catalog.is_empty() {
                bail!("{place}: there is no {db}, but {}", known.join(", "));
            }
        }
        Ok(Opened { place: place.to_string(), store, catalog, scratch })
    }
}

fn make_scratch(dir: &Path) -> anyhow::Result<Scratch> {
    let made = || {
        let path: PathBuf = dir.join(format!("litepilot-backup-{}", random_hex::<8>()?));
        Spool::new(path)
    };
    made()
        .map(Scratch)
        .map_err(|why| anyhow!("{}: {why}: name a directory with room by --scratch", dir.display()))
}
