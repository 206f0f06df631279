//! Requests at this node's application, counted over all workers: a change of the database is put down to
//! a request only if it was the only one there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// One that comes: it is there, and it has come.
const ONE: u64 = COME | 1;
/// One that has come, in the upper bits of the count; those below count who is there.
const COME: u64 = 1 << 24;

/// Who is at the application.
#[derive(Debug, Default)]
pub struct AtApp(AtomicU64);

/// A request at the application, until it is dropped.
#[derive(Debug)]
pub(crate) struct Visit(Arc<AtApp>);

/// The only request at the application at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alone(u64);

impl AtApp {
    pub(crate) fn enter(self: &Arc<Self>) -> Visit {
        self.0.fetch_add(ONE, SeqCst);
        Visit(self.clone())
    }
}

impl Visit {
    /// Whether this is the only request there. If it is later, too, and equal, no other one was there
    /// between.
    pub(crate) fn alone(&self) -> Option<Alone> {
        let count = self.0.0.load(SeqCst);
        (count % COME == 1).then_some(Alone(count / COME))
    }
}

impl Alone {
    /// Whether no other request was at the application between that one and this.
    pub(crate) fn follows(self, former: Self) -> bool {
        self.0 == former.0.wrapping_add(1)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_alone_all_the_time_is_told_from_who_was_not() {
        let app = Arc::new(AtApp::default());
        let first = app.enter();
        let alone = first.alone();
        assert!(alone.is_some());
        let second = app.enter();
        assert_eq!((first.alone(), second.alone()), (None, None));
        drop(second);
        assert!(first.alone().is_some() && first.alone() != alone, "one has been there");
        let before = first.alone().unwrap();
        drop(first);
        let third = app.enter();
        assert!(third.alone().unwrap().follows(before));
        drop(app.enter());
        assert!(!third.alone().unwrap().follows(before));
    }
}
