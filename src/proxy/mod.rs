//! The data plane: one thread with a runtime of its own per worker, and one that accepts.
//!
//! A request's life is in [`exchange`]; what is known of it in [`facts`]; what is decided without I/O
//! in [`route`], [`request`], [`headers`] and [`token`]. The cluster is known here only as a
//! [`ClusterView`](crate::cluster).

pub mod acceptor;
pub(crate) mod access;
pub mod ack;
pub(crate) mod activity;
pub(crate) mod answer;
pub mod at_app;
pub(crate) mod chunk_walk;
mod claim_watch;
pub(crate) mod client;
pub(crate) mod client_body;
pub(crate) mod client_io;
pub(crate) mod delivery;
mod durable_read;
pub(crate) mod error_pages;
pub(crate) mod exchange;
pub mod facts;
pub(crate) mod failed_read;
pub(crate) mod finish;
pub(crate) mod forward;
pub(crate) mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod gathered_io;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod health;
pub mod hold;
pub(crate) mod http2;
pub(crate) mod inside;
pub(crate) mod lazy_timer;
pub mod learned;
pub(crate) mod linger;
pub(crate) mod look;
pub mod misclassified_reads;
pub(crate) mod observed_io;
mod other_writers;
pub(crate) mod piece_timer;
pub(crate) mod problem;
pub(crate) mod proxy_protocol;
pub(crate) mod receive;
pub(crate) mod replay;
pub mod replay_budget;
pub(crate) mod request;
pub(crate) mod request_body;
pub(crate) mod request_line;
pub(crate) mod response_body;
mod rest;
pub mod route;
pub(crate) mod secure;
pub(crate) mod streams;
pub mod token;
pub(crate) mod trace;
pub(crate) mod tunnel;
pub mod unmoved_writes;
pub(crate) mod upstream;
pub(crate) mod waiting;
pub mod worker;
pub mod writes;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc;

use crate::peer;
use crate::telemetry::log_throttle::may_say;
use crate::telemetry::metrics::WorkerMetrics;
use acceptor::{Accepted, Door, Slots};
use worker::{Worker, WorkerContext};

/// The running data plane.
pub struct DataPlane {
    address: SocketAddr,
    slots: Arc<Slots>,
    forwarded: Arc<Slots>,
    threads: Vec<JoinHandle<()>>,
    stop: tokio::sync::watch::Sender<bool>,
    /// Its sender goes when the port has been closed.
    accepting: tokio::sync::watch::Receiver<()>,
    peers: PeerDoor,
}

impl DataPlane {
    /// Starts the threads. `door` must be bound and listening.
    ///
    /// # Errors
    ///
    /// When the system gives us no thread or no event queue.
    pub fn start(
        door: impl Into<Door>,
        shared: Arc<WorkerContext>,
        workers: usize,
    ) -> io::Result<Self> {
        let door = door.into();
        door.listener.set_nonblocking(true)?;
        let address = door.listener.local_addr()?;
        let slots = Slots::new(shared.config.max_connections);
        let forwarded = shared.forwarded.clone();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (senders, receivers) = acceptor::channels(workers);
        let peers = PeerDoor { workers: senders.clone().into(), turn: Arc::default() };
        let (open, accepting) = tokio::sync::watch::channel(());
        let (draining, dealt) = (shared.draining.clone(), slots.clone());
        let accept = async move {
            let _open = open;
            if let Err(why) = acceptor::run(door, dealt, senders, draining).await {
                tracing::error!(%why, "cannot accept connections");
            }
        };
        // The first worker accepts for all: a thread of its own would have to wake one each time.
        let mut accept = Some(accept);
        let mut threads = Vec::new();
        for (i, connections) in receivers.into_iter().enumerate() {
            let (shared, slots, accept) = (shared.clone(), slots.clone(), accept.take());
            let metrics = shared.metrics.worker(i);
            threads.push(spawn(format!("proxy-{i}"), stopped.clone(), move || {
                if let Some(accept) = accept {
                    tokio::task::spawn_local(accept);
                }
                work(shared, metrics, slots, connections)
            })?);
        }
        Ok(Self { address, slots, forwarded, threads, stop, accepting, peers })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where peers' connections are taken.
    pub fn peer_door(&self) -> PeerDoor {
        self.peers.clone()
    }

    /// Returns once the port has been closed, and every client and every peer has gone.
    pub(crate) async fn drained(&self) {
        // Until then clients may come who were connected already.
        while self.accepting.clone().changed().await.is_ok() {}
        self.slots.all_closed().await;
        self.forwarded.all_closed().await;
    }

    /// How many clients are connected.
    pub(crate) fn connections(&self) -> usize {
        self.slots.open()
    }

    /// Ends what is left at once.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the data plane had panicked");
            }
        }
    }
}

/// A thread with a runtime of its own, which lives until `stopped` says so.
fn spawn<F: Future<Output = ()>>(
    name: String,
    mut stopped: tokio::sync::watch::Receiver<bool>,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (report, started) = std::sync::mpsc::channel();
    let run = move || {
        let runtime = match LocalRuntime::new() {
            Ok(runtime) => runtime,
            Err(why) => return drop(report.send(Err(why))),
        };
        let _ = report.send(Ok(()));
        runtime.block_on(async {
            tokio::select! {
                () = work() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        });
    };
    let thread = thread::Builder::new().name(name).spawn(run)?;
    started.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// Serves the connections dealt to one worker, for as long as the process lives.
async fn work(
    shared: Arc<WorkerContext>,
    metrics: Arc<WorkerMetrics>,
    slots: Arc<Slots>,
    mut connections: mpsc::Receiver<Accepted>,
) {
    let worker = Worker::new(shared, metrics);
    let house = worker.clone();
    tokio::task::spawn_local(async move { house.keep_house(&slots.full).await });
    while let Some(accepted) = connections.recv().await {
        if let Err(why) = take(&worker, accepted)
            && let Some(held_back) = may_say("socket")
        {
            tracing::error!(%why, held_back, "cannot watch a socket");
        }
    }
    // The acceptor has ended; those who are connected are served until the thread is stopped.
    std::future::pending::<()>().await;
}

/// Serves a connection in a task of this thread.
fn take(worker: &Rc<Worker>, accepted: Accepted) -> io::Result<()> {
    match accepted {
        Accepted::Client(stream, peer, slot) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            tokio::task::spawn_local(client::serve(worker.clone(), stream, peer, slot));
        }
        Accepted::Peer(stream) => {
            let stream = stream.adopt()?;
            tokio::task::spawn_local(client::serve_peer(worker.clone(), stream));
        }
    }
    Ok(())
}

/// Deals peers' connections to the workers in turn. One that no worker can take now is closed; the
/// peer will dial again.
#[derive(Clone)]
pub struct PeerDoor {
    workers: Arc<[mpsc::Sender<Accepted>]>,
    turn: Arc<AtomicUsize>,
}

impl PeerDoor {
    /// Takes a peer's connection.
    pub fn enter(&self, stream: peer::Stream) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let worker = &self.workers[turn % self.workers.len()];
        if worker.try_send(Accepted::Peer(stream)).is_err()
            && let Some(held_back) = may_say("peer dropped")
        {
            tracing::warn!(
                held_back,
                "dropped a peer's connection: the workers are too busy to take it"
            );
        }
    }
}
