//! Talking to a node about whose turn it is: the other end of [`super::on_primary`].

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::{AskError, Node};
use super::on_primary::Notice;
use crate::control::OnceKey;

/// A node that lives sends something each five seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes of one line.
const MAX_LINE: usize = 64 * 1024;

/// The node's notices, and our outcome.
pub(crate) struct Conversation {
    notices: Incoming,
    /// Of what came: not taken yet.
    rest: BytesMut,
    outcome: Option<oneshot::Sender<&'static str>>,
    socket: OwnedFd,
}

impl Conversation {
    /// Asks for a turn.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers with an error.
    pub(crate) async fn begin(node: &Node, key: Option<&OnceKey>) -> Result<Self, AskError> {
        let target = match key {
            Some(key) => format!("/on-primary?once={key}"),
            None => "/on-primary".to_owned(),
        };
        let (outcome, said) = oneshot::channel();
        let (answer, socket) = node.converse(&target, OutcomeBody(Some(said))).await?;
        let (notices, outcome) = (answer.into_body(), Some(outcome));
        Ok(Self { notices, rest: BytesMut::new(), outcome, socket })
    }

    /// The next notice. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// When the node is gone, or says something else.
    pub(crate) async fn next(&mut self) -> Result<Notice, AskError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                if line.len() > 1 {
                    return serde_json::from_slice(&line).map_err(|error| {
                        let what = "the node says something that this version does not know";
                        lost(format!("{what}: {error}"))
                    });
                }
                continue;
            }
            if self.rest.len() > MAX_LINE {
                return Err(lost("the node says more than it should"));
            }
            match timeout(SILENCE, self.notices.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                Ok(Some(Err(error))) => return Err(lost(format!("the node is gone: {error}"))),
                Ok(None) => return Err(lost("the node has ended the conversation")),
                Err(_) => return Err(lost(format!("the node said nothing for {SILENCE:?}"))),
            }
        }
    }

    /// Says how the command ended.
    pub(crate) fn conclude(&mut self, outcome: &'static str) {
        if let Some(said) = self.outcome.take() {
            // A node that is gone is noticed when its answer does not come.
            let _ = said.send(outcome);
        }
    }

    /// The connection, for a child to inherit: the turn then lasts for as long as that child runs, even
    /// if we are killed (as `flock(1)` does with its file).
    ///
    /// # Errors
    ///
    /// When there are too many files.
    pub(crate) fn inheritable(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::dup(&self.socket)?)
    }
}

fn lost(message: impl Into<String>) -> AskError {
    AskError::passing(message.into())
}

/// The request's body: nothing until there is an outcome. If none comes it breaks off.
struct OutcomeBody(Option<oneshot::Receiver<&'static str>>);

impl Body for OutcomeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(said) = &mut self.0 else { return Poll::Ready(None) };
        let outcome = std::task::ready!(Pin::new(said).poll(cx));
        self.0 = None;
        let outcome = outcome.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        Poll::Ready(Some(outcome.map(|text| Frame::data(Bytes::from_static(text.as_bytes())))))
    }
}
