//! `POST /on-primary/forward`: has a command run on the primary's machine, and passes on what is said of
//! it, one [`Said`](crate::control::command::Said) on each line.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::reply::{Failure, Reply, with_body};
use super::stream::Stream;
use crate::control::Control;
use crate::control::command::ForwardedCommand;
use crate::engine::replication;

/// Commands that run at once; the next is refused.
const PLACES: usize = 8;
/// Pieces ready for a client that is slow to read.
const READY: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 16 * 1024;

pub(crate) struct Forwarding {
    control: Arc<dyn Control>,
    places: Arc<Semaphore>,
}

impl Forwarding {
    pub(crate) fn new(control: Arc<dyn Control>) -> Self {
        Self { control, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// # Errors
    ///
    /// When it is not understood, too many run, or the primary cannot be asked.
    pub(crate) async fn open(&self, body: &[u8]) -> Result<Reply, Failure> {
        let command: ForwardedCommand = serde_json::from_slice(body).map_err(|why| {
            Failure::bad_request(format!(r#"{why}: write {{"command": ["PROGRAM", "ARGUMENT"]}}"#))
        })?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let detail = format!("{PLACES} commands run elsewhere for this node already");
            return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-waiting", detail));
        };
        let said = self.control.forward(command).await?;
        Ok(with_body(StatusCode::OK, "application/x-ndjson", relay(said, place)))
    }
}

fn relay(mut said: replication::Stream, place: OwnedSemaphorePermit) -> super::reply::Body {
    let (sender, messages) = mpsc::channel(READY);
    tokio::spawn(async move {
        let pass = async {
            loop {
                let mut piece = BytesMut::with_capacity(PIECE);
                match said.read_buf(&mut piece).await {
                    Ok(1..) if sender.send(Bytes::from(piece)).await.is_ok() => {}
                    _ => return,
                }
            }
        };
        // A client that goes away ends the command: the connection to the primary ends with this.
        tokio::select! {
            () = pass => {}
            () = sender.closed() => {}
        }
    });
    Stream::new(messages, place).boxed()
}
