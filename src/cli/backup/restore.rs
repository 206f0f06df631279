//! `litepilot backup restore`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::into_cluster::{self, Target};
use super::{Opened, PlaceArgs};
use crate::backup::history::Moment;
use crate::backup::object::Generation;
use crate::backup::restore::{RestoreError, Restored, Wanted, at, restore as run};
use crate::txid::Txid;

/// The arguments of `litepilot backup restore`.
#[derive(Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// As it was then: a time as 2026-11-29T16:00:00Z, or a TXID of 16 hex digits [default: the newest]
    #[arg(long, value_name = "TIME|TXID", value_parser = moment)]
    at: Option<Moment>,
    /// Of this generation, as `list` names it: also what a failover has lost [default: the newest that has it]
    #[arg(long, value_name = "GENERATION", value_parser = generation)]
    generation: Option<Generation>,
    /// Into this file, which must not be there
    #[arg(long, value_name = "FILE", required_unless_present = "into_cluster")]
    output: Option<PathBuf>,
    /// Into the running cluster, each database in one transaction: on the primary only
    #[arg(long, conflicts_with = "output")]
    into_cluster: bool,
    /// A database that the cluster has already stays as it is, which is no error: for app.on_promote
    #[arg(long, requires = "into_cluster")]
    if_empty: bool,
    /// Although the cluster has data: what it has now can be had from its own backup only
    #[arg(long, requires = "into_cluster", conflicts_with = "if_empty")]
    overwrite: bool,
    /// Where there is room for the database twice [default: beside FILE, or data_dir]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
///
/// When nothing was restored.
pub(super) async fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    if args.into_cluster { into_cluster(&args).await } else { into_file(&args).await }
}

async fn into_file(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let output = args.output.as_ref().context("say --output FILE")?;
    if output.exists() {
        bail!("{} is there already: name another file", output.display());
    }
    let beside = output.parent().filter(|dir| !dir.as_os_str().is_empty());
    let scratch = args.scratch.as_deref().or(beside).unwrap_or(Path::new("."));
    let opened = args.place.open(scratch).await?;
    let restored = fetch(args, &opened, &opened.only()?, output).await;
    if restored.is_err() {
        // Half of a database is none.
        let _ = std::fs::remove_file(output);
    }
    let restored = restored.with_context(|| opened.place.clone())?;
    say(&restored, &opened, &output.display().to_string())
}

/// Every database that is kept, unless one is named.
async fn into_cluster(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let config = args.place.config()?;
    let scratch = args.scratch.as_deref().unwrap_or(&config.data_dir);
    let opened = args.place.open(scratch).await?;
    if let Some(Moment::Txid(_)) = args.at {
        // Each database counts its own.
        opened.only()?;
    }
    for db in opened.catalog.keys() {
        let target = Target::of(&config, db)?;
        if may_write(args, &target)? {
            one_into_cluster(args, &opened, &target).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a database may be replaced.
fn may_write(args: &RestoreArgs, target: &Target) -> anyhow::Result<bool> {
    let (db, held) = (&target.db, target.held()?);
    match held {
        Some(held) if args.if_empty => {
            super::super::print(&format!("{db} is there, at TXID {held}: it stays as it is"))?;
            Ok(false)
        }
        Some(held) if !args.overwrite => Err(anyhow!(
            "{db} has data here, up to TXID {held}, which may be newer than the backup: --overwrite replaces \
             it, --if-empty leaves it"
        )),
        _ => Ok(true),
    }
}

async fn one_into_cluster(
    args: &RestoreArgs,
    opened: &Opened,
    target: &Target,
) -> anyhow::Result<()> {
    let db = &target.db;
    let file = opened.scratch.0.file()?;
    let restored = match fetch(args, opened, db, file.path()).await {
        Err(RestoreError::NoMoment { .. }) if opened.catalog.len() > 1 => {
            eprintln!("{db}: there is no backup of then; it stays as it is");
            return Ok(());
        }
        restored => restored.with_context(|| opened.place.clone())?,
    };
    if std::fs::metadata(file.path()).is_ok_and(|file| file.len() == 0) {
        eprintln!("{db}: it was deleted then; it stays as it is");
        return Ok(());
    }
    let (path, to) = (file.path().to_owned(), target.clone());
    let written = tokio::task::spawn_blocking(move || into_cluster::write(&path, &to));
    written.await??;
    say(&restored, opened, &format!("{db} of this cluster")).map(drop)
}

async fn fetch(
    args: &RestoreArgs,
    opened: &Opened,
    db: &str,
    to: &Path,
) -> Result<Restored, RestoreError> {
    let moment = args.at.unwrap_or(Moment::Newest);
    let wanted = Wanted { db: db.to_owned(), generation: args.generation, moment };
    run(&*opened.store, &opened.scratch.0, &opened.catalog, &wanted, to).await
}

impl Opened {
    /// The database, if there is one only.
    fn only(&self) -> anyhow::Result<String> {
        let mut names = self.catalog.keys();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(anyhow!("{}: there is no database", self.place)),
            _ => {
                let names: Vec<_> = self.catalog.keys().map(String::as_str).collect();
                Err(anyhow!("there are several: name one by --db: {}", names.join(", ")))
            }
        }
    }
}

fn say(restored: &Restored, opened: &Opened, to: &str) -> anyhow::Result<ExitCode> {
    for key in &restored.damaged {
        eprintln!("{}: {key} is damaged; other files had the same", opened.place);
    }
    let point = &restored.point;
    super::super::print(&format!(
        "restored {to} as it was at {} (TXID {}, generation {})",
        at(point.millis),
        point.at.txid,
        restored.generation
    ))
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(txid) = text.parse::<Txid>() {
        return Ok(Moment::Txid(txid));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        "write a time with its zone, as 2026-11-29T16:00:00Z, or a TXID of 16 hex digits".to_owned()
    })?;
    let millis = time.unix_timestamp_nanos() / 1_000_000;
    // Of a whole second that second itself, to its end.
    let millis = if time.nanosecond() == 0 { millis + 999 } else { millis };
    u64::try_from(millis).map(Moment::Time).map_err(|_| "there were no backups then".to_owned())
}

fn generation(text: &str) -> Result<Generation, String> {
    Generation::parse(text)
        .ok_or_else(|| "write it as `litepilot backup list` does, as 3-0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_transaction() {
        assert_eq!(moment("000000000000002a"), Ok(Moment::Txid(Txid(42))));
        assert_eq!(moment("1970-01-01T00:00:05Z"), Ok(Moment::Time(5_999)));
        assert_eq!(moment("1970-01-01T01:00:05.250+01:00"), Ok(Moment::Time(5_250)));
        for bad in ["", "yesterday", "2026-11-29", "2026-11-29T16:00:00", "1960-01-01T00:00:00Z"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
