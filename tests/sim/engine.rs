//! A model of the engine: histories of numbered writes, replicated from the primary's copy to others.
//!
//! It keeps the promises of `engine::Engine` as `src/embedded` does: what it promised and what it
//! holds survives a crash.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use litepilot::cluster::{Epoch, EpochStart, NodeId};
use litepilot::embedded::lineage::{Lineage, continued};
use litepilot::engine::{BoxFuture, Engine, EngineState, Grant, Held};
use litepilot::position::PositionCell;
use litepilot::txid::{Checksum, EpochTxid, Position, Txid};
use tokio::sync::watch;
use tokio::time::sleep;

use super::truth::{Truth, show};

/// A write, after those before it.
pub struct Entry {
    pub id: u64,
    pub count: u64,
    pub checksum: Checksum,
    pub before: Option<Arc<Entry>>,
}

impl Entry {
    fn after(before: Option<Arc<Self>>, id: u64) -> Arc<Self> {
        let (count, sum) = before.as_ref().map_or((0, 7), |e| (e.count, e.checksum.0));
        let sum = (sum.rotate_left(13) ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Arc::new(Self { id, count: count + 1, checksum: Checksum::of(&[sum]), before })
    }

    /// The writes, the newest first.
    pub fn ids(head: &Option<Arc<Self>>) -> impl Iterator<Item = u64> {
        Self::chain(head).map(|entry| entry.id)
    }

    fn chain(head: &Option<Arc<Self>>) -> impl Iterator<Item = &Self> {
        std::iter::successors(head.as_deref(), |entry| entry.before.as_deref())
    }
}

/// What a primary sends.
#[derive(Clone)]
pub struct Shipped {
    pub starts: Vec<EpochStart>,
    pub position: Position,
    pub head: Option<Arc<Entry>>,
}

/// What a node has on its disk. Clones are the same.
#[derive(Clone)]
pub struct Copy {
    pub own: NodeId,
    truth: Truth,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    pub head: Option<Arc<Entry>>,
    pub position: EpochTxid,
    promised: Epoch,
    starts: Vec<EpochStart>,
    /// What the copy held when the epoch began that it is the primary's of.
    epoch: Option<(Epoch, Position)>,
    /// Applications may write, if nothing keeps them from it.
    pub primary: Option<Epoch>,
    fenced: bool,
    /// Somebody reads in a transaction that stays open: on a replica nothing more is applied.
    pub reader: bool,
    /// It has promised while that was so, so often.
    clings: u32,
    /// Whatever another history replaced.
    archived: Vec<Option<Arc<Entry>>>,
}

impl State {
    pub fn position(&self) -> Position {
        let checksum = self.head.as_ref().map_or(Checksum::default(), |head| head.checksum);
        Position { at: self.position, checksum }
    }

    fn held(&self) -> Held {
        Held { position: self.position(), empty: self.head.is_none() }
    }

    fn floor(&self) -> Epoch {
        self.promised.max(self.position.epoch)
    }
}

impl Copy {
    pub fn new(own: NodeId, truth: Truth) -> Self {
        Self { own, truth, state: Arc::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Another disk, with nothing on it.
    pub fn wipe(&self) {
        *self.state() = State::default();
    }

    /// The process has ended: nobody writes the copy before it is a replica's.
    pub fn crash(&self) {
        self.step_down();
        let mut state = self.state();
        (state.reader, state.clings) = (false, 0);
    }

    fn step_down(&self) {
        let mut state = self.state();
        (state.primary, state.fenced) = (None, false);
    }

    /// The application writes, if it can. Returns the position.
    pub fn commit(&self, id: u64, by: &str) -> Option<EpochTxid> {
        let mut state = self.state();
        if state.primary.is_none() || state.fenced {
            return None;
        }
        state.head = Some(Entry::after(state.head.take(), id));
        state.position.txid.0 += 1;
        let at = state.position;
        drop(state);
        self.truth.see().committed(self.own.as_str(), id, at, by);
        Some(at)
    }

    /// As a primary: what a replica should hold, and whether it acknowledges something.
    pub fn ship(&self) -> Option<Shipped> {
        let state = self.state();
        state.primary?;
        let (starts, head) = (state.starts.clone(), state.head.clone());
        Some(Shipped { starts, position: state.position(), head })
    }

    /// As a primary: whether a replica that says so holds a part of this epoch's history.
    pub fn knows(&self, position: Position) -> bool {
        let state = self.state();
        let known = || Entry::chain(&state.head).any(|entry| entry.checksum == position.checksum);
        state.primary == Some(position.at.epoch)
            && (position.checksum == Checksum::default() || known())
    }

    /// As a replica: whether what the primary of `epoch` sends may still be acknowledged.
    pub fn follows(&self, epoch: Epoch) -> bool {
        let state = self.state();
        state.primary.is_none() && epoch >= state.floor()
    }

    /// As a replica: takes over what the primary holds, and keeps what that replaces. Returns what may
    /// be acknowledged.
    pub fn apply(&self, shipped: &Shipped) -> Option<Position> {
        let epoch = Lineage::new(shipped.starts.clone())?;
        let mut state = self.state();
        if state.reader {
            return None;
        }
        let stale = epoch.epoch() < state.floor() || shipped.position.at.epoch != epoch.epoch();
        if state.primary.is_some() || stale {
            return None;
        }
        // A primary without a database never wipes a replica that has one.
        if shipped.head.is_none() && state.head.is_some() {
            return None;
        }
        let level = shipped.position.checksum == state.position().checksum;
        if !level && state.head.is_some() {
            self.replace(&mut state, &epoch, shipped);
        }
        state.head = shipped.head.clone();
        state.position = shipped.position.at;
        state.starts = shipped.starts.clone();
        Some(shipped.position)
    }

    fn replace(&self, state: &mut State, epoch: &Lineage, shipped: &Shipped) {
        let old = state.head.clone();
        let kept: std::collections::BTreeSet<u64> = Entry::ids(&shipped.head).collect();
        let lost: Vec<u64> = Entry::ids(&old).filter(|id| !kept.contains(id)).collect();
        let mut truth = self.truth.see();
        if epoch.lacks(state.position(), true) {
            let text = format!("archives {}, which epoch {} lacks", show(&old), epoch.epoch());
            truth.note(self.own.as_str(), &text);
            truth.count("copies archived");
            state.archived.push(old);
        } else if !lost.is_empty() {
            truth.broken(format!("{}: {lost:?} was overwritten and not archived", self.own));
        }
    }
}

/// The engine of one life of a node.
pub struct Model {
    pub copy: Copy,
    cell: Arc<PositionCell>,
    truth: Truth,
    /// How long the end of writers takes, in ms.
    pub slow: u64,
    /// The epoch of which this copy has ceased to be the primary's by itself.
    lost: watch::Sender<Option<Epoch>>,
}

impl Model {
    pub fn new(copy: Copy, truth: Truth, slow: u64) -> Self {
        let cell = Arc::new(PositionCell::default());
        cell.reset(copy.state().position);
        Self { copy, cell, truth, slow, lost: watch::Sender::new(None) }
    }

    /// Publishes how far the copy is.
    pub fn look(&self) -> EpochTxid {
        let position = self.copy.state().position;
        self.cell.advance(position);
        position
    }

    /// Its process dies and is started again: it is a replica's then.
    pub fn fail(&self) {
        let epoch = self.copy.state().primary;
        self.copy.crash();
        self.lost.send_replace(epoch);
    }

    fn pause(&self) -> impl Future<Output = ()> + use<> {
        sleep(Duration::from_millis(self.slow))
    }

    fn not(what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, format!("this copy is not {what}"))
    }
}

impl Engine for Model {
    fn position(&self) -> &Arc<PositionCell> {
        &self.cell
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        Box::pin(async { Ok(self.look()) })
    }

    fn become_primary(&self, grant: Grant) -> BoxFuture<'_, io::Result<Position>> {
        let epoch = grant.epoch;
        Box::pin(async move {
            self.pause().await;
            let mut state = self.copy.state();
            if epoch < state.floor() {
                return Err(Self::not("behind that epoch"));
            }
            match state.epoch {
                Some((own, held)) if own == epoch && state.primary == Some(epoch) => {
                    return Ok(held);
                }
                _ => {}
            }
            let held = state.position();
            self.truth.see().begins(&self.copy.own, epoch, &state.head);
            state.starts = continued(&state.starts, epoch, held);
            state.epoch = Some((epoch, held));
            state.position.epoch = epoch;
            (state.primary, state.fenced) = (Some(epoch), false);
            drop(state);
            self.look();
            Ok(held)
        })
    }

    fn become_replica(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            if self.copy.state().primary.is_some() {
                self.pause().await;
            }
            self.copy.step_down();
            self.lost.send_replace(None);
            Ok(())
        })
    }

    /// As `litefs` does: an open reader keeps it from letting go of its primary. It says what it holds.
    fn promise(&self, epoch: Epoch) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(async move {
            let reads = {
                let mut state = self.copy.state();
                state.promised = state.promised.max(epoch);
                let reads = state.reader && state.primary.is_none();
                state.clings = if reads { state.clings + 1 } else { 0 };
                reads
            };
            if reads {
                sleep(Duration::from_millis(200)).await;
                let mut state = self.copy.state();
                if state.clings > 8 {
                    // Its process is started anew, and the reader loses it.
                    (state.reader, state.clings) = (false, 0);
                }
            }
            let own = self.copy.state().primary;
            if own.is_some_and(|own| own < epoch) {
                self.become_replica().await?;
            }
            Ok(self.copy.state().held())
        })
    }

    fn held(&self) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(async { Ok(self.copy.state().held()) })
    }

    fn fence(&self, limit: Duration) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(async move {
            tokio::time::timeout(limit, self.pause()).await?;
            let mut state = self.copy.state();
            if state.primary.is_none() {
                return Err(Self::not("the primary's"));
            }
            state.fenced = true;
            Ok(state.position())
        })
    }

    fn lift_fence(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            self.copy.state().fenced = false;
            Ok(())
        })
    }

    fn unfit(&self) -> Option<String> {
        let state = self.copy.state();
        let clings = state.reader && state.clings > 0 && state.primary.is_none();
        clings.then(|| "it does not leave its former primary".to_owned())
    }

    fn lost(&self) -> BoxFuture<'_, Epoch> {
        let mut lost = self.lost.subscribe();
        Box::pin(async move {
            loop {
                if let Some(epoch) = *lost.borrow_and_update() {
                    return epoch;
                }
                lost.changed().await.unwrap();
            }
        })
    }

    fn state(&self) -> EngineState {
        EngineState { engine: "model", state: "running".to_owned(), pid: None, restarts: 0 }
    }
}

/// Of a node without data.
pub struct Nothing(pub Arc<PositionCell>);

impl Engine for Nothing {
    fn position(&self) -> &Arc<PositionCell> {
        &self.0
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        Box::pin(async { Ok(EpochTxid { epoch: Epoch(0), txid: Txid(0) }) })
    }

    fn state(&self) -> EngineState {
        EngineState { engine: "none", state: "running".to_owned(), pid: None, restarts: 0 }
    }
}
