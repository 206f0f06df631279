//! Events as a `text/event-stream`, for a limited number of clients.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::reply::Body;
use crate::cluster::ClusterView;
use crate::status::StatusSource;
use crate::telemetry::events::{Event, Events};
use crate::telemetry::metrics::traffic::Traffic;

/// The content type of a stream of events.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// A comment is sent this often, so that proxies between do not think the stream dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Messages ready for a client that is slow to read.
const READY: usize = 16;

/// Opens streams while there are free places.
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    /// A client that takes nothing for this long is dropped.
    patience: Duration,
    stopping: watch::Receiver<bool>,
}

/// What a page shows that is open all the time, beside the events.
pub(crate) struct Live {
    /// The state of the cluster.
    pub(crate) status: StatusSource,
    /// When to look at it at once.
    pub(crate) view: watch::Receiver<ClusterView>,
    pub(crate) traffic: Arc<Traffic>,
}

impl Streams {
    /// At most so many at once; all end when `stopping` turns true.
    pub(crate) fn new(at_most: usize, patience: Duration, stopping: watch::Receiver<bool>) -> Self {
        Self { places: Arc::new(Semaphore::new(at_most)), patience, stopping }
    }

    /// A stream of the latest events and all that follow, and of what is `live`; `None` if there is
    /// no free place.
    pub(crate) fn open(&self, events: &Events, live: Option<Live>) -> Option<Body> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (sender, messages) = mpsc::channel(READY);
        let client = Client { sender, patience: self.patience };
        let (latest, feed) = events.follow();
        let first: String = latest.iter().map(|event| message(event)).collect();
        // A comment comes first, so that a client sees at once that it is connected.
        let first = format!(": events\n\n{first}");
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let told = async {
                match live {
                    None => tell_events(first, feed, &client).await,
                    Some(live) => tell_all(first, feed, live, &client).await,
                }
            };
            tokio::select! {
                _ = told => {}
                () = client.sender.closed() => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        });
        Some(Stream::new(messages, place).boxed())
    }
}

struct Client {
    sender: mpsc::Sender<Bytes>,
    patience: Duration,
}

impl Client {
    /// `None`: it is gone, or takes nothing.
    async fn send(&self, text: String) -> Option<()> {
        self.sender.send_timeout(Bytes::from(text), self.patience).await.ok()
    }
}

/// Sends events until the client is gone. One that reads too slowly misses some and is told how many.
async fn tell_events(
    first: String,
    mut feed: broadcast::Receiver<Arc<Event>>,
    client: &Client,
) -> Option<()> {
    client.send(first).await?;
    loop {
        let next = match timeout(KEEP_ALIVE, feed.recv()).await {
            Ok(next) => next_event(next)?,
            Err(_) => ": still here\n\n".to_owned(),
        };
        client.send(next).await?;
    }
}

/// Likewise, and the status and the traffic of each second; the status also when another node becomes
/// primary.
async fn tell_all(
    first: String,
    mut feed: broadcast::Receiver<Arc<Event>>,
    live: Live,
    client: &Client,
) -> Option<()> {
    let Live { status, mut view, traffic } = live;
    let (samples, mut traffic) = traffic.follow();
    let status = || named("status", &status());
    view.mark_unchanged();
    client.send(status() + &first + &named("traffic", &samples)).await?;
    loop {
        let next = tokio::select! {
            event = feed.recv() => next_event(event)?,
            sample = traffic.recv() => match sample {
                Ok(sample) => status() + &named("traffic", &[sample]),
                // The next one comes in a second.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            },
            changed = view.changed() => {
                changed.ok()?;
                status()
            }
        };
        client.send(next).await?;
    }
}

fn next_event(next: Result<Arc<Event>, RecvError>) -> Option<String> {
    match next {
        Ok(event) => Some(message(&event)),
        Err(RecvError::Lagged(missed)) => {
            Some(format!("event: missed\ndata: {{\"missed\":{missed}}}\n\n"))
        }
        Err(RecvError::Closed) => None,
    }
}

/// The body. It holds the place, which is free again as soon as the connection is gone.
pub(crate) struct Stream {
    messages: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Sends these messages until their sender is dropped.
    pub(crate) fn new(messages: mpsc::Receiver<Bytes>, place: OwnedSemaphorePermit) -> Self {
        Self { messages, _place: place }
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.messages.poll_recv(cx).map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// JSON has no line breaks, so one `data:` line holds it.
fn message(event: &Event) -> String {
    format!("data: {}\n\n", json(event))
}

/// A message that only those hear who listen for that name.
fn named(name: &str, value: &(impl Serialize + ?Sized)) -> String {
    format!("event: {name}\ndata: {}\n\n", json(value))
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
