//! Events as a `text/event-stream`, for a limited number of clients.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::reply::Body;
use crate::telemetry::events::{Event, Events};

/// The content type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// A comment is sent this often, so that proxies between do not think the stream dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Messages ready for a client that is slow to read.
const READY: usize = 16;

/// Opens streams while there are free places.
pub struct Streams {
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Streams {
    /// At most so many at once; all end when `stopping` turns true.
    pub fn new(at_most: usize, stopping: watch::Receiver<bool>) -> Self {
        Self { places: Arc::new(Semaphore::new(at_most)), stopping }
    }

    /// A stream of the latest events and all that follow; `None` if there is no free place.
    pub fn open(&self, events: &Events) -> Option<Body> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (sender, messages) = mpsc::channel(READY);
        let (latest, feed) = events.follow();
        tokio::spawn(send(latest, feed, sender, self.stopping.clone()));
        Some(Stream::new(messages, place).boxed())
    }
}

/// The body. It holds the place, which is free again as soon as the connection is gone.
pub struct Stream {
    messages: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Sends these messages until their sender is dropped.
    pub fn new(messages: mpsc::Receiver<Bytes>, place: OwnedSemaphorePermit) -> Self {
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

/// Sends until the client is gone or this node stops. A client that reads too slowly misses events
/// and is told how many.
async fn send(
    latest: Vec<Arc<Event>>,
    mut feed: broadcast::Receiver<Arc<Event>>,
    client: mpsc::Sender<Bytes>,
    mut stopping: watch::Receiver<bool>,
) {
    let first: String = latest.iter().map(|event| message(event)).collect();
    // A comment comes first, so that a client sees at once that it is connected.
    if client.send(Bytes::from(format!(": events\n\n{first}"))).await.is_err() {
        return;
    }
    loop {
        let next = tokio::select! {
            event = feed.recv() => match event {
                Ok(event) => message(&event),
                Err(RecvError::Lagged(missed)) => {
                    format!("event: missed\ndata: {{\"missed\":{missed}}}\n\n")
                }
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => ": still here\n\n".to_owned(),
            () = client.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        tokio::select! {
            sent = client.send(Bytes::from(next)) => if sent.is_err() { return },
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

/// JSON has no line breaks, so one `data:` line holds it.
fn message(event: &Event) -> String {
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("data: {json}\n\n")
}
