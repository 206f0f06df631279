//! Waiting, bounded in number and time. A request leaves its place when it is dropped, which is what
//! happens to it when its client goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::rules::Class;

/// The places in which requests wait.
pub struct Holds {
    writes: Queue,
    reads: Queue,
}

struct Queue {
    taken: Arc<AtomicUsize>,
    places: usize,
}

/// A place that a request has taken.
pub(crate) struct HoldPlace(Arc<AtomicUsize>);

impl Holds {
    /// Room for this many waiting writes and reads.
    pub fn new(writes: usize, reads: usize) -> Self {
        let queue = |places| Queue { taken: Arc::default(), places };
        Self { writes: queue(writes), reads: queue(reads) }
    }

    /// A place for a request of that class, unless all are taken.
    pub(crate) fn take(&self, class: Class) -> Option<HoldPlace> {
        let queue = if class == Class::Write { &self.writes } else { &self.reads };
        let taken =
            queue.taken.fetch_update(Relaxed, Relaxed, |n| (n < queue.places).then_some(n + 1));
        taken.ok().map(|_| HoldPlace(queue.taken.clone()))
    }
}

impl Drop for HoldPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_free() {
        let holds = Holds::new(1, 0);
        let place = holds.take(Class::Write);
        assert!(place.is_some() && holds.take(Class::Write).is_none());
        drop(place);
        assert!(holds.take(Class::Write).is_some());
        assert!(holds.take(Class::Read).is_none());
    }
}
