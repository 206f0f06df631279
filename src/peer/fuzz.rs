//! What comes to the peer port: see [`crate::fuzz`].

use super::gossip;
use super::greeting::{read_answer, read_hello, refusal_line};
use crate::fuzz::at_once;

/// A greeting is read as it was written, and so is a refusal.
pub(crate) fn greeting(data: &[u8]) {
    if let Ok(Some(hello)) = at_once(read_hello(&mut &data[..])) {
        let line = hello.to_line();
        assert_eq!(at_once(read_hello(&mut &line[..])).ok().flatten(), Some(hello));
    }
    if let Ok(Err((refusal, detail))) = at_once(read_answer(&mut &data[..])) {
        assert!(detail.len() <= 3 * 256 && !detail.contains(char::is_control));
        let line = refusal_line(refusal, &detail);
        let again = at_once(read_answer(&mut &line[..]));
        assert!(matches!(again, Ok(Err((same, _))) if same == refusal));
    }
}

/// A node's reports are read as they were written.
pub(crate) fn gossip(data: &[u8]) {
    gossip::fuzz::lines(data);
}
