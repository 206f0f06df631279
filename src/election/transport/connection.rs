//! The asking end of the connection to one node.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::IN_FLIGHT;
use super::frame::{self, Answered, Question};
use crate::cluster::NodeId;
use crate::election::rpc::{CallError, Request, Response};
use crate::peer::{self, DialError, Dialer, GreetingRefusal, Stream};

/// So many questions without an answer, and nothing else heard meanwhile: the connection is dead.
const MISSES: u32 = 3;
/// For a connection to be made; a packet that is lost costs a second anyway.
const DIAL_WITHIN: Duration = Duration::from_secs(1);
/// Between two attempts to dial.
const PAUSE: Duration = Duration::from_millis(50);

/// Everybody who asks one node. The task that keeps the connection ends with it.
pub(crate) struct PeerConnection {
    questions: mpsc::Sender<(u64, Vec<u8>)>,
    state: Arc<State>,
}

struct State {
    places: Semaphore,
    last_id: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// Questions that got no answer since something was last heard.
    misses: AtomicU32,
    dead: Notify,
}

type Waiting = oneshot::Sender<Result<Response, CallError>>;

/// A question that waits for its answer, or whose asker has just given up.
struct Ticket<'a> {
    state: &'a State,
    id: u64,
}

impl PeerConnection {
    /// Nothing is dialed before something is asked.
    pub(crate) fn new(dialer: Arc<Dialer>, node: NodeId) -> Self {
        let (questions, queue) = mpsc::channel(IN_FLIGHT);
        let state = Arc::new(State {
            places: Semaphore::new(IN_FLIGHT),
            last_id: AtomicU64::default(),
            waiting: Mutex::default(),
            misses: AtomicU32::default(),
            dead: Notify::new(),
        });
        tokio::spawn(keep(state.clone(), queue, dialer, node));
        Self { questions, state }
    }

    /// See [`Transport::call`](crate::election::rpc::Transport::call).
    pub(crate) async fn ask(&self, ask: Request, limit: Duration) -> Result<Response, CallError> {
        let busy = || CallError::Unreachable("too many questions are under way".to_owned());
        let _place = self.state.places.try_acquire().map_err(|_| busy())?;
        let (ticket, answer) = self.state.wait();
        let question = frame::encode(&Question { id: ticket.id, ask });
        let question = question.map_err(|error| CallError::Unreachable(error.to_string()))?;
        self.questions.try_send((ticket.id, question)).map_err(|_| busy())?;
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Lost("the connection is no longer kept".to_owned())),
            Err(_) => Err(CallError::Lost(format!("none within {} ms", limit.as_millis()))),
        }
    }
}

/// Keeps a connection while there are questions.
async fn keep(
    state: Arc<State>,
    mut questions: mpsc::Receiver<(u64, Vec<u8>)>,
    dialer: Arc<Dialer>,
    node: NodeId,
) {
    while let Some((id, question)) = questions.recv().await {
        if !state.is_waiting(id) {
            continue;
        }
        let failure = match timeout(DIAL_WITHIN, dialer.dial_now(&node, peer::RAFT)).await {
            Ok(Ok(stream)) => {
                let why = state.converse(stream, question, &mut questions).await;
                CallError::Lost(format!("the connection broke: {why}"))
            }
            Ok(Err(why @ DialError::Refused(GreetingRefusal::NotAMember, _))) => {
                CallError::NotAMember(why.to_string())
            }
            Ok(Err(why)) => CallError::Unreachable(why.to_string()),
            Err(_) => CallError::Unreachable("it did not answer in time".to_owned()),
        };
        state.fail(&failure);
        sleep(PAUSE).await;
    }
}

impl State {
    fn wait(&self) -> (Ticket<'_>, oneshot::Receiver<Result<Response, CallError>>) {
        let id = self.last_id.fetch_add(1, Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(id, sender);
        (Ticket { state: self, id }, answer)
    }

    /// Asks and hears until the connection ends, and says why it did.
    async fn converse(
        &self,
        stream: Stream,
        first: Vec<u8>,
        questions: &mut mpsc::Receiver<(u64, Vec<u8>)>,
    ) -> io::Error {
        self.misses.store(0, Relaxed);
        let (reader, writer) = tokio::io::split(stream);
        let ended = tokio::select! {
            biased;
            ended = self.hear(BufReader::new(reader)) => ended,
            ended = self.speak(writer, first, questions) => ended,
            () = self.dead.notified() => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answers came any more"))
            }
        };
        ended.err().unwrap_or_else(|| io::Error::other("nobody asks any more"))
    }

    async fn hear(&self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        loop {
            let json = frame::read(&mut reader).await?;
            self.misses.store(0, Relaxed);
            let Answered { id, answer } = frame::decode(&json)?;
            if let Some(waiting) = self.waiting().remove(&id) {
                // Whoever asked may have given up just now.
                let _ = waiting.send(Ok(answer));
            }
        }
    }

    async fn speak(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        first: Vec<u8>,
        questions: &mut mpsc::Receiver<(u64, Vec<u8>)>,
    ) -> io::Result<()> {
        frame::write(&mut writer, &first).await?;
        while let Some((id, question)) = questions.recv().await {
            if self.is_waiting(id) {
                frame::write(&mut writer, &question).await?;
            }
        }
        Ok(())
    }

    /// Everybody who waits has waited in vain.
    fn fail(&self, why: &CallError) {
        for (_, waiting) in self.waiting().drain() {
            let _ = waiting.send(Err(why.clone()));
        }
    }

    fn is_waiting(&self, id: u64) -> bool {
        self.waiting().contains_key(&id)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let unanswered = self.state.waiting().remove(&self.id).is_some();
        if unanswered && self.state.misses.fetch_add(1, Relaxed) + 1 >= MISSES {
            self.state.dead.notify_waiters();
        }
    }
}
