//! The pipes of guard and last will: see [`crate::fuzz`].

use super::estate::{Estate, line};
use crate::fuzz::pieces;
use crate::process::guard::wire::{Report, deadline_line, parse_deadline};

/// A will that is told reads as it was written; so do a guard's lines.
pub(crate) fn lines(data: &[u8]) {
    let (in_pieces, all) = pieces(data);
    let mut estate = Estate::default();
    in_pieces.for_each(|piece| drop(estate.read(piece)));
    if let Some(will) = estate.settle() {
        let mut again = Estate::default();
        let line = line(&will).unwrap_or_default();
        again.read(line.as_bytes());
        again.read(b"\n");
        assert_eq!(again.settle(), Some(will));
    }
    let text = String::from_utf8_lossy(all);
    if let Ok(report) = Report::parse(&text) {
        assert_eq!(Report::parse(report.line().trim_end()).ok(), Some(report));
    }
    if let Ok(deadline) = parse_deadline(&text) {
        assert_eq!(parse_deadline(deadline_line(deadline).trim_end()).ok(), Some(deadline));
    }
}
