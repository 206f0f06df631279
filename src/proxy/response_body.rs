//! A response's body on its way to the client, with the same back-pressure as a request's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::inside;
use super::piece_timer::PieceTimer;
use super::upstream;

/// A response's body on its way to the client. Whatever is attached to it lives until the body has
/// been passed on or the client has gone.
pub(crate) struct ResponseBody<A> {
    content: Content,
    attached: Option<A>,
}

enum Content {
    Whole(Option<Bytes>),
    App {
        body: upstream::Body,
        timer: PieceTimer,
    },
    /// It broke off, and why.
    Broken(Option<io::Error>),
}

impl<A> ResponseBody<A> {
    /// A body of ours.
    pub(crate) fn whole(data: Bytes, attached: A) -> Self {
        Self { content: Content::Whole(Some(data)), attached: Some(attached) }
    }

    pub(crate) fn app(body: upstream::Body, limit: Duration, attached: A) -> Self {
        let content = Content::App { body, timer: PieceTimer::new(limit) };
        let mut answer = Self { content, attached: Some(attached) };
        if answer.content.is_at_end() {
            answer.attached = None;
        }
        answer
    }
}

impl Content {
    fn is_at_end(&self) -> bool {
        match self {
            Self::Whole(data) => data.as_ref().is_none_or(Bytes::is_empty),
            Self::App { body, .. } => body.is_end_stream(),
            Self::Broken(why) => why.is_none(),
        }
    }
}

impl<A: Unpin> Body for ResponseBody<A> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = match &mut self.content {
            Content::Whole(data) => {
                data.take().filter(|d| !d.is_empty()).map(|d| Ok(Frame::data(d)))
            }
            Content::App { body, timer } => {
                let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                    ready!(timer.poll_expired(cx));
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                };
                timer.arrived();
                if let Some(Err(why)) = frame {
                    if why.kind() == io::ErrorKind::InvalidData {
                        inside::no_answer(&why);
                    }
                    // hyper drops a connection whose body fails, with whatever it has not flushed:
                    // a client that never sees the head may take the request for one not sent, and
                    // send it again. Polled anew, it has flushed.
                    self.content = Content::Broken(Some(io::Error::other(why)));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                frame.map(|f| f.map_err(io::Error::other))
            }
            Content::Broken(why) => why.take().map(Err),
        };
        let failed = frame.as_ref().is_some_and(Result::is_err);
        if !failed && (frame.is_none() || self.content.is_at_end()) {
            self.attached = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(data) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64))
            }
            Content::App { body, .. } => body.size_hint(),
            Content::Broken(_) => SizeHint::new(),
        }
    }
}
