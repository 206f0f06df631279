//! A model of the engine over LiteFS: histories of numbered writes, replicated from the primary's copy to
//! others.
//!
//! What is remembered of a copy and what it is worth is decided by what ships (`litefs::store`). LiteFS and
//! the engine's tasks around it are played, as `src/litefs/follow.rs` and `positions_link.rs` have them.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use litepilot::cluster::{Epoch, EpochStart, NodeId};
use litepilot::engine::{BoxFuture, Engine, EngineState, Grant, Held};
use litepilot::litefs::databases::Databases;
use litepilot::litefs::joining::Joining;
use litepilot::litefs::lineage::Lineage;
use litepilot::litefs::position::LitefsPosition;
use litepilot::litefs::store::Store;
use litepilot::position::PositionCell;
use litepilot::txid::{Checksum, EpochTxid, Position, Txid};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::stream::{Applied, Stream};
use super::truth::{Truth, show};

const NAME: &str = "app.db";
/// As in `litefs/follow.rs`.
const LEAVING: Duration = Duration::from_millis(200);
const PATIENCE: u32 = 8;

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

    pub fn same(one: &Option<Arc<Self>>, other: &Option<Arc<Self>>) -> bool {
        let sum = |head: &Option<Arc<Self>>| head.as_ref().map(|head| head.checksum);
        sum(one) == sum(other)
    }

    /// Whether `head` contains all of `from`.
    pub fn grew(head: &Arc<Self>, from: &Option<Arc<Self>>) -> bool {
        let Some(from) = from else { return true };
        let mut chain = std::iter::successors(Some(head.as_ref()), |entry| entry.before.as_deref());
        let there = chain.find(|entry| entry.count <= from.count);
        there.is_some_and(|entry| entry.checksum == from.checksum)
    }
}

/// What a primary sends: on LiteFS' stream the history, on the link the rest.
#[derive(Clone)]
pub struct Shipped {
    pub starts: Arc<[EpochStart]>,
    pub lineage: Lineage,
    pub position: Position,
    pub head: Option<Arc<Entry>>,
}

/// What a replica acknowledges; with the checksum if it holds exactly what was announced last.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    pub at: EpochTxid,
    pub checksum: Option<Checksum>,
}

/// What a node has on its disk. Clones are the same.
#[derive(Clone)]
pub struct Copy {
    pub own: NodeId,
    truth: Truth,
    state: Arc<Mutex<State>>,
}

pub struct State {
    pub head: Option<Arc<Entry>>,
    dir: TempDir,
    store: Store,
    /// Applications may write, if nothing keeps them from it.
    pub primary: Option<Epoch>,
    fenced: bool,
    /// Somebody reads in a transaction that stays open: on a replica nothing more is applied.
    pub reader: bool,
    /// It has promised while LiteFS did not leave its primary, so often.
    clings: u32,
    stream: Stream,
    following: Option<(NodeId, Joining)>,
    /// The last that the primary has announced over this connection.
    said: Option<Position>,
    /// Copies of which something was archived.
    kept: Vec<Checksum>,
}

impl State {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let store = Store::open(dir.path(), Path::new(NAME)).unwrap();
        let (head, stream, following, said, kept) = Default::default();
        let (primary, fenced, reader, clings) = Default::default();
        Self { head, dir, store, primary, fenced, reader, clings, stream, following, said, kept }
    }

    fn content(&self) -> Databases {
        let (txid, checksum) = match &self.head {
            Some(head) => (Txid(head.count), head.checksum),
            None => (Txid(0), Checksum::default()),
        };
        Databases::one(NAME, LitefsPosition { txid, checksum })
    }

    pub fn position(&self) -> Position {
        let content = self.content();
        match self.primary {
            Some(epoch) => Position {
                at: EpochTxid { epoch, txid: content.seq() },
                checksum: content.checksum(),
            },
            None => self.store.position(&content),
        }
    }

    fn held(&self) -> Held {
        let content = self.content();
        let position = match self.primary {
            Some(_) => self.position(),
            None => self.store.held(&content),
        };
        Held { position, empty: self.head.is_none(), sole_until: None }
    }

    fn join(&mut self) {
        let content = self.content();
        if let Some((_, joining)) = self.following.as_ref().filter(|_| self.primary.is_none()) {
            let connected = self.stream.is_connected();
            self.store.join(joining, connected, &content).unwrap();
        }
    }

    fn follow_nobody(&mut self) {
        self.stream.cut();
        self.following = None;
    }

    /// LiteFS' process is another one.
    fn restart_litefs(&mut self) {
        self.stream = Stream::default();
        if self.following.is_some() {
            self.stream.connect();
        }
    }
}

impl Copy {
    pub fn new(own: NodeId, truth: Truth) -> Self {
        Self { own, truth, state: Arc::new(Mutex::new(State::new())) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Another disk, with nothing on it.
    pub fn wipe(&self) {
        *self.state() = State::new();
    }

    /// The process has ended: nobody writes the copy before it is a replica's.
    pub fn crash(&self) {
        let mut state = self.state();
        (state.primary, state.fenced) = (None, false);
        (state.reader, state.clings) = (false, 0);
        (state.following, state.said) = (None, None);
        state.restart_litefs();
        let store = Store::open(state.dir.path(), Path::new(NAME)).unwrap();
        state.store = store;
    }

    fn step_down(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.primary.is_some() {
            let content = state.content();
            (state.primary, state.fenced) = (None, false);
            state.store.close(&content)?;
        }
        Ok(())
    }

    /// The application writes, if it can. Returns the position.
    pub fn commit(&self, id: u64, by: &str) -> Option<EpochTxid> {
        let mut state = self.state();
        if state.primary.is_none() || state.fenced {
            return None;
        }
        state.head = Some(Entry::after(state.head.take(), id));
        let at = state.position().at;
        drop(state);
        self.truth.see().committed(self.own.as_str(), id, at, by);
        Some(at)
    }

    /// As the primary of the last of `starts`: what a replica should hold, and whether it acknowledges
    /// something.
    pub fn ship(&self, starts: Arc<[EpochStart]>) -> Option<Shipped> {
        let state = self.state();
        let epoch = starts.last()?.epoch;
        let (lineage, head) = (state.store.lineage().clone(), state.head.clone());
        let shipped = Shipped { starts, lineage, position: state.position(), head };
        (state.primary == Some(epoch)).then_some(shipped)
    }

    /// As a primary: whether a replica that says so can be believed.
    pub fn agrees(&self, reached: Reached) -> bool {
        let state = self.state();
        let own = state.position();
        let same = |checksum| own.at != reached.at || own.checksum == checksum;
        state.primary == Some(reached.at.epoch) && reached.checksum.is_none_or(same)
    }

    /// As a replica: LiteFS receives this, and this node what was announced of it.
    pub fn hear(&self, shipped: &Shipped) {
        let mut state = self.state();
        state.stream.receive(&shipped.head);
        let Position { at, checksum } = shipped.position;
        let database = LitefsPosition { txid: at.txid, checksum };
        let database = Databases::one(NAME, database);
        state.store.named(at.epoch, &database, None).unwrap();
        state.store.announced().hear(at, database);
        state.said = Some(shipped.position);
        state.join();
    }

    /// As a replica of the primary of `epoch`: what may be acknowledged.
    pub fn reached(&self, epoch: Epoch) -> Option<Reached> {
        let state = self.state();
        let (at, said) = (state.position().at, state.said?);
        let level = said.at == at && state.content() == level(said);
        let may = state.primary.is_none() && at.epoch == epoch && state.store.floor() <= epoch;
        may.then_some(Reached { at, checksum: level.then_some(said.checksum) })
    }

    /// LiteFS applies the next that it has received. Says whether it replaced something.
    fn apply(&self) -> bool {
        let mut state = self.state();
        if state.primary.is_some() || state.reader {
            return false;
        }
        let have = state.head.clone();
        let replaced = match state.stream.apply(&have) {
            Applied::Nothing => false,
            Applied::Appended(head) => {
                state.head = Some(head);
                false
            }
            Applied::Replaced(head) => {
                self.replaced(&state, &head);
                state.head = Some(head);
                true
            }
        };
        state.join();
        replaced
    }

    fn replaced(&self, state: &State, by: &Arc<Entry>) {
        let kept: std::collections::BTreeSet<u64> = Entry::ids(&Some(by.clone())).collect();
        let lost: Vec<u64> = Entry::ids(&state.head).filter(|id| !kept.contains(id)).collect();
        let archived = state.head.as_ref().is_some_and(|head| state.kept.contains(&head.checksum));
        if !lost.is_empty() && !archived {
            let what = format!("{}: {lost:?} was overwritten and not archived", self.own);
            self.truth.see().broken(what);
        }
    }

    fn archive(&self, state: &mut State, epoch: Epoch) {
        let mut truth = self.truth.see();
        truth.note(
            self.own.as_str(),
            &format!("archives {}, which epoch {epoch} lacks", show(&state.head)),
        );
        truth.count("copies archived");
        state.kept.extend(state.head.as_ref().map(|head| head.checksum));
    }
}

fn level(said: Position) -> Databases {
    Databases::one(NAME, LitefsPosition { txid: said.at.txid, checksum: said.checksum })
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
    /// Something is to be applied, or LiteFS to leave.
    work: Notify,
    /// Promises and changes of role, one at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Model {
    pub fn new(copy: Copy, truth: Truth, slow: u64) -> Self {
        let cell = Arc::new(PositionCell::default());
        cell.reset(copy.state().position().at);
        let (work, turn) = Default::default();
        Self { copy, cell, truth, slow, lost: watch::Sender::new(None), work, turn }
    }

    /// Publishes how far the copy is.
    pub fn look(&self) -> EpochTxid {
        let position = self.copy.state().position().at;
        self.cell.advance(position);
        position
    }

    /// LiteFS, which applies what it has received sooner or later: `delay` draws how much, in ms.
    pub async fn run_litefs(&self, mut delay: impl FnMut() -> u64) {
        loop {
            while !self.copy.state().stream.is_idle() {
                sleep(Duration::from_millis(delay())).await;
                if self.copy.apply() {
                    self.cell.reset(self.copy.state().position().at);
                }
                self.look();
            }
            self.work.notified().await;
        }
    }

    pub fn hear(&self, shipped: &Shipped) {
        self.copy.hear(shipped);
        self.work.notify_one();
        self.look();
    }

    /// Its process dies and is started again: it is a replica's then.
    pub fn fail(&self) {
        let epoch = self.copy.state().primary;
        let content = self.copy.state().content();
        let mut state = self.copy.state();
        (state.primary, state.fenced, state.reader, state.clings) = (None, false, false, 0);
        state.restart_litefs();
        if epoch.is_some() {
            state.store.close(&content).unwrap();
        }
        drop(state);
        self.lost.send_replace(epoch);
    }

    fn pause(&self) -> impl Future<Output = ()> + use<> {
        sleep(Duration::from_millis(self.slow))
    }

    fn not(what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, format!("this copy is not {what}"))
    }

    async fn step_down(&self) -> io::Result<()> {
        if self.copy.state().primary.is_some() {
            self.pause().await;
        }
        self.copy.step_down()
    }

    /// Until LiteFS follows nobody.
    async fn left(&self) -> bool {
        let left = async {
            while self.copy.state().stream.follows {
                self.work.notify_one();
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LEAVING, left).await.is_ok()
    }

    /// As `Litefs::follow_history`: has LiteFS follow `primary`, the last of whose `starts` is its own.
    pub async fn follow_history(&self, primary: &NodeId, shipped: &Shipped) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        self.step_down().await?;
        let Some(start) = shipped.starts.last().copied() else {
            return Err(Self::not("told where its epoch began"));
        };
        {
            let mut state = self.copy.state();
            let same = |(of, joining): &(NodeId, Joining)| of == primary && joining.start == start;
            if state.following.as_ref().is_some_and(same) {
                return Ok(());
            }
            if start.epoch < state.store.floor() {
                return Err(Self::not("of an epoch before"));
            }
            state.follow_nobody();
        }
        if !self.left().await {
            return Err(Self::not("left by LiteFS"));
        }
        let mut state = self.copy.state();
        let content = state.content();
        state.store.learn(&shipped.lineage, &[NAME.to_owned()].into(), None)?;
        state.store.close(&content)?;
        let diverged = state.store.diverged(&content, &shipped.starts, true);
        if !diverged.is_empty() {
            self.copy.archive(&mut state, start.epoch);
        }
        state.store.follow(&content, &diverged, &shipped.starts)?;
        let begun = state.store.lineage().of(start.epoch).cloned().unwrap_or_default();
        state.following = Some((primary.clone(), Joining { start, begun }));
        state.stream.connect();
        state.join();
        drop(state);
        self.look();
        Ok(())
    }

    pub fn follows(&self, epoch: Epoch) -> bool {
        let state = self.copy.state();
        state.following.as_ref().is_some_and(|(_, joining)| joining.start.epoch == epoch)
    }

    /// A connection to the primary of `epoch` begins.
    pub fn begin_link(&self, epoch: Epoch) {
        let mut state = self.copy.state();
        state.store.announced().begin(epoch);
        state.said = None;
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
            let _turn = self.turn.lock().await;
            self.pause().await;
            let mut state = self.copy.state();
            let content = state.content();
            if state.primary == Some(epoch) {
                return state.store.begin(epoch, &content);
            }
            state.follow_nobody();
            state.stream = Stream::default();
            let held = state.store.begin(epoch, &content)?;
            self.truth.see().begins(&self.copy.own, epoch, &state.head);
            (state.primary, state.fenced) = (Some(epoch), false);
            let at = state.position().at;
            drop(state);
            self.cell.reset(at);
            Ok(held)
        })
    }

    fn become_replica(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.step_down().await?;
            self.copy.state().follow_nobody();
            self.work.notify_one();
            self.lost.send_replace(None);
            Ok(())
        })
    }

    /// An open reader keeps LiteFS from leaving its primary. It says what it holds all the same.
    fn promise(&self, epoch: Epoch) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let newer = {
                let mut state = self.copy.state();
                state.store.promise(epoch)?;
                let follows = state.following.as_ref().map(|(_, joining)| joining.start.epoch);
                state.primary.max(follows).is_some_and(|own| own >= epoch)
            };
            if !newer {
                self.step_down().await?;
                self.copy.state().follow_nobody();
                self.work.notify_one();
                let left = self.left().await;
                let mut state = self.copy.state();
                state.clings = if left { 0 } else { state.clings + 1 };
                if state.clings > PATIENCE {
                    // Its process is started anew, and the reader loses it.
                    (state.reader, state.clings) = (false, 0);
                    state.restart_litefs();
                }
            }
            Ok(self.copy.state().held())
        })
    }

    fn held(&self) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(async { Ok(self.copy.state().held()) })
    }

    fn fence(&self, limit: Duration) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(async move {
            timeout(limit, self.pause()).await?;
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
        let clings = state.stream.follows && state.following.is_none() && state.primary.is_none();
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
