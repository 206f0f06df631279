//! What a replica's LiteFS has of its primary's stream. It carries no epoch: what fits what is here is
//! applied, also when the connection was cut since, as long as it was received before.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::Entry;

/// Received by LiteFS, and by the network below it.
const ROOM: usize = 64;

#[derive(Default)]
pub struct Stream {
    received: VecDeque<Frame>,
    /// LiteFS is told whom to follow.
    connected: bool,
    /// It says that it follows somebody.
    pub follows: bool,
    connection: u64,
}

struct Frame {
    connection: u64,
    /// The primary's history up to there.
    head: Option<Arc<Entry>>,
}

/// What becomes of what was received.
pub enum Applied {
    Nothing,
    Appended(Arc<Entry>),
    /// A snapshot, of another history.
    Replaced(Arc<Entry>),
}

impl Stream {
    pub fn connect(&mut self) {
        self.connection += 1;
        (self.connected, self.follows) = (true, true);
    }

    pub fn cut(&mut self) {
        self.connected = false;
    }

    pub fn is_connected(&self) -> bool {
        self.connected && self.follows
    }

    pub fn receive(&mut self, head: &Option<Arc<Entry>>) {
        let known = |frame: &Frame| Entry::same(&frame.head, head);
        if self.connected && !self.received.back().is_some_and(known) && self.received.len() < ROOM
        {
            self.received.push_back(Frame { connection: self.connection, head: head.clone() });
        }
    }

    pub fn is_idle(&self) -> bool {
        self.received.is_empty() && self.connected == self.follows
    }

    /// Applies the next to a copy that ends with `have`.
    pub fn apply(&mut self, have: &Option<Arc<Entry>>) -> Applied {
        let Some(frame) = self.received.pop_front() else {
            self.follows = self.connected;
            return Applied::Nothing;
        };
        let current = self.connected && frame.connection == self.connection;
        match frame.head {
            Some(head) if Entry::same(&Some(head.clone()), have) => Applied::Nothing,
            Some(head) if Entry::grew(&head, have) => Applied::Appended(head),
            Some(head) if current => Applied::Replaced(head),
            _ => Applied::Nothing,
        }
    }
}
