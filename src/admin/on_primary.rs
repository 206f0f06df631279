//! `POST /on-primary[?once=KEY]`: says whether this is the node on which something is to be done, and
//! keeps others from doing it at the same time.
//!
//! The answer is a stream of [`Notice`]s, one JSON value on each line; empty lines only show that this
//! node lives. After [`Notice::Granted`] the client has its turn for as long as the connection is open.
//! It ends the body of its request with `done` or `failed`, whole, and gets one more notice.
//!
//! Turns are of this node. They are cluster-wide all the same: only the primary gives them, and at most
//! one node is that. A turn of an epoch that has ended counts for nothing, but nobody else on this node
//! gets one before its holder has ended.

use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::sleep;

use super::reply::{Failure, Reply, with_body};
use super::stream::Stream;
use crate::cluster::{ClusterView, Epoch, NodeId};
use crate::control::{Control, OnceKey};
use crate::telemetry::events::Events;

/// Commands that run or wait at once; the next is refused.
const PLACES: usize = 32;
/// Bytes of a request's body.
const MAX_OUTCOME: usize = 16;
/// An empty line is sent this often, so that a client that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Notices ready for a client that is slow to read.
const READY: usize = 4;
/// The kind of these events.
const KIND: &str = "on-primary";

/// The outcome that is to be remembered.
pub(crate) const DONE: &str = "done";
/// The outcome that is not.
pub(crate) const FAILED: &str = "failed";

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Notice {
    /// There is no primary yet, or none that takes writes.
    NoPrimary,
    /// It is for this node to do, after others.
    Queued,
    /// It is for this node to do, now.
    Granted {
        /// The epoch in which.
        epoch: Epoch,
    },
    /// It is for another node to do. The last notice.
    Elsewhere { node: NodeId },
    /// It was done before, under this key. The last notice.
    AlreadyDone,
    /// This node is not the primary of that epoch any more: what is done is not remembered. The last
    /// notice.
    Over,
    /// The outcome is noted. The last notice.
    Finished,
    /// Whether it was done could not be looked up or noted. The last notice.
    Failed {
        /// Why, and what to do.
        detail: String,
    },
}

#[derive(Clone)]
pub(crate) struct OnPrimary {
    view: watch::Receiver<ClusterView>,
    control: Arc<dyn Control>,
    events: Arc<Events>,
    places: Arc<Semaphore>,
    /// Held by whoever has the turn. Fair: first come, first served.
    turn: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Where something is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(Epoch),
    Elsewhere(NodeId),
    Nowhere,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
enum CommandOutcome {
    Done,
    Failed,
    /// The client went away, or said something else.
    Lost,
}

impl OnPrimary {
    /// Where `view` says; until `stopping`.
    pub(crate) fn new(
        view: watch::Receiver<ClusterView>,
        control: Arc<dyn Control>,
        events: Arc<Events>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(PLACES));
        Self { view, control, events, places, turn: Arc::new(Semaphore::new(1)), stopping }
    }

    /// Answers with a stream of notices.
    ///
    /// # Errors
    ///
    /// When the query is not understood, or too many wait.
    pub(crate) fn open<B>(&self, query: Option<&str>, body: B) -> Result<Reply, Failure>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let key = once(query.unwrap_or_default())?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let detail = format!("{PLACES} commands wait for their turn on this node already");
            return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-waiting", detail));
        };
        let (sender, messages) = mpsc::channel(READY);
        tokio::spawn(self.clone().serve(key, Client(sender), body));
        let body = Stream::new(messages, place).boxed();
        Ok(with_body(StatusCode::OK, "application/x-ndjson", body))
    }

    async fn serve<B>(mut self, key: Option<OnceKey>, client: Client, body: B)
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let mut stopping = self.stopping.clone();
        let outcome = pin!(read_outcome(body));
        tokio::select! {
            biased;
            // First, so that the end of one conversation does not give its turn to the next.
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = client.0.closed() => {}
            () = self.conduct(key, &client, outcome) => {}
            () = client.keep_alive() => {}
        }
    }

    /// From the question to the last notice.
    async fn conduct(
        &mut self,
        key: Option<OnceKey>,
        client: &Client,
        mut outcome: Pin<&mut impl Future<Output = CommandOutcome>>,
    ) {
        let granted = tokio::select! {
            granted = self.grant(key.as_ref(), client) => granted,
            // Nobody has an outcome before its turn: the client is gone.
            _ = outcome.as_mut() => return,
        };
        let Some((epoch, _turn)) = granted else { return };
        let what =
            key.as_ref().map_or("a command".to_owned(), |key| format!("a command for {key}"));
        self.events.record(KIND, format!("{what} has its turn in epoch {epoch}"));
        let ended = tokio::select! {
            ended = outcome.as_mut() => ended,
            () = self.epoch_ends(epoch) => {
                client.say(&Notice::Over).await;
                // It may still run, and so keeps the turn.
                outcome.as_mut().await;
                let text = format!("{what} ended after epoch {epoch}, in which it began");
                return self.events.record(KIND, text);
            }
        };
        let (text, notice) = match ended {
            CommandOutcome::Lost => ("lost: whoever ran it went away", None),
            CommandOutcome::Failed => ("failed", Some(Notice::Finished)),
            CommandOutcome::Done => ("done", Some(self.conclude(key, epoch).await)),
        };
        self.events.record(KIND, format!("{what}: {text}"));
        if let Some(notice) = notice {
            client.say(&notice).await;
        }
    }

    /// Waits until it is clear that this node is to do it, and for the turn; `None` if it is not to do
    /// it, which the client then knows.
    async fn grant(
        &mut self,
        key: Option<&OnceKey>,
        client: &Client,
    ) -> Option<(Epoch, OwnedSemaphorePermit)> {
        loop {
            let epoch = match self.place() {
                Place::Here(epoch) => epoch,
                Place::Elsewhere(node) => {
                    client.say(&Notice::Elsewhere { node }).await;
                    return None;
                }
                Place::Nowhere => {
                    client.say(&Notice::NoPrimary).await;
                    self.view_is(|view| place(view) != Place::Nowhere).await;
                    continue;
                }
            };
            let Some(turn) = self.turn_in(epoch, client).await else { continue };
            // It may have been long until the turn came.
            if self.place() != Place::Here(epoch) {
                continue;
            }
            let notice = self.verdict(key, epoch).await;
            client.say(&notice).await;
            return matches!(notice, Notice::Granted { .. }).then_some((epoch, turn));
        }
    }

    /// The turn; `None` if the epoch ends before it comes.
    async fn turn_in(&mut self, epoch: Epoch, client: &Client) -> Option<OwnedSemaphorePermit> {
        let turns = self.turn.clone();
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            return Some(turn);
        }
        client.say(&Notice::Queued).await;
        tokio::select! {
            turn = turns.acquire_owned() => turn.ok(),
            () = self.epoch_ends(epoch) => None,
        }
    }

    /// What is said to whoever has the turn.
    async fn verdict(&self, key: Option<&OnceKey>, epoch: Epoch) -> Notice {
        let was_done = match key {
            Some(key) => self.control.was_done(key.clone()).await,
            None => Ok(false),
        };
        match was_done {
            Ok(false) => Notice::Granted { epoch },
            Ok(true) => Notice::AlreadyDone,
            Err(why) => Notice::Failed { detail: why.to_string() },
        }
    }

    /// What becomes of a command that succeeded.
    async fn conclude(&mut self, key: Option<OnceKey>, epoch: Epoch) -> Notice {
        if self.place() != Place::Here(epoch) {
            return Notice::Over;
        }
        let Some(key) = key else { return Notice::Finished };
        match self.control.remember(key, epoch).await {
            Ok(()) => Notice::Finished,
            Err(why) => Notice::Failed { detail: why.to_string() },
        }
    }

    fn place(&mut self) -> Place {
        place(&self.view.borrow_and_update())
    }

    /// Ready once this node is not the primary of `epoch` any more, as far as the view says. A claim may
    /// lapse a moment earlier: whoever has to be sure asks for the [`place`].
    async fn epoch_ends(&mut self, epoch: Epoch) {
        self.view_is(|view| own_epoch(view) != Some(epoch) || !view.writable).await;
    }

    async fn view_is(&mut self, so: impl FnMut(&ClusterView) -> bool) {
        if self.view.wait_for(so).await.is_err() {
            // Nobody changes it any more: this node stops, which ends the conversation.
            std::future::pending().await
        }
    }
}

/// The epoch of which this node is the primary.
fn own_epoch(view: &ClusterView) -> Option<Epoch> {
    view.primary.as_ref().filter(|primary| primary.node == view.node).map(|primary| primary.epoch)
}

fn place(view: &ClusterView) -> Place {
    match (&view.primary, own_epoch(view)) {
        (Some(primary), None) => Place::Elsewhere(primary.node.clone()),
        (_, Some(epoch)) if view.takes_writes() => Place::Here(epoch),
        _ => Place::Nowhere,
    }
}

/// A key needs no encoding in a URL, so there is none to undo.
fn once(query: &str) -> Result<Option<OnceKey>, Failure> {
    match query.strip_prefix("once=") {
        Some(key) => key.parse().map(Some).map_err(|why: &str| Failure::bad_request(why)),
        None if query.is_empty() => Ok(None),
        None => Err(Failure::bad_request(format!("{query:?} is not understood: write ?once=KEY"))),
    }
}

async fn read_outcome<B>(body: B) -> CommandOutcome
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match Limited::new(body, MAX_OUTCOME).collect().await.map(|whole| whole.to_bytes()) {
        Ok(text) if text == DONE => CommandOutcome::Done,
        Ok(text) if text == FAILED => CommandOutcome::Failed,
        _ => CommandOutcome::Lost,
    }
}

/// Where the notices go.
struct Client(mpsc::Sender<Bytes>);

impl Client {
    /// A client that is gone is noticed elsewhere.
    async fn say(&self, notice: &Notice) {
        let json = serde_json::to_string(notice).unwrap_or_default();
        let _ = self.0.send(Bytes::from(json + "\n")).await;
    }

    /// Ready when the client is gone.
    async fn keep_alive(&self) {
        while self.0.send(Bytes::from_static(b"\n")).await.is_ok() {
            sleep(KEEP_ALIVE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;

    #[test]
    fn only_a_primary_that_takes_writes_has_something_to_do() {
        let here = ClusterView::single("a".parse().unwrap(), Epoch(3));
        assert_eq!(place(&here), Place::Here(Epoch(3)));
        let waiting = ClusterView { writable: false, ..here.clone() };
        assert_eq!(place(&waiting), Place::Nowhere);
        let lapsed = ClusterView { claim: Claim::none(), ..here.clone() };
        assert_eq!(place(&lapsed), Place::Nowhere);
        let vacant = ClusterView { primary: None, ..here.clone() };
        assert_eq!(place(&vacant), Place::Nowhere);
        let replica = ClusterView { node: "b".parse().unwrap(), writable: false, ..here };
        assert_eq!(place(&replica), Place::Elsewhere("a".parse().unwrap()));
    }

    #[test]
    fn a_query_holds_one_key_or_nothing() {
        assert_eq!(once("").unwrap(), None);
        assert_eq!(once("once=v1").unwrap().unwrap().as_str(), "v1");
        for bad in ["once=", "once", "once=a&once=b", "once=a%20b", "one=a"] {
            assert_eq!(once(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn notices_are_lines_that_others_can_read() {
        let json = |notice: &Notice| serde_json::to_string(notice).unwrap();
        assert_eq!(json(&Notice::NoPrimary), r#"{"state":"no-primary"}"#);
        assert_eq!(json(&Notice::Granted { epoch: Epoch(3) }), r#"{"state":"granted","epoch":3}"#);
    }
}
