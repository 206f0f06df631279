//! What nodes say about themselves: see [`crate::fuzz`].

use super::link::receive;
use super::report::Line;
use crate::fuzz::at_once;

pub(crate) fn lines(data: &[u8]) {
    let Ok(peer) = "a".parse() else { return };
    let _ = at_once(receive(data, &peer, |line| {
        let written = line.encode().unwrap_or_default();
        let again = serde_json::from_slice::<Line>(&written);
        assert!(again.is_ok_and(|again| again == line), "{written:?}");
        assert!(line.report.learned.iter().flat_map(|routes| routes.0.iter()).count() < data.len());
    }));
}
