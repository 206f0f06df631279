//! Questions over real sockets, through a link that can be stalled and cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::cluster::Epoch;
use crate::config::HostPort;
use crate::election::rpc::Service;
use crate::peer::{self, Dialer, Listener, Stream, Times};
use crate::relay::{Link as Wire, Relay};

/// However busy the machine is.
const GENEROUS: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

const TIMES: Times = Times {
    connect: Duration::from_secs(20),
    greeting: Duration::from_secs(20),
    unacknowledged: Duration::from_secs(60),
};

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// Answers `Fitness` at once, and all else when it is let.
#[derive(Default)]
struct Waiter {
    go: Notify,
    waiting: AtomicUsize,
    done: AtomicUsize,
}

struct Answers(Arc<Waiter>);

impl Service for Answers {
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Response> {
        let waiter = self.0.clone();
        Box::pin(async move {
            assert_eq!(from, id("a"));
            if !matches!(request, Request::Fitness) {
                waiter.waiting.fetch_add(1, Ordering::SeqCst);
                waiter.go.notified().await;
                waiter.done.fetch_add(1, Ordering::SeqCst);
                return Response::Renewed;
            }
            Response::Done
        })
    }
}

/// A node `b` that answers, and the way to it from `a`.
struct Pair {
    waiter: Arc<Waiter>,
    at: SocketAddr,
    relay: Relay,
    transport: Arc<PeerTransport>,
    _tasks: JoinSet<()>,
}

impl Pair {
    async fn new() -> Self {
        let members = Arc::new(|_: &NodeId| true);
        let at = (Ipv4Addr::LOCALHOST, 0).into();
        let mut listener = Listener::bind(id("b"), at, members, TIMES).await.unwrap();
        let waiter = Arc::new(Waiter::default());
        listener.handle(peer::RAFT, LIMITS, handler(Arc::new(Answers(waiter.clone()))));
        let at = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        let relay = Relay::to(at).await;
        let transport = Arc::new(PeerTransport::new(Arc::new(dialer(relay.addr()))));
        Self { waiter, at, relay, transport, _tasks: tasks }
    }

    async fn quick(&self, limit: Duration) -> Result<Response, CallError> {
        self.transport.call(id("b"), Request::Fitness, limit).await
    }

    fn slow(&self) -> BoxFuture<'static, Result<Response, CallError>> {
        self.transport.call(id("b"), Request::Promise { epoch: Epoch(1) }, GENEROUS)
    }

    async fn works(&self) {
        let tries = async {
            while !matches!(self.quick(GENEROUS).await, Ok(Response::Done)) {
                tokio::time::sleep(SHORT).await;
            }
        };
        tokio::time::timeout(GENEROUS, tries).await.expect("no answer");
    }

    async fn until_waiting(&self, number: usize) {
        while self.waiter.waiting.load(Ordering::SeqCst) < number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A connection of `a` to `b`, to send whatever one likes.
    async fn raw(&self) -> Stream {
        dialer(self.at).dial_now(&id("b"), peer::RAFT).await.unwrap()
    }
}

fn dialer(at: SocketAddr) -> Dialer {
    let at = HostPort { host: at.ip().to_string(), port: at.port() };
    Dialer::new(id("a"), &[(id("b"), at)], TIMES)
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other() {
    let pair = Pair::new().await;
    let slow = tokio::spawn(pair.slow());
    pair.until_waiting(1).await;
    for _ in 0..10 {
        assert!(matches!(pair.quick(GENEROUS).await, Ok(Response::Done)));
    }
    pair.waiter.go.notify_one();
    assert!(matches!(slow.await.unwrap(), Ok(Response::Renewed)));
    assert_eq!(pair.relay.connections(), 1, "one connection carries them all");
}

#[tokio::test]
async fn a_connection_that_breaks_fails_who_waits_and_is_replaced() {
    let pair = Pair::new().await;
    let slow = tokio::spawn(pair.slow());
    pair.until_waiting(1).await;
    pair.relay.set(Wire::Cut);
    assert!(matches!(slow.await.unwrap(), Err(CallError::Lost(_))));
    assert!(pair.quick(GENEROUS).await.is_err());
    pair.relay.set(Wire::Whole);
    pair.works().await;
    // What was asked before is still done, once.
    pair.waiter.go.notify_one();
    while pair.waiter.done.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(SHORT).await;
    }
}

/// TCP would wait for a minute.
#[tokio::test]
async fn a_connection_on_which_no_answers_come_is_replaced() {
    let pair = Pair::new().await;
    pair.works().await;
    pair.relay.set(Wire::Stalled);
    while pair.relay.connections() == 1 {
        assert!(pair.quick(SHORT).await.is_err());
    }
    pair.relay.set(Wire::Whole);
    pair.works().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_unreachable_until_it_is() {
    let reserved = crate::demo::reserve::port(0).unwrap();
    let transport = PeerTransport::new(Arc::new(dialer(reserved.1)));
    let ask = || transport.call(id("b"), Request::Fitness, GENEROUS);
    let error = ask().await.unwrap_err();
    assert!(
        matches!(&error, CallError::Unreachable(why) if why.contains("nobody listens")),
        "{error}"
    );
    let stranger = transport.call(id("x"), Request::Fitness, GENEROUS).await.unwrap_err();
    assert!(matches!(stranger, CallError::Unreachable(why) if why.contains("no address")));
    let members = Arc::new(|_: &NodeId| true);
    let mut listener = Listener::bind(id("b"), reserved.1, members, TIMES).await.unwrap();
    listener.handle(peer::RAFT, LIMITS, handler(Arc::new(Answers(Arc::default()))));
    let _listens = JoinSet::from_iter([listener.run()]);
    while ask().await.is_err() {
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn only_so_many_questions_wait() {
    let pair = Pair::new().await;
    let mut waiting = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        waiting.spawn(pair.slow());
    }
    pair.until_waiting(IN_FLIGHT).await;
    let error = pair.quick(GENEROUS).await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable(why) if why.contains("too many")), "{error}");
    pair.waiter.go.notify_waiters();
    while let Some(answer) = waiting.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    pair.works().await;
}

#[tokio::test]
async fn nonsense_ends_only_its_own_connection() {
    let pair = Pair::new().await;
    for nonsense in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&4u32.to_be_bytes()[..], b"{}{}"].concat(),
        [&2u32.to_be_bytes()[..], b"[]"].concat(),
        u32::MAX.to_be_bytes().to_vec(),
    ] {
        let mut stream = pair.raw().await;
        stream.write_all(&nonsense).await.unwrap();
        let ended = tokio::time::timeout(GENEROUS, frame::read(&mut stream)).await;
        assert!(ended.expect("it is still open").is_err());
    }
    pair.works().await;
}

/// Nodes of two versions run beside each other while a cluster is upgraded.
#[tokio::test]
async fn a_question_of_another_version_is_refused_and_the_next_answered() {
    let pair = Pair::new().await;
    let mut stream = pair.raw().await;
    for (question, expected) in
        [(r#"{"id":7,"ask":{"unheard_of":1}}"#, "refused"), (r#"{"id":8,"ask":"fitness"}"#, "done")]
    {
        let length = (question.len() as u32).to_be_bytes();
        stream.write_all(&[&length, question.as_bytes()].concat()).await.unwrap();
        let answer = String::from_utf8(frame::read(&mut stream).await.unwrap()).unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let pair = Pair::new().await;
    let id = "x".repeat(5 * 1024 * 1024);
    let long = Request::Propose(crate::election::table::Command::SetLitefsId { id });
    let error = pair.transport.call(self::id("b"), long, GENEROUS).await.unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
    pair.works().await;
}
