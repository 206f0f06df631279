//! A request's body as hyper hands it over, which tells its connection whether it was read to its end:
//! only then does the end of what a client sends mean that it waits for its answer, and only then is
//! nothing left that would have to be read before the connection is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::Activity;

/// A body that comes from a client or a peer.
pub(crate) struct ClientBody {
    incoming: Incoming,
    /// `None` where connections have several requests at a time, once it has ended, and if there is none.
    activity: Option<Arc<Activity>>,
}

impl ClientBody {
    pub(crate) fn new(incoming: Incoming, activity: Option<Arc<Activity>>) -> Self {
        let mut body = Self { incoming, activity };
        body.look_for_end();
        body
    }

    fn look_for_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(activity) = self.activity.take() {
            activity.body_came();
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None => self.end(),
            Some(_) => self.look_for_end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.give_up_reading();
        }
    }
}
