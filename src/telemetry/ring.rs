//! The latest of something, bounded, and a live feed of what follows.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast;

/// Keeps the latest values, and feeds those who follow.
pub(crate) struct Ring<T> {
    kept: Mutex<VecDeque<T>>,
    most: usize,
    feed: broadcast::Sender<T>,
}

impl<T: Clone> Ring<T> {
    /// Keeps `most` values; a follower may be that many behind before it misses some.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most, feed: broadcast::Sender::new(most) }
    }

    /// Keeps a value, in place of the oldest if it is full, and tells the followers.
    pub(crate) fn push(&self, value: T) {
        let mut kept = self.kept();
        if kept.len() == self.most {
            kept.pop_front();
        }
        kept.push_back(value.clone());
        // Sent under the lock, so that a follower gets each value once: kept or fed.
        let _ = self.feed.send(value);
    }

    /// The latest values, oldest first.
    pub(crate) fn latest(&self) -> Vec<T> {
        self.kept().iter().cloned().collect()
    }

    /// The latest values, and from there on each new one. A follower that falls too far behind is
    /// told how many it missed.
    pub(crate) fn follow(&self) -> (Vec<T>, broadcast::Receiver<T>) {
        let kept = self.kept();
        (kept.iter().cloned().collect(), self.feed.subscribe())
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.kept.lock()
    }
}
