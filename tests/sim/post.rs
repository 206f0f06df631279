//! How one life of a node sends to others: into a bag that the world empties.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litepilot::cluster::NodeId;
use litepilot::election::rpc::{CallError, Request, Response, Transport};
use litepilot::engine::BoxFuture;
use litepilot::peer::gossip::Report;
use litepilot::txid::Position;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::engine::{Reached, Shipped};

/// A question.
#[derive(Clone)]
pub enum Ask {
    Election(Box<Request>),
    /// Of a replica: what is new? It holds `holds`, and acknowledges it.
    Pull {
        /// The asker's.
        life: u64,
        have: Position,
        holds: Option<Reached>,
    },
}

/// An answer.
#[derive(Clone)]
pub enum Said {
    Election(Box<Response>),
    Shipped(Option<Shipped>),
}

pub type Result = std::result::Result<Said, CallError>;

/// What travels.
#[derive(Clone)]
pub enum Load {
    Ask(u64, Ask),
    Said(u64, Result),
    Gossip(u64, Report),
}

impl Load {
    /// What it is, whoever was faster to send it.
    pub fn key(&self) -> String {
        match self {
            Self::Ask(_, Ask::Election(request)) => format!("ask {request:?}"),
            Self::Ask(_, Ask::Pull { have, holds, .. }) => format!("pull {have:?} {holds:?}"),
            Self::Said(_, Ok(Said::Election(answer))) => format!("said {answer:?}"),
            Self::Said(_, Ok(Said::Shipped(shipped))) => {
                format!("shipped {:?}", shipped.as_ref().map(|shipped| shipped.position))
            }
            Self::Said(_, Err(why)) => format!("said {why:?}"),
            Self::Gossip(sequence, _) => format!("gossip {sequence}"),
        }
    }
}

/// Of one life of a node.
#[derive(Default)]
pub struct Post(Mutex<State>);

#[derive(Default)]
struct State {
    out: Vec<(NodeId, Load)>,
    pending: BTreeMap<u64, oneshot::Sender<Result>>,
    last: u64,
}

impl Post {
    pub fn send(&self, to: NodeId, load: Load) {
        self.0.lock().unwrap().out.push((to, load));
    }

    /// What is to be sent.
    pub fn take(&self) -> Vec<(NodeId, Load)> {
        std::mem::take(&mut self.0.lock().unwrap().out)
    }

    /// An answer has come.
    pub fn answered(&self, id: u64, said: Result) {
        let pending = self.0.lock().unwrap().pending.remove(&id);
        if let Some(pending) = pending {
            drop(pending.send(said));
        }
    }

    pub async fn ask(&self, to: NodeId, ask: Ask, limit: Duration) -> Result {
        let (reply, said) = oneshot::channel();
        let id = {
            let mut state = self.0.lock().unwrap();
            state.last += 1;
            let id = state.last;
            state.pending.insert(id, reply);
            state.out.push((to, Load::Ask(id, ask)));
            id
        };
        let _forget = Forget(self, id);
        match timeout(limit, said).await {
            Ok(Ok(said)) => said,
            Ok(Err(_)) | Err(_) => Err(CallError::Lost("no answer in time".to_owned())),
        }
    }
}

struct Forget<'a>(&'a Post, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().pending.remove(&self.1);
    }
}

/// For the election.
pub struct Wire(pub Arc<Post>);

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'static, std::result::Result<Response, CallError>> {
        let post = self.0.clone();
        Box::pin(async move {
            match post.ask(to, Ask::Election(Box::new(request)), limit).await? {
                Said::Election(answer) => Ok(*answer),
                Said::Shipped(_) => Err(CallError::Lost("it answers another question".to_owned())),
            }
        })
    }
}
