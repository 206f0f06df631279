//! The other end of [`super::stream`]: what a node tells for as long as somebody listens.

use std::time::Duration;

use anyhow::{Error, anyhow, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// Bytes of one message.
const LONGEST: usize = 4 * 1024 * 1024;
/// A node sends something at least each 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// A `text/event-stream` as it comes.
pub(crate) struct Feed {
    body: Incoming,
    rest: Vec<u8>,
}

/// One message of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its name; empty if it has none.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Feed {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, rest: Vec::new() }
    }

    /// The next message; comments are left out. `None` when the node has ended it.
    ///
    /// # Errors
    ///
    /// When the node is gone, or falls silent.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some(message) = take(&mut self.rest) {
                return Ok(Some(message));
            }
            if self.rest.len() > LONGEST {
                bail!("the node sends a message without an end");
            }
            let frame = timeout(SILENCE, self.body.frame())
                .await
                .map_err(|_| anyhow!("the node has said nothing for {SILENCE:?}"))?;
            match frame {
                None => return Ok(None),
                Some(Err(why)) => return Err(Error::new(why).context("the node has gone")),
                Some(Ok(frame)) => self.rest.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}

/// Takes the first whole message that has data.
fn take(rest: &mut Vec<u8>) -> Option<Message> {
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
        let text: Vec<u8> = rest.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&text);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        if let Some(data) = field("data: ") {
            let name = field("event: ").unwrap_or_default().to_owned();
            return Some(Message { name, data: data.to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_comments_left_out() {
        let mut rest =
            b": events\n\ndata: {\"a\":1}\n\nevent: status\ndata: {}\n\ndata: half".to_vec();
        let mut next = || take(&mut rest).map(|m| (m.name, m.data));
        assert_eq!(next(), Some((String::new(), "{\"a\":1}".to_owned())));
        assert_eq!(next(), Some(("status".to_owned(), "{}".to_owned())));
        assert_eq!(next(), None);
        rest.extend(b"\n\n");
        assert_eq!(take(&mut rest).unwrap().data, "half");
    }
}
