//! What nodes say to each other about the election: see [`crate::fuzz`].

use super::transport;

/// A question or an answer is read as it was written.
pub(crate) fn messages(data: &[u8]) {
    transport::fuzz::frames(data);
}
