//! Questions and answers over the peer port: length-prefixed JSON, several questions in flight on one
//! connection to each node.
//!
//! A connection on which a question was not answered in time, and nothing else came either, is taken
//! for dead and replaced: the election cannot wait for TCP to find out.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::rpc::{Answer, CallError, Request, Service, Transport};
use crate::cluster::NodeId;
use crate::engine::BoxFuture;
use crate::peer::{self, Dialer, Handler, Limits, Stream};

/// For the listener: a node needs one connection; the others are those it gave up.
pub const LIMITS: Limits = Limits { per_peer: 8, total: 256 };
/// No frame is larger, in bytes: a snapshot of the table is far smaller.
const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Questions to one node that wait to be sent; one more is not asked.
const QUEUE: usize = 256;
/// Questions of one connection that are answered at once; the next waits to be read.
const AT_ONCE: usize = 64;
/// For one frame to be taken by the other side.
const WRITE: Duration = Duration::from_secs(2);
/// After a dial has failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks other nodes.
pub struct Network {
    dialer: Arc<Dialer>,
    links: Mutex<HashMap<NodeId, mpsc::Sender<Question>>>,
}

/// A question on its way.
struct Question {
    request: Request,
    limit: Duration,
    reply: oneshot::Sender<Result<Answer, CallError>>,
}

/// One that was sent.
struct Asked {
    reply: oneshot::Sender<Result<Answer, CallError>>,
    at: Instant,
    until: Instant,
}

/// A frame: what is asked or answered, and its number on this connection.
#[derive(Serialize, Deserialize)]
struct Frame<T> {
    id: u64,
    body: T,
}

impl Network {
    /// Nothing is dialed before the first question.
    pub fn new(dialer: Arc<Dialer>) -> Arc<Self> {
        Arc::new(Self { dialer, links: Mutex::default() })
    }

    fn link(&self, to: &NodeId) -> mpsc::Sender<Question> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let open = links.get(to).filter(|link| !link.is_closed());
        if let Some(link) = open {
            return link.clone();
        }
        let (link, questions) = mpsc::channel(QUEUE);
        tokio::spawn(keep(self.dialer.clone(), to.clone(), questions));
        links.insert(to.clone(), link.clone());
        link
    }
}

impl Transport for Network {
    fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (reply, answer) = oneshot::channel();
        let queued = self.link(&to).try_send(Question { request, limit, reply });
        Box::pin(async move {
            if queued.is_err() {
                return Err(CallError::Unreachable("too many questions wait for it".to_owned()));
            }
            match timeout(limit, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(CallError::Lost("the connection broke".to_owned())),
                Err(_) => Err(CallError::Lost(format!("none within {limit:?}"))),
            }
        })
    }
}

/// Keeps a connection to one node for as long as anybody may ask, and dials anew when it breaks.
async fn keep(dialer: Arc<Dialer>, to: NodeId, mut questions: mpsc::Receiver<Question>) {
    while let Some(first) = questions.recv().await {
        if first.reply.is_closed() {
            continue;
        }
        match dialer.dial_now(&to, peer::RAFT).await {
            Ok(stream) => converse(stream, first, &mut questions).await,
            Err(why) => {
                let why = CallError::Unreachable(why.to_string());
                // Those who wait meanwhile would only hear the same.
                let mut question = Some(first);
                while let Some(Question { reply, .. }) = question {
                    let _ = reply.send(Err(why.clone()));
                    question = questions.try_recv().ok();
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Asks over one connection until it breaks.
async fn converse(stream: Stream, first: Question, questions: &mut mpsc::Receiver<Question>) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut asked: HashMap<u64, Asked> = HashMap::new();
    let (mut id, mut heard) = (0, Instant::now());
    let (send, mut frames) = mpsc::channel::<Vec<u8>>(QUEUE);
    let writing = async {
        while let Some(frame) = frames.recv().await {
            write_frame(&mut write, &frame).await?;
        }
        Ok::<(), io::Error>(())
    };
    let (answers, mut answered) = mpsc::channel(QUEUE);
    let reading = async {
        loop {
            let frame: Frame<Answer> = read_frame(&mut read).await?;
            if answers.send(frame).await.is_err() {
                return Ok::<(), io::Error>(());
            }
        }
    };
    let asking = async {
        let mut next = Some(first);
        loop {
            if let Some(question) = next.take() {
                id += 1;
                let Ok(frame) = encode(&Frame { id, body: question.request }) else { continue };
                if send.try_send(frame).is_err() {
                    return;
                }
                let at = Instant::now();
                let until = at + question.limit;
                asked.insert(id, Asked { reply: question.reply, at, until });
            }
            let overdue = asked.values().map(|asked| asked.until).min();
            tokio::select! {
                question = questions.recv() => match question {
                    Some(question) => next = Some(question),
                    None => return,
                },
                Some(Frame { id, body }) = answered.recv() => {
                    heard = Instant::now();
                    if let Some(asked) = asked.remove(&id) {
                        let _ = asked.reply.send(Ok(body));
                    }
                }
                () = until(overdue) => {
                    let now = Instant::now();
                    let dead = asked.values().any(|a| a.until <= now && heard < a.at);
                    asked.retain(|_, asked| asked.until > now);
                    if dead {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        _ = writing => {}
        _ = reading => {}
        () = asking => {}
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Answers the questions of other nodes. For the listener.
pub fn handler(service: impl Service) -> Handler {
    let service = Arc::new(service);
    Arc::new(move |incoming| {
        let service = service.clone();
        tokio::spawn(async move {
            if let Err(why) = serve(&*service, &incoming.node, incoming.stream).await {
                tracing::debug!(peer = %incoming.node, %why, "it asks no more");
            }
        });
    })
}

async fn serve(service: &dyn Service, from: &NodeId, stream: Stream) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let (send, mut frames) = mpsc::channel::<Vec<u8>>(AT_ONCE);
    let writing = async {
        while let Some(frame) = frames.recv().await {
            write_frame(&mut write, &frame).await?;
        }
        Ok(())
    };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut answering = JoinSet::new();
    let reading = async {
        loop {
            let Frame { id, body } = read_frame::<Request>(&mut read).await?;
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (answer, send) = (service.answer(from.clone(), body), send.clone());
            answering.spawn(async move {
                let body = answer.await;
                if let Ok(frame) = encode(&Frame { id, body }) {
                    // Whoever asked is gone.
                    let _ = send.send(frame).await;
                }
                drop(place);
            });
            while answering.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        end = writing => end,
        end = reading => end,
    }
}

fn encode<T: Serialize>(frame: &Frame<T>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = bytes.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= MAX_FRAME => {
            bytes[..4].copy_from_slice(&prefix.to_be_bytes());
            Ok(bytes)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too large")),
    }
}

async fn write_frame(write: &mut WriteHalf<Stream>, frame: &[u8]) -> io::Result<()> {
    let written = async {
        write.write_all(frame).await?;
        write.flush().await
    };
    timeout(WRITE, written).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn read_frame<T: DeserializeOwned>(read: &mut ReadHalf<Stream>) -> io::Result<Frame<T>> {
    let length = read.read_u32().await? as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too large"));
    }
    let mut bytes = vec![0; length];
    read.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
