//! One data-plane worker: a thread with a runtime of its own, its connections to the application,
//! its counters, and its copies of what changes rarely. Nothing on a request's path is shared with
//! another worker but by an atomic.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use http::{HeaderValue, Method};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::acceptor::Slots;
use super::ack::Acknowledging;
use super::at_app::AtApp;
use super::error_pages::ErrorPages;
use super::headers;
use super::hold::Holds;
use super::learned::LearnedRoutes;
use super::look;
use super::misclassified_reads::MisclassifiedReads;
use super::replay_budget::ReplayBudget;
use super::token;
use super::trace;
use super::unmoved_writes::UnmovedWrites;
use super::upstream::{Dial, Origin, OriginLimits, PrimaryDial, RawHeaders};
use super::writes::Writes;
use crate::cluster::{ClusterView, NodeId};
use crate::config;
use crate::engine::Engine;
use crate::peer::Dialer;
use crate::process::health::AppHealth;
use crate::rules::{RuleSet, WriteRoute};
use crate::shutdown::Urgency;
use crate::telemetry::metrics::{Metrics, WorkerMetrics};

/// How long an idle connection to a peer is kept.
const PEER_KEEP: Duration = Duration::from_secs(60);

/// What all workers of a node share.
pub struct WorkerContext {
    /// `proxy:` of the configuration.
    pub config: config::Proxy,
    /// This node's name.
    pub node: Arc<str>,
    /// Which requests are logged.
    pub access_log: config::Access,
    /// The rules, replaced as a whole.
    pub rules: watch::Receiver<Arc<RuleSet>>,
    /// The cluster, replaced as a whole.
    pub view: watch::Receiver<ClusterView>,
    /// Keeps the database.
    pub engine: Arc<dyn Engine>,
    /// Whether the application answers.
    pub app: AppHealth,
    /// It runs on the primary only: on any other node nothing is served here.
    pub app_on_primary: bool,
    /// Opens connections to the other nodes, if there are any.
    pub dialer: Option<Arc<Dialer>>,
    /// Connections on which peers pass requests on.
    pub forwarded: Arc<Slots>,
    /// How many requests wait.
    pub holds: Holds,
    /// Who must hold a write before it is answered, and who does.
    pub ack: Acknowledging,
    /// Rare events are counted here.
    pub metrics: Arc<Metrics>,
    /// How many writes are under way.
    pub writes: Arc<Writes>,
    /// What clients are shown, if they speak TLS.
    pub tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Requests at the application.
    pub at_app: Arc<AtApp>,
    /// Reads that seem to have written.
    pub suspects: Arc<MisclassifiedReads>,
    /// Routes that were found to write.
    pub learned: Arc<LearnedRoutes>,
    /// How many failed reads may be asked of the primary.
    pub replay_budget: Mutex<ReplayBudget>,
    /// Writes after which the database was what it was before.
    pub unmoved: UnmovedWrites,
    /// Set once, when the node begins to stop.
    pub draining: watch::Receiver<bool>,
    /// What clients are shown of the node itself.
    pub front: Front,
}

/// What clients are shown of the node itself.
#[derive(Clone)]
pub struct Front {
    /// Replaced as a whole.
    pub error_pages: watch::Receiver<Arc<ErrorPages>>,
    /// The node has been told to stop. It may take requests for a while nevertheless.
    pub stopping: watch::Receiver<Urgency>,
}

impl Default for Front {
    fn default() -> Self {
        let (_, error_pages) = watch::channel(Arc::default());
        let (_, stopping) = watch::channel(Urgency::None);
        Self { error_pages, stopping }
    }
}

impl WorkerContext {
    /// Whether what is found to write is remembered: there is another node to which it matters.
    pub(crate) fn learns(&self) -> bool {
        self.config.learn && self.dialer.is_some()
    }
}

/// One worker's own state.
pub(crate) struct Worker {
    pub(crate) shared: Arc<WorkerContext>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Its connections to the application.
    pub(crate) app: Rc<Origin>,
    peers: RefCell<HashMap<NodeId, Rc<Origin>>>,
    pub(crate) cookies: token::Setter,
    /// Makes names for requests.
    pub(crate) numbers: trace::Numbers,
    /// How many reads may still be watched for writes until the budget is renewed.
    pub(crate) looks: Cell<u32>,
    pub(crate) node: HeaderValue,
    /// Reads since the budget for replays was told of them.
    pub(crate) reads: Cell<u64>,
    rules: Latest<Arc<RuleSet>, Arc<RuleSet>>,
    learned: Latest<Arc<BTreeSet<WriteRoute>>, Arc<BTreeSet<WriteRoute>>>,
    tls: Option<Latest<Arc<ServerConfig>, Arc<ServerConfig>>>,
    error_pages: Latest<Arc<ErrorPages>, Arc<ErrorPages>>,
    seen: Latest<ClusterView, Rc<ViewSnapshot>>,
    draining: Cell<bool>,
    /// Since when idle connections get only a short while: the node stops, or too many are open.
    impatient_since: Cell<Option<Instant>>,
    /// Those who drive connections here, to be told when that changes.
    present: RefCell<HashMap<u64, Waker>>,
    next_presence: Cell<u64>,
}

/// The cluster as this worker last saw it, with what it tells applications about it.
pub(crate) struct ViewSnapshot {
    pub(crate) view: ClusterView,
    /// That, in fields of a request.
    pub(crate) told: Rc<RawHeaders>,
}

impl Worker {
    /// Belongs to the thread that calls this.
    pub(crate) fn new(shared: Arc<WorkerContext>, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        let config = &shared.config;
        let limits = limits(config, config.target_keepalive);
        Rc::new(Self {
            app: Origin::new(Dial::app(&config.target), limits),
            peers: RefCell::default(),
            cookies: token::Setter::new(&config.cookie),
            numbers: trace::Numbers::default(),
            looks: Cell::new(look::LOOKS),
            node: name_header(&shared.node),
            reads: Cell::new(0),
            rules: Latest::new(shared.rules.clone(), Arc::clone),
            learned: Latest::new(shared.learned.known(), Arc::clone),
            tls: shared.tls.clone().map(|tls| Latest::new(tls, Arc::clone)),
            error_pages: Latest::new(shared.front.error_pages.clone(), Arc::clone),
            seen: Latest::new(shared.view.clone(), ViewSnapshot::new),
            draining: Cell::new(false),
            impatient_since: Cell::new(None),
            present: RefCell::default(),
            next_presence: Cell::new(0),
            metrics,
            shared,
        })
    }

    /// This worker's connections to another node; `None` for a stranger.
    pub(crate) fn peer(&self, node: &NodeId) -> Option<Rc<Origin>> {
        if let Some(origin) = self.peers.borrow().get(node) {
            return Some(origin.clone());
        }
        let dialer = self.shared.dialer.as_ref()?;
        if !dialer.peers().borrow().contains(node) {
            return None;
        }
        let limits = limits(&self.shared.config, PEER_KEEP);
        let way = PrimaryDial::new(dialer.clone(), node.clone(), self.shared.view.clone());
        let origin = Origin::new(Dial::Peer(way), limits);
        self.peers.borrow_mut().insert(node.clone(), origin.clone());
        Some(origin)
    }

    /// The rules now in force.
    pub(crate) fn rules(&self) -> Arc<RuleSet> {
        self.rules.get()
    }

    /// Whether such requests were found to write.
    pub(crate) fn has_learned(&self, method: &Method, host: &[u8], path: &str) -> bool {
        let learned = self.learned.get();
        let known = |route: WriteRoute| learned.contains(&route);
        // Most often nothing was found, and then nothing is made up to be looked for.
        !learned.is_empty() && WriteRoute::of(method, host, path).is_some_and(known)
    }

    /// Tells the budget for replays of the reads since it was last told.
    pub(crate) fn deposit_reads(&self) {
        let reads = self.reads.take();
        if reads > 0 {
            self.shared.replay_budget.lock().deposit(reads, Instant::now());
        }
    }

    /// What clients are shown now, if they speak TLS.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(Latest::get)
    }

    /// What browsers see in the place of our pages.
    pub(crate) fn error_pages(&self) -> Arc<ErrorPages> {
        self.error_pages.get()
    }

    /// The cluster as it is now.
    pub(crate) fn seen(&self) -> Rc<ViewSnapshot> {
        self.seen.get()
    }

    /// Whether this node's application does not run, since this node is not the primary.
    pub(crate) fn is_standby(&self) -> bool {
        self.shared.app_on_primary && !self.seen().view.takes_writes()
    }

    /// Whether the node is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Since when idle connections get only a short while, if they do.
    pub(crate) fn impatient_since(&self) -> Option<Instant> {
        self.impatient_since.get()
    }

    /// Registers the task that drives a connection, until the answer is dropped.
    pub(crate) fn enter(self: &Rc<Self>, waker: Waker) -> Presence {
        let id = self.next_presence.replace(self.next_presence.get() + 1);
        self.present.borrow_mut().insert(id, waker);
        Presence { id, worker: self.clone() }
    }

    /// Keeps house: closes connections to the application that nobody has used for a while, and has
    /// idle clients go when the node stops or is `full`.
    pub(crate) async fn keep_house(&self, full: &AtomicBool) {
        const EVERY: Duration = Duration::from_millis(250);
        let mut draining = self.shared.draining.clone();
        loop {
            if self.is_draining() {
                tokio::time::sleep(EVERY).await;
            } else {
                let stops = timeout(EVERY, draining.wait_for(|draining| *draining)).await;
                self.draining.set(stops.is_ok());
            }
            self.looks.set(look::LOOKS);
            self.deposit_reads();
            self.app.sweep();
            self.peers.borrow().values().for_each(|peer| peer.sweep());
            let impatient = self.is_draining() || full.load(Relaxed);
            if impatient != self.impatient_since.get().is_some() {
                self.impatient_since.set(impatient.then(Instant::now));
                self.present.borrow().values().for_each(Waker::wake_by_ref);
            }
        }
    }
}

fn limits(config: &config::Proxy, keep: Duration) -> OriginLimits {
    OriginLimits { connect: config.connect_timeout, keep }
}

/// A connection's place in its worker's register.
pub(crate) struct Presence {
    id: u64,
    worker: Rc<Worker>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.worker.present.borrow_mut().remove(&self.id);
    }
}

impl ViewSnapshot {
    fn new(view: &ClusterView) -> Rc<Self> {
        let mut told = RawHeaders::default();
        told.add(&headers::ROLE, &HeaderValue::from_static(view.role.as_str()));
        if let Some(primary) = &view.primary {
            told.add(&headers::PRIMARY, &name_header(primary.node.as_str()));
        }
        Rc::new(Self { view: view.clone(), told: Rc::new(told) })
    }
}

/// A node's name is always a valid header value.
fn name_header(name: &str) -> HeaderValue {
    HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// This worker's own form of the newest value of a watched one: looking for a change costs one
/// atomic load.
struct Latest<T, F> {
    watched: RefCell<watch::Receiver<T>>,
    form: RefCell<F>,
    make: fn(&T) -> F,
}

impl<T, F: Clone> Latest<T, F> {
    fn new(mut watched: watch::Receiver<T>, make: fn(&T) -> F) -> Self {
        let form = RefCell::new(make(&watched.borrow_and_update()));
        Self { watched: RefCell::new(watched), form, make }
    }

    fn get(&self) -> F {
        // An error means that nothing will change any more.
        if self.watched.borrow().has_changed().unwrap_or(false) {
            *self.form.borrow_mut() = (self.make)(&self.watched.borrow_mut().borrow_and_update());
        }
        self.form.borrow().clone()
    }
}
