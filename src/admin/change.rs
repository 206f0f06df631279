//! What operators change: who is primary, and who is a member.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::reply::Failure;
use crate::cluster::NodeId;
use crate::control::{Control, ControlError, MemberChange, MemberStatus, Promoted};
use crate::telemetry::events::Events;

/// The kind of these events.
const KIND: &str = "control";

/// What `GET /members` and `POST /members` answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// Every member, sorted by name.
    pub(crate) members: Vec<MemberStatus>,
}

/// Has changes made, one at a time.
pub(crate) struct Changes {
    control: Arc<dyn Control>,
    events: Arc<Events>,
    place: Arc<Semaphore>,
    limit: Duration,
}

impl Changes {
    /// Made by `control`, each within `limit`, and recorded.
    pub(crate) fn new(control: Arc<dyn Control>, events: Arc<Events>, limit: Duration) -> Self {
        Self { control, events, place: Arc::new(Semaphore::new(1)), limit }
    }

    /// `GET /members`
    ///
    /// # Errors
    ///
    /// When this node is not one of them.
    pub(crate) fn members(&self) -> Result<Members, Failure> {
        Ok(Members { members: self.control.members()? })
    }

    /// `POST /promote`
    ///
    /// # Errors
    ///
    /// Why the node is not the primary now.
    pub(crate) async fn promote(&self, query: Option<&str>) -> Result<Promoted, Failure> {
        let Promotion { node, force } = promotion(query.unwrap_or_default())?;
        let name = node.as_ref().map_or("this node", NodeId::as_str);
        let what = format!("promote {name}{}", if force { ", by force" } else { "" });
        let control = self.control.clone();
        self.make(what, async move { control.promote(node, force).await }).await
    }

    /// `POST /members`: the members then.
    ///
    /// # Errors
    ///
    /// Why the membership was not changed.
    pub(crate) async fn change_members(&self, body: &[u8]) -> Result<Members, Failure> {
        let change = member_change(body)?;
        let what = match &change {
            MemberChange::Add { node, address } => format!("add member {node} at {address}"),
            MemberChange::Remove { node } => format!("remove member {node}"),
            MemberChange::Replace { node, .. } => format!("replace member {node}"),
        };
        let control = self.control.clone();
        self.make(what, async move { control.change_members(change).await }).await?;
        self.members()
    }

    /// `POST /litefs-id/reset`: the members, which stay what they are.
    ///
    /// # Errors
    ///
    /// Why the ID was not reset.
    pub(crate) async fn reset_litefs_id(&self) -> Result<Members, Failure> {
        let control = self.control.clone();
        let what = "reset LiteFS' cluster ID".to_owned();
        self.make(what, async move { control.reset_litefs_id().await }).await?;
        self.members()
    }

    /// Makes a change to its end, even if its client goes away.
    async fn make<T: Send + 'static>(
        &self,
        what: String,
        change: impl Future<Output = Result<T, ControlError>> + Send + 'static,
    ) -> Result<T, Failure> {
        let Ok(place) = self.place.clone().try_acquire_owned() else {
            let detail = "this node makes another change: wait until that is done";
            return Err(Failure::new(StatusCode::CONFLICT, "busy", detail));
        };
        let events = self.events.clone();
        events.record(KIND, format!("an operator asks: {what}"));
        let task = tokio::spawn(async move {
            let made = change.await;
            match &made {
                Ok(_) => events.record(KIND, format!("{what}: done")),
                Err(why) => events.record(KIND, format!("{what}: {why}")),
            }
            drop(place);
            made
        });
        match timeout(self.limit, task).await {
            Ok(Ok(made)) => Ok(made?),
            Ok(Err(gone)) => Err(ControlError::Failed(gone.to_string()).into()),
            Err(_) => Err(ControlError::NotInTime.into()),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Promotion {
    node: Option<NodeId>,
    force: bool,
}

/// Names of nodes need no encoding in a URL, so there is none to undo.
fn promotion(query: &str) -> Result<Promotion, Failure> {
    let mut promotion = Promotion::default();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("node", name)) if promotion.node.is_none() => {
                let name: NodeId = name.parse().map_err(|why: crate::cluster::BadNodeId| {
                    Failure::bad_request(why.to_string())
                })?;
                promotion.node = Some(name);
            }
            Some(("force", "true")) => promotion.force = true,
            Some(("force", "false")) => promotion.force = false,
            _ => {
                let detail = format!("{part:?} is not understood: write ?node=NODE, &force=true");
                return Err(Failure::bad_request(detail));
            }
        }
    }
    Ok(promotion)
}

fn member_change(body: &[u8]) -> Result<MemberChange, Failure> {
    serde_json::from_slice(body).map_err(|why| {
        let detail = format!(
            r#"{why}: write {{"add": {{"node": "NODE", "address": "HOST:PORT"}}}}, {{"remove": {{"node": "NODE"}}}} or {{"replace": {{"node": "NODE", "generation": 0}}}}"#
        );
        Failure::bad_request(detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_names_a_node_or_means_this_one() {
        let node = |name: &str| Some(name.parse().unwrap());
        for (query, expected) in [
            ("", Promotion::default()),
            ("node=n-2", Promotion { node: node("n-2"), force: false }),
            ("force=true&node=n2", Promotion { node: node("n2"), force: true }),
            ("force=false", Promotion::default()),
        ] {
            assert_eq!(promotion(query), Ok(expected), "{query}");
        }
        for bad in ["node=", "node=a%20b", "node", "force=1", "force", "nod=a", "node=a&node=b"] {
            let failure = promotion(bad).unwrap_err();
            assert_eq!(failure.status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn a_change_is_whole_or_refused_with_the_form() {
        let change =
            member_change(br#"{"add": {"node": "n4", "address": "[fd00::4]:4321"}}"#).unwrap();
        let MemberChange::Add { node, address } = change else { panic!("{change:?}") };
        assert_eq!((node.as_str(), address.to_string().as_str()), ("n4", "[fd00::4]:4321"));
        assert!(member_change(br#"{"remove": {"node": "n4"}}"#).is_ok());
        assert!(member_change(br#"{"replace": {"node": "n4"}}"#).is_ok());
        for bad in [
            "",
            "{}",
            "add n4",
            r#"{"add": {"node": "n4"}}"#,
            r#"{"add": {"node": "n 4", "address": "a:1"}}"#,
            r#"{"add": {"node": "n4", "address": "a"}}"#,
            r#"{"add": {"node": "n4", "address": "a:0"}}"#,
            r#"{"remove": {"node": "n4", "force": true}}"#,
            r#"{"remove": {"node": "n4"}, "replace": {"node": "n4"}}"#,
            r#"{"remove": {"node": "n4"}} x"#,
        ] {
            let failure = member_change(bad.as_bytes()).unwrap_err();
            assert!(failure.detail.contains(r#"{"remove": {"node""#), "{bad}: {failure:?}");
        }
    }
}
