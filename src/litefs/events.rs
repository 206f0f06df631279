//! LiteFS' `GET /events`: who is primary, and each transaction once it is applied.
//!
//! A reader that falls 1,024 events behind is cut off, and what happens while nobody listens is not
//! told later. So whoever listens is told of each new beginning and then reads the position itself: the
//! stream was subscribed to before that, hence nothing is missed.
//!
//! An event arrives shortly after the commit: it is a lower bound for reads on this node, never the
//! position of a write just made.

use std::io;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::timeout;

use super::api::Api;
use crate::lines::Lines;
use crate::txid::{Checksum, Txid};

/// For the connection and the first line.
const BEGIN: Duration = Duration::from_secs(2);
/// Between two tries to connect: doubled each time, up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// Bytes; LiteFS' lines have less than 300.
const MAX_LINE: usize = 64 * 1024;

/// Something that happened in LiteFS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Event {
    /// The stream begins; so it is now.
    Init { data: Role },
    /// It has become primary, or follows somebody, or nobody.
    PrimaryChange { data: Role },
    /// A transaction was committed here, or a primary's applied.
    Tx { db: String, data: Applied },
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Role {
    /// It is the primary.
    pub(crate) is_primary: bool,
    /// The node that it follows.
    #[serde(default)]
    pub(crate) hostname: Option<String>,
}

/// What a database holds after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Applied {
    #[serde(rename = "txID")]
    pub(crate) txid: Txid,
    /// Of the whole database.
    pub(crate) post_apply_checksum: Checksum,
}

pub(crate) trait Listener {
    /// The next event. [`Event::Init`] comes first, and again after each break: what happened in
    /// between has to be found out otherwise.
    fn event(&self, event: Event);

    /// There is no stream any more: LiteFS has ended, or never began.
    fn silence(&self);
}

pub(crate) async fn follow(api: Api, listener: &impl Listener) {
    let mut pause = PAUSE;
    loop {
        if let Err(error) = listen(api, listener, &mut pause).await {
            tracing::trace!(%error, "no events from LiteFS");
        }
        listener.silence();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Listens until the stream ends; once it has begun, a next one is tried for soon.
async fn listen(api: Api, listener: &impl Listener, pause: &mut Duration) -> io::Result<()> {
    let (status, mut body, _connection) =
        timeout(BEGIN, api.open(Method::GET, "/events")).await??;
    if status != StatusCode::OK {
        return Err(io::Error::other(format!("answered {status}")));
    }
    *pause = PAUSE;
    let mut lines = Lines::of_at_most(MAX_LINE);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        let Ok(data) = frame.into_data() else { continue };
        lines.push(&data)?;
        while let Some(line) = lines.take() {
            if !line.is_empty() {
                listener.event(serde_json::from_slice(&line)?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<Event> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_a_real_one_says_is_understood() {
        let primary = events(include_str!("../../tests/litefs-contract/events-node1.ndjson"));
        let role = |is_primary, hostname: Option<&str>| Role {
            is_primary,
            hostname: hostname.map(str::to_owned),
        };
        assert_eq!(primary[0], Event::Init { data: role(true, None) });
        let data = Applied { txid: Txid(3), post_apply_checksum: Checksum(0xa7dd_8f28_ea1b_904d) };
        assert_eq!(primary[3], Event::Tx { db: "app.db".to_owned(), data });
        assert_eq!(primary[11], Event::PrimaryChange { data: role(false, Some("node2")) });
        let replica = events(include_str!("../../tests/litefs-contract/events-node2.ndjson"));
        assert_eq!(replica[0], Event::Init { data: role(false, Some("node1")) });
        assert_eq!(events("{\"type\":\"new\",\"data\":{\"x\":1}}"), [Event::Other]);
    }
}
