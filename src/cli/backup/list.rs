//! `litepilot backup list`

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;

use super::PlaceArgs;
use crate::backup::history::Point;
use crate::backup::object::Stored;
use crate::backup::restore::{at, whole};
use crate::cli::status::columns;

/// The arguments of `litepilot backup list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Every moment that can be restored, not only the first and the last
    #[arg(long)]
    points: bool,
}

/// Runs it.
///
/// # Errors
///
/// When the backup cannot be read.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let opened = args.place.open(&std::env::temp_dir()).await?;
    let mut rows =
        vec![["DATABASE", "GENERATION", "FIRST", "LAST", "FILES", "SIZE"].map(str::to_owned)];
    let mut points = String::new();
    for (db, generations) in &opened.catalog {
        for (generation, files) in generations {
            let found = whole(files, &HashSet::new()).points();
            rows.push(row(db, &generation.to_string(), files, &found));
            for point in found.iter().filter(|_| args.points) {
                points.push_str(&format!("{db} {generation} {}\n", moment(point)));
            }
        }
    }
    if args.points {
        return super::super::print(points.trim_end());
    }
    super::super::print(columns(&rows).trim_end())
}

fn row(db: &str, generation: &str, files: &[Stored], points: &[Point]) -> [String; 6] {
    let end = |point: Option<&Point>| point.map_or("-".to_owned(), moment);
    [
        db.to_owned(),
        generation.to_owned(),
        end(points.first()),
        end(points.last()),
        files.len().to_string(),
        size(files.iter().map(|stored| stored.size).sum()),
    ]
}

fn moment(point: &Point) -> String {
    format!("{} {}", at(point.millis), point.at.txid)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
