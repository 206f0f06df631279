//! What engines of the embedded kind say to each other: see [`crate::fuzz`].

use super::wire::Wire;
use crate::fuzz::at_once;

/// Whatever comes ends sometime, and takes no more memory than has come.
pub(crate) fn messages(data: &[u8]) {
    let mut wire = Wire::new(tokio::io::join(data, tokio::io::sink()));
    while at_once(wire.receive()).is_ok() {}
}
