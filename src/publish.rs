//! Telling others of a value on a `watch` channel.

use tokio::sync::watch;

/// Publishes `value` if it differs from the one there; otherwise nobody is woken. Whether it did.
pub(crate) fn if_changed<T: PartialEq>(channel: &watch::Sender<T>, value: T) -> bool {
    channel.send_if_modified(|known| {
        let modified = *known != value;
        *known = value;
        modified
    })
}
