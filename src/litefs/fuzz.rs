//! What LiteFS says: see [`crate::fuzz`].

use super::api::Info;
use super::events::Event;
use super::{output, position};
use crate::fuzz::pieces;
use crate::lines::Lines;

/// The events are the same in whatever pieces their lines come.
pub(crate) fn events(data: &[u8]) {
    let (in_pieces, all) = pieces(data);
    assert_eq!(heard(in_pieces), heard([all].into_iter()));
    let _ = serde_json::from_slice::<Info>(all);
}

fn heard<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let (mut lines, mut events) = (Lines::of_at_most(usize::MAX), Vec::new());
    for piece in pieces {
        if lines.push(piece).is_err() {
            return events;
        }
        while let Some(line) = lines.take() {
            match serde_json::from_slice(&line) {
                Ok(event) => events.push(event),
                Err(_) => return events,
            }
        }
    }
    events
}

/// No user or password of a URL gets into the log; a position is read or none.
pub(crate) fn output(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = output::understand(&text);
    let shown = output::without_secrets(&text);
    assert_eq!(output::without_secrets(&shown), shown);
    if let Some(first) = data.first_chunk() {
        let _ = position::parse(first);
    }
}
