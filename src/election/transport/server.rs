//! The answering end.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use super::IN_FLIGHT;
use super::frame::{self, Answered, Question, Unknown};
use crate::cluster::NodeId;
use crate::election::rpc::{Response, Service};
use crate::peer::Handler;

/// Questions of all nodes that may be under way at once.
const IN_ALL: usize = 512;

/// Answers whoever connects by [`crate::peer::RAFT`].
pub(crate) fn handler(service: Arc<dyn Service>) -> Handler {
    let places = Arc::new(Semaphore::new(IN_ALL));
    Arc::new(move |incoming| {
        let server =
            RequestServer { node: incoming.node, service: service.clone(), places: places.clone() };
        tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(incoming.stream);
            let (answers, answered) = mpsc::channel(IN_FLIGHT);
            let ended = tokio::select! {
                biased;
                ended = server.hear(BufReader::new(reader), answers) => ended,
                ended = speak(writer, answered) => ended,
            };
            if let Err(error) = ended {
                debug!(peer = %server.node, %error, "a connection of the election has ended");
            }
        });
    })
}

struct RequestServer {
    node: NodeId,
    service: Arc<dyn Service>,
    places: Arc<Semaphore>,
}

impl RequestServer {
    async fn hear(
        &self,
        mut reader: impl AsyncRead + Unpin,
        answers: mpsc::Sender<Vec<u8>>,
    ) -> io::Result<()> {
        let own = Arc::new(Semaphore::new(IN_FLIGHT));
        loop {
            let json = frame::read(&mut reader).await?;
            let Question { id, ask } = match frame::decode(&json) {
                Ok(question) => question,
                Err(_) => {
                    // Of another version, which knows what to do then; or no question at all.
                    let Unknown { id } = frame::decode(&json)?;
                    send(&answers, id, refused("that is not understood here".to_owned())).await;
                    continue;
                }
            };
            let places = (own.clone().acquire_owned(), self.places.clone().acquire_owned());
            let places = (places.0.await, places.1.await);
            let answer = self.service.answer(self.node.clone(), ask);
            let answers = answers.clone();
            // What is asked is done even if the connection breaks meanwhile: not half of it.
            tokio::spawn(async move {
                send(&answers, id, answer.await).await;
                drop(places);
            });
        }
    }
}

async fn send(answers: &mpsc::Sender<Vec<u8>>, id: u64, answer: Response) {
    let frame = frame::encode(&Answered { id, answer });
    let too_long =
        |error: io::Error| frame::encode(&Answered { id, answer: refused(error.to_string()) });
    if let Ok(frame) = frame.or_else(too_long) {
        // The connection may be gone, and with it whoever asked.
        let _ = answers.send(frame).await;
    }
}

async fn speak(
    mut writer: impl AsyncWrite + Unpin,
    mut answered: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(frame) = answered.recv().await {
        frame::write(&mut writer, &frame).await?;
    }
    Ok(())
}

fn refused(why: String) -> Response {
    Response::Refused(why)
}
