//! One life of a node: the shipped election on a runtime of its own, with what `node/elected.rs` and
//! the data plane do around it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use litepilot::acks::Acks;
use litepilot::claim::{BootTime, Claim};
use litepilot::cluster::{ClusterView, Epoch, NodeId, Role};
use litepilot::election::Election;
use litepilot::election::clock::Clock;
use litepilot::election::context::{ElectionContext, NodeCallbacks, Observation};
use litepilot::election::publisher::Publisher;
use litepilot::election::raft::{Member, Raft, RaftSetup, Store};
use litepilot::election::rpc::Service;
use litepilot::election::table::{self, Table};
use litepilot::election::tenure::Own;
use litepilot::election::times::Times;
use litepilot::election::watchers::{watch_app, watch_engine};
use litepilot::engine::{BoxFuture, Engine};
use litepilot::peer::gossip::{Heard, Peers, Report};
use litepilot::position::PositionCell;
use litepilot::process::health;
use litepilot::txid::{EpochTxid, Position, Txid};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::app::App;
use super::disk::Shelf;
use super::engine::{Copy, Model, Nothing, Reached, Shipped};
use super::post::{Ask, Load, Post, Said, Wire};
use super::truth::Truth;

/// A peer's report: which of its lives and words it is, what it says, when it came.
type Word = ((u64, u64), Report, Instant);

/// As in `node/elected.rs` and `node/peers.rs`.
const LOOK: Duration = Duration::from_millis(50);
const REPORT_EVERY: Duration = Duration::from_millis(200);
const SILENCE: Duration = Duration::from_secs(1);
/// A replica asks at least so often.
const PULL: Duration = Duration::from_millis(100);
/// `app.down_after`.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// What does not change from one life to the next.
pub struct Place {
    pub name: NodeId,
    pub witness: bool,
    /// Its `cluster.ack` is `majority`; else only some clients ask for that.
    pub promises: bool,
    pub candidate: bool,
    pub ttl: Duration,
    pub seeds: Vec<Member>,
    pub shelf: Shelf,
    pub copy: Copy,
    pub app: Arc<Mutex<App>>,
    pub truth: Truth,
    /// How fast its clock is, in millionths of the true speed beyond it.
    pub rate: i64,
    /// For how long its clock stood still, in true ms.
    pub missed: AtomicU64,
    /// What its clock showed when the run began, in ns.
    pub origin: u64,
    /// Clients that write there, and how long they wait between two writes, in ms.
    pub writers: u64,
    pub think: u64,
    /// Whether they write at all, for the time being.
    pub busy: watch::Receiver<bool>,
}

impl Place {
    /// What this node's clock shows at a true time in ms.
    pub fn clock(&self, now: u64) -> BootTime {
        let rate = u64::try_from(1_000_000 + self.rate).unwrap();
        BootTime(self.origin + (now - self.missed.load(SeqCst)) * rate)
    }
}

/// One life.
pub struct Life {
    pub number: u64,
    pub rt: Runtime,
    pub post: Arc<Post>,
    pub election: Election,
    pub raft: Raft,
    pub own: watch::Receiver<Own>,
    pub table: watch::Receiver<Arc<Table>>,
    pub view: watch::Receiver<ClusterView>,
    pub engine: Arc<dyn Engine>,
    /// The last table that was looked at.
    pub seen: Arc<Table>,
    pub claimed: bool,
    around: Arc<Around>,
    began: Instant,
    base: BootTime,
    /// Whole ms that this life has run, by its own clock.
    ran: u64,
}

/// What surrounds the election.
struct Around {
    place: Arc<Place>,
    post: Arc<Post>,
    model: Option<Arc<Model>>,
    acks: Arc<Acks>,
    clock: Arc<SimClock>,
    view: watch::Sender<ClusterView>,
    source: watch::Sender<Option<(NodeId, Epoch)>>,
    heard: Mutex<BTreeMap<NodeId, Word>>,
    peers: watch::Sender<Peers>,
    came: Notify,
    health: watch::Sender<health::Report>,
    under_way: watch::Sender<usize>,
    number: u64,
    seed: u64,
}

struct SimClock {
    base: BootTime,
    began: Instant,
}

impl Clock for SimClock {
    fn now(&self) -> BootTime {
        self.base.after(self.began.elapsed())
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(sleep(wait))
    }
}

struct Surroundings(Arc<Around>);

impl NodeCallbacks for Surroundings {
    fn unfit(&self) -> Option<String> {
        self.0.model.as_ref().and_then(|model| model.unfit())
    }

    fn app_up(&self) -> bool {
        self.0.health.borrow().up
    }

    fn promoted(&self, _: Epoch) -> BoxFuture<'static, bool> {
        let app = self.0.place.app.clone();
        Box::pin(async move {
            sleep(Duration::from_millis(3)).await;
            !app.lock().unwrap().hook_fails
        })
    }

    fn demoted(&self, _: Epoch) {}

    fn wind_down(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn wind_up(&self) {}

    fn writes_done(&self) -> BoxFuture<'static, ()> {
        let (mut view, mut count) = (self.0.view.subscribe(), self.0.under_way.subscribe());
        Box::pin(async move {
            drop(view.wait_for(|view| !view.writable).await);
            drop(count.wait_for(|count| *count == 0).await);
        })
    }

    fn deadline(&self, deadline: Option<BootTime>) -> bool {
        self.0.place.app.lock().unwrap().set_deadline(deadline);
        true
    }

    fn observe(&self, _: Observation) {}

    fn event(&self, kind: &'static str, text: String) {
        self.0.place.truth.note(self.0.place.name.as_str(), &format!("[{kind}] {text}"));
    }
}

impl Life {
    /// Starts a node. `now` is the true time in ms.
    pub fn begin(place: &Arc<Place>, number: u64, now: u64, seed: u64) -> Self {
        let rt = runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let base = place.clock(now);
        place.app.lock().unwrap().set_deadline(None);
        let place = place.clone();
        let life = rt.block_on(async { Self::start(place, number, base, seed).await });
        let (post, election, raft, around, view, engine, began) = life;
        Self {
            number,
            rt,
            own: election.own(),
            table: election.table(),
            post,
            election,
            raft,
            view,
            engine,
            seen: Arc::default(),
            claimed: false,
            around,
            began,
            base,
            ran: 0,
        }
    }

    #[allow(clippy::type_complexity)]
    async fn start(
        place: Arc<Place>,
        number: u64,
        base: BootTime,
        seed: u64,
    ) -> (
        Arc<Post>,
        Election,
        Raft,
        Arc<Around>,
        watch::Receiver<ClusterView>,
        Arc<dyn Engine>,
        Instant,
    ) {
        let began = Instant::now();
        let post = Arc::new(Post::default());
        let network = Arc::new(Wire(post.clone()));
        let shelf = place.shelf.clone();
        let store = Store::with_backend(move || shelf.open()).unwrap();
        let setup =
            RaftSetup { own: place.name.clone(), seeds: place.seeds.clone(), ttl: place.ttl };
        let raft = Raft::start(setup, store, network.clone()).await.unwrap();
        let clock = Arc::new(SimClock { base, began });
        let slow = SmallRng::seed_from_u64(seed).random_range(0..12);
        let model = (!place.witness)
            .then(|| Arc::new(Model::new(place.copy.clone(), place.truth.clone(), slow)));
        let engine: Arc<dyn Engine> = match &model {
            Some(model) => model.clone(),
            None => Arc::new(Nothing(Arc::new(PositionCell::default()))),
        };
        let role = if place.witness { Role::Witness } else { Role::Replica };
        let view = watch::Sender::new(ClusterView {
            role,
            primary: None,
            writable: false,
            claim: Claim::none(),
            quorum: false,
            elected: true,
            ..ClusterView::single(place.name.clone(), Epoch(0))
        });
        let acks = Arc::<Acks>::default();
        let around = Arc::new(Around {
            post: post.clone(),
            model,
            acks: acks.clone(),
            clock: clock.clone(),
            source: watch::Sender::new(None),
            heard: Mutex::default(),
            peers: watch::Sender::default(),
            came: Notify::new(),
            health: watch::Sender::new(health::Report { up: false, check: 0, down_since: None }),
            under_way: watch::Sender::new(0),
            number,
            seed,
            view,
            place: place.clone(),
        });
        let election = Election::new(ElectionContext {
            own: place.name.clone(),
            life: table::Life(number.to_string()),
            candidate: place.candidate,
            witness: place.witness,
            promises: place.promises,
            times: Times::of(place.ttl, Duration::ZERO),
            raft: raft.clone(),
            transport: network,
            clock,
            engine: engine.clone(),
            acks,
            peers: around.peers.subscribe(),
            callbacks: Arc::new(Surroundings(around.clone())),
        });
        tokio::spawn(election.clone().run());
        let publisher =
            Publisher::new(election.clone(), around.view.clone(), around.source.clone());
        tokio::spawn(publisher.run());
        tokio::spawn(hear(around.clone()));
        tokio::spawn(watch_app(election.clone(), around.health.subscribe(), DOWN_AFTER));
        tokio::spawn(watch_engine(election.clone()));
        tokio::spawn(gossip(around.clone(), raft.clone()));
        if !place.witness {
            tokio::spawn(follow(around.clone()));
            tokio::spawn(run_litefs(around.clone()));
            for writer in 0..place.writers {
                tokio::spawn(write(around.clone(), writer));
            }
        }
        let receiver = around.view.subscribe();
        (post, election, raft, around, receiver, engine, began)
    }

    /// Takes what has come, and runs until its clock shows what it does at the true time `now`.
    pub fn run(&mut self, now: u64, came: Vec<(NodeId, Load)>) {
        let to = self.around.place.clock(now).since(self.base);
        let to = u64::try_from(to.as_millis()).unwrap();
        let behind = to.saturating_sub(self.ran);
        self.ran = to;
        let (around, election) = (self.around.clone(), self.election.clone());
        let until = self.began + Duration::from_millis(to);
        self.rt.block_on(async move {
            if behind > 4 {
                // It stood still: time has passed and nothing happened.
                tokio::time::advance(Duration::from_millis(behind - 1)).await;
            }
            {
                let mut app = around.place.app.lock().unwrap();
                app.check(&around.health);
                app.answer();
            }
            for (from, load) in came {
                take(&around, &election, from, load);
            }
            tokio::time::sleep_until(until).await;
        });
    }

    /// The engine's process dies.
    pub fn fail_engine(&self) {
        if let Some(model) = &self.around.model {
            model.fail();
        }
    }

    /// Does something there, in the background.
    pub fn spawn(&self, does: impl Future<Output = ()> + Send + 'static) {
        self.rt.spawn(does);
    }
}

fn take(around: &Arc<Around>, election: &Election, from: NodeId, load: Load) {
    match load {
        Load::Said(id, said) => around.post.answered(id, said),
        Load::Gossip(sequence, report) => {
            let life = report.lag_ms.unwrap_or(0);
            let mut heard = around.heard.lock().unwrap();
            let older = heard.get(&from).is_some_and(|(known, _, _)| *known >= (life, sequence));
            if !older {
                around.came.notify_one();
                heard.insert(from, ((life, sequence), report, Instant::now()));
            }
        }
        Load::Ask(id, Ask::Election(request)) => {
            let answering = election.answer(from.clone(), *request);
            let post = around.post.clone();
            tokio::spawn(async move {
                let said = Said::Election(Box::new(answering.await));
                post.send(from, Load::Said(id, Ok(said)));
            });
        }
        Load::Ask(id, Ask::Pull { life, have, holds }) => {
            let around = around.clone();
            // A connection of a former life is broken.
            let known = around.heard.lock().unwrap().get(&from).map_or(0, |((life, _), ..)| *life);
            let holds = holds.filter(|_| life >= known);
            tokio::spawn(async move {
                let shipped = serve(&around, &from, have, holds).await;
                around.post.send(from, Load::Said(id, Ok(Said::Shipped(shipped))));
            });
        }
    }
}

/// As primary: tells a replica what is new, once there is something.
async fn serve(
    around: &Around,
    from: &NodeId,
    have: Position,
    holds: Option<Reached>,
) -> Option<Shipped> {
    let model = around.model.as_ref()?;
    if let Some(holds) = holds.filter(|holds| model.copy.agrees(*holds)) {
        around.acks.heard(from, holds.at);
    }
    let starts = || around.view.borrow().starts.clone();
    let at = model.look();
    if model.copy.ship(starts())?.position == have {
        let news = EpochTxid { txid: Txid(at.txid.0 + 1), ..at };
        drop(timeout(PULL / 2, model.position().wait(news)).await);
        model.look();
    }
    model.copy.ship(starts())
}

/// Tells of the peers what was heard of them, and that they have fallen silent.
async fn hear(around: Arc<Around>) {
    loop {
        around.peers.send_replace(peers(&around));
        drop(timeout(LOOK, around.came.notified()).await);
    }
}

fn peers(around: &Around) -> Peers {
    let heard = around.heard.lock().unwrap();
    let peer = |(node, (_, report, at)): (&NodeId, &((u64, u64), Report, Instant))| {
        let mut heard = Heard::new(report.clone(), std::time::Instant::now());
        heard.reachable = at.elapsed() <= SILENCE;
        (node.clone(), heard)
    };
    heard.iter().map(peer).collect()
}

/// Tells the others about this node.
async fn gossip(around: Arc<Around>, raft: Raft) {
    let mut views = around.view.subscribe();
    let mut health = around.health.subscribe();
    let mut report = Report::new(around.place.name.clone(), Role::Replica);
    report.candidate = around.place.candidate;
    // A field that the election does not look at tells lives apart.
    report.lag_ms = Some(around.number);
    for sequence in 0.. {
        let view = views.borrow_and_update().clone();
        report.role = view.role;
        report.writable = view.writable && view.claim.is_valid_at(around.clock.now());
        report.epoch = report.epoch.max(view.epoch());
        report.app_up = health.borrow_and_update().up && !around.place.witness;
        for to in raft.members().borrow().iter().map(|listed| &listed.member.name) {
            if *to != around.place.name {
                around.post.send(to.clone(), Load::Gossip(sequence, report.clone()));
            }
        }
        let news = async {
            tokio::select! {
                biased;
                _ = views.changed() => {}
                _ = health.changed() => {}
            }
        };
        drop(timeout(REPORT_EVERY, news).await);
    }
}

/// Has the engine follow whoever is primary, unless this node holds the lease.
async fn follow(around: Arc<Around>) {
    let mut source = around.source.subscribe();
    let Some(model) = &around.model else { return };
    loop {
        let now = source.borrow_and_update().clone();
        let follows = async {
            match now {
                None => std::future::pending().await,
                Some((primary, _)) if primary == around.place.name => sleep(LOOK).await,
                Some((primary, epoch)) => pull(&around, model, &primary, epoch).await,
            }
        };
        tokio::select! {
            biased;
            _ = source.changed() => {}
            () = follows => {}
        }
    }
}

/// As `Litefs::follow_over_link`.
async fn pull(around: &Around, model: &Model, primary: &NodeId, epoch: Epoch) {
    let (mut holds, mut have, mut linked) = (None, Position::default(), false);
    loop {
        let ask = Ask::Pull { life: around.number, have, holds };
        let Ok(Said::Shipped(Some(shipped))) =
            around.post.ask(primary.clone(), ask, PULL * 3).await
        else {
            (holds, have, linked) = (None, Position::default(), false);
            sleep(PULL / 2).await;
            continue;
        };
        let of_this = shipped.starts.last().is_some_and(|start| start.epoch == epoch);
        if !linked {
            if !of_this || model.follow_history(primary, &shipped).await.is_err() {
                sleep(PULL / 2).await;
                continue;
            }
            model.begin_link(epoch);
            linked = true;
        }
        if !model.follows(epoch) {
            linked = false;
            continue;
        }
        model.hear(&shipped);
        have = shipped.position;
        if model.slow > 8 {
            sleep(Duration::from_millis(model.slow)).await;
        }
        // What was promised away meanwhile is not acknowledged.
        holds = model.copy.reached(epoch);
    }
}

/// How long LiteFS takes for what it has received, in ms: at times much.
async fn run_litefs(around: Arc<Around>) {
    let Some(model) = &around.model else { return };
    let mut chance = SmallRng::seed_from_u64(around.seed ^ 0x51f7);
    let delay = || match chance.random_range(0..20) {
        0 => chance.random_range(20..260),
        1..4 => chance.random_range(3..20),
        _ => 1,
    };
    model.run_litefs(delay).await;
}

/// A client that writes here whenever this node is the primary.
async fn write(around: Arc<Around>, writer: u64) {
    let Some(model) = &around.model else { return };
    let mut chance = SmallRng::seed_from_u64(around.seed ^ (writer + 1).wrapping_mul(0x1234_5677));
    let mut busy = around.place.busy.clone();
    loop {
        sleep(Duration::from_millis(chance.random_range(1..=around.place.think))).await;
        if !*busy.borrow_and_update() {
            drop(busy.changed().await);
            continue;
        }
        let views = around.view.subscribe();
        let view = views.borrow().clone();
        if !view.writable || !view.claim.is_valid_at(around.clock.now()) {
            continue;
        }
        // The data plane holds it until the application answers.
        if !around.health.borrow().up {
            continue;
        }
        around.under_way.send_modify(|count| *count += 1);
        let takes = if chance.random_bool(0.1) {
            chance.random_range(1..200)
        } else {
            chance.random_range(0..8)
        };
        let majority = chance.random_bool(0.6);
        let id = around.place.truth.see().next_id();
        let done = around.place.app.lock().unwrap().write(id, takes);
        answer(&around, model, &view, views, (id, majority), done).await;
        around.under_way.send_modify(|count| *count -= 1);
    }
}

/// The answer rule of the data plane.
async fn answer(
    around: &Around,
    model: &Model,
    view: &ClusterView,
    views: watch::Receiver<ClusterView>,
    (id, majority): (u64, bool),
    done: oneshot::Receiver<bool>,
) {
    if !done.await.unwrap_or(false) {
        return;
    }
    let Ok(position) = model.read_position().await else { return };
    if model.copy.state().primary != Some(view.epoch()) || position.epoch != view.epoch() {
        return;
    }
    let acked = timeout(Duration::from_secs(1), around.acks.majority(position));
    if majority && acked.await.is_err() {
        return;
    }
    let valid = view.claim.is_valid_at(around.clock.now());
    if valid && views.borrow().newest_epoch() <= view.epoch() {
        let name = around.place.name.as_str();
        around.place.truth.see().acknowledged(name, id, position, majority);
    }
}
