//! An application that keeps the exact bytes of every request, over TCP or a Unix socket.
//!
//! Either it answers by itself as told ([`Recorder::answering`]), or the test takes its connections
//! and plays the application ([`Recorder::played`]).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::wire::{Message, Wire, soon};

/// The answer to a request, as bytes. One that says `connection: close` is followed by the end.
type Handler = Arc<dyn Fn(&Message) -> Vec<u8> + Send + Sync>;

/// A request, and the number of the connection that it came on, from 0.
#[derive(Clone, Debug)]
pub struct Seen {
    pub connection: usize,
    pub request: Message,
}

/// The application. Dropping it closes its port and its connections.
pub struct Recorder {
    target: String,
    seen: watch::Sender<Vec<Seen>>,
    connections: watch::Sender<usize>,
    played: Mutex<mpsc::UnboundedReceiver<Wire>>,
    tasks: JoinSet<()>,
}

impl Recorder {
    /// Answers each request with what `handler` says.
    pub async fn answering(handler: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on_tcp(listener, Some(Arc::new(handler)))
    }

    /// Answers 200 with the target that was asked for.
    pub async fn echoing() -> Self {
        Self::answering(|request| ok(request.target())).await
    }

    /// Hands its connections to the test.
    pub async fn played() -> Self {
        Self::on_tcp(TcpListener::bind("127.0.0.1:0").await.unwrap(), None)
    }

    /// Likewise, at a port that somebody was told before.
    pub fn played_at(port: &Port) -> Self {
        let listener = Port::bind(port.address).listen(128).unwrap();
        Self::on_tcp(listener, None)
    }

    /// Answers each request over a Unix socket.
    pub fn unix(
        path: &Path,
        handler: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let handler: Handler = Arc::new(handler);
        let (recorder, connections) = Self::new(format!("unix:{}", path.display()), Some(handler));
        recorder.accepting(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = connections.send(Wire::new(stream));
            }
        })
    }

    fn on_tcp(listener: TcpListener, handler: Option<Handler>) -> Self {
        let (recorder, connections) =
            Self::new(listener.local_addr().unwrap().to_string(), handler);
        recorder.accepting(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let _ = connections.send(Wire::new(stream));
            }
        })
    }

    fn new(target: String, handler: Option<Handler>) -> (Self, mpsc::UnboundedSender<Wire>) {
        let (accepted, mut connections) = mpsc::unbounded_channel::<Wire>();
        let (play, played) = mpsc::unbounded_channel();
        let (seen, count) = (watch::Sender::default(), watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        let (log, counter) = (seen.clone(), count.clone());
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Some(mut wire) = connections.recv().await {
                let (log, play, counter) = (log.clone(), play.clone(), counter.clone());
                let handler = handler.clone();
                serving.spawn(async move {
                    // Who connects and says nothing only looks whether we are there.
                    if !wire.more().await {
                        return;
                    }
                    let connection = *counter.borrow();
                    counter.send_modify(|n| *n += 1);
                    match handler {
                        Some(handler) => serve(connection, wire, &log, &handler).await,
                        None => drop(play.send(wire)),
                    }
                });
            }
        });
        let recorder = Self { target, seen, connections: count, played: Mutex::new(played), tasks };
        (recorder, accepted)
    }

    fn accepting(mut self, accept: impl Future<Output = ()> + Send + 'static) -> Self {
        self.tasks.spawn(accept);
        self
    }

    /// What to write as `proxy.target`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Every request that came, in order. Only where the recorder answers by itself.
    pub fn requests(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Likewise, and forgets them.
    pub fn take(&self) -> Vec<Seen> {
        self.seen.send_replace(Vec::new())
    }

    /// The one request that came.
    pub fn only(&self) -> Message {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0).request
    }

    /// How many connections ever carried something.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// The next connection that carries something.
    pub async fn connection(&self) -> Wire {
        let next = std::future::poll_fn(|cx| self.played.lock().unwrap().poll_recv(cx));
        soon("a connection to the application", next).await.unwrap()
    }
}

/// A port at which nobody listens yet. It is ours: nobody else is given it meanwhile.
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    pub fn reserve() -> Self {
        let held = Self::bind(([127, 0, 0, 1], 0).into());
        Self { address: held.local_addr().unwrap(), _held: held }
    }

    /// What to write as `proxy.target`.
    pub fn target(&self) -> String {
        self.address.to_string()
    }

    fn bind(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        // The one that listens shares the address with the one that holds it.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket
    }
}

async fn serve(
    connection: usize,
    mut wire: Wire,
    log: &watch::Sender<Vec<Seen>>,
    handler: &Handler,
) {
    while let Some(request) = wire.request().await {
        let answer = handler(&request);
        log.send_modify(|seen| seen.push(Seen { connection, request }));
        let last = String::from_utf8_lossy(&answer).contains("connection: close\r\n");
        if wire.try_send(answer).await.is_err() || last {
            return;
        }
    }
}

/// 200 with that text.
pub fn ok(body: &str) -> Vec<u8> {
    response("200 OK", &[], body)
}

/// A response with `Content-Length`.
pub fn response(status: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    format!("{text}\r\n{body}").into_bytes()
}
