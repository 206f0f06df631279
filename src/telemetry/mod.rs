//! Logs, metrics and events; what is wrong now.

pub(crate) mod clock;
pub mod events;
pub mod log;
pub(crate) mod log_throttle;
pub mod metrics;
pub(crate) mod ring;
pub mod warnings;

/// The beginning of a text, at most `at_most` bytes, cut between characters.
fn beginning(text: &str, at_most: usize) -> &str {
    let mut end = text.len().min(at_most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
