//! `litepilot backup verify`

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Opened, PlaceArgs};
use crate::backup::object::{Object, Stored};
use crate::backup::restore::{at, reach, whole};
use crate::backup::spool::verify as read_whole;
use crate::backup::store::StoreError;

/// A clock that differs by more than this is said to be off, in milliseconds.
const CLOCK: u64 = 5 * 60 * 1000;

/// The arguments of `litepilot backup verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Where there is room for the largest file [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Runs it: exit code 1 if something is damaged or missing.
///
/// # Errors
///
/// When the backup cannot be read.
pub(super) async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let opened = args.place.open(&args.scratch.unwrap_or_else(std::env::temp_dir)).await?;
    let (mut files, mut lines) = (0, Vec::new());
    for (db, generations) in &opened.catalog {
        let mut damaged = HashSet::new();
        for stored in generations.values().flatten() {
            files += 1;
            if let Some(why) = examine(&opened, &stored.object).await? {
                let key = stored.object.key();
                lines.push(format!("DAMAGED  {key}: {why}"));
                damaged.insert(key);
            }
        }
        for stored in generations.values() {
            for file in whole(stored, &damaged).cut_off() {
                lines.push(format!("CUT OFF  {}: what it goes on from is missing", file.key()));
            }
            lines.extend(clock(stored).map(|why| format!("CLOCK    {db}: {why}")));
        }
        let left = reach(generations, &damaged);
        lines.extend(left.iter().map(|range| format!("good     {db}, {range}")));
    }
    let bad = lines.iter().any(|line| line.starts_with("DAMAGED") || line.starts_with("CUT OFF"));
    for line in lines {
        let _ = writeln!(io::stdout(), "{line}");
    }
    let _ = writeln!(io::stdout(), "{}: {files} files were read", opened.place);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is wrong with a file, if anything.
async fn examine(opened: &Opened, object: &Object) -> anyhow::Result<Option<String>> {
    let copy = opened.scratch.0.file()?;
    match opened.store.get(&object.key(), copy.path()).await {
        Ok(()) => {}
        // Merged into another meanwhile, or removed by hand.
        Err(StoreError::NotThere(_)) => return Ok(Some("it is gone".to_owned())),
        Err(why) => return Err(why.into()),
    }
    Ok(match read_whole(copy.path()) {
        Ok(facts) if object.is(&facts) => None,
        Ok(_) => Some("it is not what its name says".to_owned()),
        Err(why) => Some(why.to_string()),
    })
}

/// Whether what a primary called the time was not the store's.
fn clock(files: &[Stored]) -> Option<String> {
    let ahead = |stored: &&Stored| stored.object.millis > stored.modified.saturating_add(CLOCK);
    let ahead = files.iter().find(ahead)?;
    Some(format!(
        "a primary's clock was ahead: at {} it wrote what it said was of {}. --at with times of then may be \
         wrong; TXIDs are right",
        at(ahead.modified),
        at(ahead.object.millis)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::ltx::{Facts, Header};
    use crate::backup::object::Generation;
    use crate::cluster::Epoch;
    use crate::txid::{Checksum, Txid};

    #[test]
    fn a_clock_that_was_ahead_is_told() {
        let file = |millis| {
            let header = Header::new(4096, 1, (Txid(1), Txid(1)), millis);
            let facts = Facts { header, post: Checksum(1) };
            let generation = Generation { epoch: Epoch(1), n: 0 };
            let object = Object::new("app.db", generation, Epoch(1), &facts);
            Stored { object, size: 1, modified: CLOCK }
        };
        assert_eq!(clock(&[file(0), file(CLOCK), file(2 * CLOCK)]), None);
        let told = clock(&[file(0), file(60 * 60 * 1000)]).unwrap();
        assert!(told.contains("1970-01-01T01:00:00Z"), "{told}");
    }
}
