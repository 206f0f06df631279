//! The decision as a table: what is asked, how far it has come, where this node stands, and where the
//! request goes.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Decision::{Local, LocalAfterPosition, LocalAfterRenewal, ToPrimary, WaitForPrimary};
use super::*;
use crate::claim::{BootTime, Claim};
use crate::cluster::{EpochStart, NodeId, Primary, Role};
use crate::config::Consistency::{Eventual, Monotonic, ReadYourWrites, Strong};
use crate::proxy::replay::ReplayRequest;
use crate::rules::Class::{Passthrough, Read, Write};
use crate::txid::Position;

const HERE: EpochTxid = EpochTxid { epoch: Epoch(3), txid: Txid(100) };

/// What is asked: class, consistency, and what the client last saw.
type Asked = (Class, Consistency, Option<Token>);

/// A node where the application answers; `takes_writes` as the view says.
struct Node {
    view: ClusterView,
    takes_writes: bool,
    position: EpochTxid,
    app_is_up: bool,
    lags: bool,
}

fn at(epoch: u64, txid: u64) -> EpochTxid {
    EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
}

fn name(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn node(view: ClusterView) -> Node {
    Node { takes_writes: view.takes_writes(), view, position: HERE, app_is_up: true, lags: false }
}

/// A primary of epoch 3 that nobody elected.
fn primary() -> Node {
    node(ClusterView::single(name("me"), Epoch(3)))
}

/// A primary of epoch 3 whose claim is renewed.
fn elected() -> Node {
    let claim = Claim::until(BootTime(u64::MAX - 1));
    node(ClusterView { claim, ..primary().view })
}

/// A primary of epoch 3 whose claim has lapsed.
fn lapsed() -> Node {
    Node { takes_writes: false, ..primary() }
}

/// A replica that was told who is the primary of epoch 3, and does not know what that began without.
fn told(primary: Option<&str>) -> Node {
    let primary = primary.map(|primary| Primary {
        node: name(primary),
        epoch: Epoch(3),
        since: SystemTime::UNIX_EPOCH,
    });
    node(ClusterView {
        role: Role::Replica,
        primary,
        writable: false,
        claim: Claim::none(),
        elected: true,
        ..ClusterView::single(name("me"), Epoch(3))
    })
}

/// A replica that knows where epoch 3 began.
fn replica(primary: Option<&str>) -> Node {
    let starts = [EpochStart { epoch: Epoch(3), held: Position::default() }].into();
    let Node { view, .. } = told(primary);
    node(ClusterView { starts, ..view })
}

fn down(of: Node) -> Node {
    Node { app_is_up: false, ..of }
}

fn lagging(of: Node) -> Node {
    Node { lags: true, ..of }
}

fn behind(of: Node, position: EpochTxid) -> Node {
    Node { position, ..of }
}

fn fresh() -> Progress {
    Progress::default()
}

fn exhausted() -> Progress {
    Progress { local_exhausted: true, ..Progress::default() }
}

fn confirmed() -> Progress {
    Progress { claim_confirmed: true, ..Progress::default() }
}

fn replayed() -> Progress {
    let mut asks = http::HeaderMap::new();
    asks.insert("litepilot-replay", http::HeaderValue::from_static("primary"));
    Progress { replay: ReplayRequest::take(&mut asks), ..Progress::default() }
}

fn situation(node: &Node) -> Situation<'_> {
    let Node { view, takes_writes, position, app_is_up, lags } = node;
    let (takes_writes, position, app_is_up, lags) = (*takes_writes, *position, *app_is_up, *lags);
    Situation { view, takes_writes, position, app_is_up, lags }
}

#[track_caller]
fn goes((class, consistency, token): Asked, progress: &Progress, node: &Node, to: Decision) {
    let facts = RequestFacts::plain(class, consistency, token, Instant::now());
    assert_eq!(decide(&facts, progress, &situation(node)), to);
}

#[test]
fn a_primary_serves_everything_itself_and_never_waits() {
    for class in [Passthrough, Read, Write] {
        for consistency in [Eventual, ReadYourWrites, Strong] {
            goes((class, consistency, Some(at(9, 9))), &fresh(), &primary(), Local);
        }
    }
}

#[test]
fn with_one_application_for_all_nodes_everything_goes_to_the_primary() {
    let goes = |class, node: &Node| {
        let facts = RequestFacts {
            primary_only: true,
            ..RequestFacts::plain(class, Eventual, None, Instant::now())
        };
        decide(&facts, &fresh(), &situation(node))
    };
    for class in [Passthrough, Read, Write] {
        assert_eq!(goes(class, &told(Some("other"))), ToPrimary);
        assert_eq!(goes(class, &told(None)), WaitForPrimary);
        assert_eq!(goes(class, &lapsed()), WaitForPrimary, "it is being stopped");
        assert_eq!(goes(class, &primary()), Local);
    }
}

#[test]
fn an_elected_primary_doubts_itself_when_a_client_has_seen_a_later_epoch() {
    for class in [Read, Write] {
        let later = (class, ReadYourWrites, Some(at(4, 1)));
        goes(later, &fresh(), &elected(), LocalAfterRenewal);
        goes(later, &confirmed(), &elected(), Local);
        goes((class, ReadYourWrites, Some(at(3, 999))), &fresh(), &elected(), Local);
    }
    goes((Passthrough, ReadYourWrites, Some(at(4, 1))), &fresh(), &elected(), Local);
    goes((Read, Eventual, Some(at(4, 1))), &fresh(), &elected(), Local);
}

#[test]
fn a_write_goes_to_the_primary_or_waits_for_one() {
    let write = (Write, Eventual, None);
    goes(write, &fresh(), &told(Some("other")), ToPrimary);
    goes(write, &fresh(), &told(None), WaitForPrimary);
    // Not writable yet.
    goes(write, &fresh(), &told(Some("me")), WaitForPrimary);
}

#[test]
fn a_primary_whose_claim_has_lapsed_holds_what_only_the_primary_may_do() {
    for (asked, to) in [
        ((Write, Eventual, None), WaitForPrimary),
        ((Read, Strong, Some(at(3, 1))), WaitForPrimary),
        ((Read, Monotonic, Some(at(3, 10_101))), WaitForPrimary),
        ((Read, Monotonic, Some(at(3, 101))), LocalAfterPosition(at(3, 101))),
        ((Read, ReadYourWrites, None), Local),
    ] {
        goes(asked, &fresh(), &lapsed(), to);
    }
}

#[test]
fn a_read_goes_by_its_token() {
    for (consistency, token, to) in [
        (ReadYourWrites, None, Local),
        (ReadYourWrites, Some(at(3, 100)), Local),
        // Of an earlier epoch.
        (ReadYourWrites, Some(at(2, 999)), Local),
        (Monotonic, Some(at(3, 101)), LocalAfterPosition(at(3, 101))),
        (ReadYourWrites, Some(at(4, 1)), LocalAfterPosition(at(4, 1))),
        (ReadYourWrites, Some(at(3, 10_101)), ToPrimary),
        (Eventual, Some(at(3, 101)), Local),
        (Strong, None, ToPrimary),
        // LiteFS' own cookie.
        (ReadYourWrites, Some(at(0, 99)), Local),
        (ReadYourWrites, Some(at(0, 101)), LocalAfterPosition(at(3, 101))),
    ] {
        goes((Read, consistency, token), &fresh(), &replica(Some("other")), to);
    }
}

#[test]
fn a_copy_of_an_older_epoch_serves_no_tokens() {
    for (token, to) in [
        (Some(at(2, 1)), LocalAfterPosition(at(3, 0))),
        (Some(at(3, 2)), LocalAfterPosition(at(3, 2))),
        (Some(at(0, 1)), Local),
        (None, Local),
    ] {
        let asked = (Read, ReadYourWrites, token);
        goes(asked, &fresh(), &behind(told(Some("other")), at(2, 500)), to);
        goes(asked, &fresh(), &behind(replica(None), at(2, 500)), to);
    }
}

#[test]
fn a_copy_whose_epoch_is_known_by_word_of_mouth_only_serves_no_older_tokens() {
    let read = |epoch, txid| (Read, ReadYourWrites, Some(at(epoch, txid)));
    goes(read(2, 5), &fresh(), &told(Some("other")), ToPrimary);
    goes(read(2, 5), &fresh(), &told(None), WaitForPrimary);
    goes(read(3, 5), &fresh(), &told(Some("other")), Local);
    goes(read(2, 5), &fresh(), &replica(None), Local);
}

#[test]
fn a_read_that_has_waited_here_goes_to_the_primary() {
    let ahead = (Read, ReadYourWrites, Some(at(3, 101)));
    goes(ahead, &exhausted(), &replica(Some("other")), ToPrimary);
    goes(ahead, &exhausted(), &replica(None), WaitForPrimary);
    goes(ahead, &exhausted(), &behind(replica(Some("other")), at(3, 101)), Local);
}

#[test]
fn without_an_application_here_a_read_goes_to_the_primarys() {
    let read = (Read, ReadYourWrites, None);
    goes(read, &exhausted(), &down(replica(Some("other"))), ToPrimary);
    // The checks have not found it down: it may be back in a moment.
    goes(read, &exhausted(), &replica(Some("other")), Local);
    goes(read, &exhausted(), &down(replica(None)), Local);
    goes(read, &exhausted(), &down(primary()), Local);
    goes((Write, Eventual, None), &exhausted(), &down(primary()), Local);
    goes((Passthrough, Eventual, None), &exhausted(), &down(replica(Some("other"))), Local);
}

#[test]
fn what_the_application_wants_replayed_is_a_write() {
    let read = (Read, Eventual, None);
    goes(read, &replayed(), &replica(Some("other")), ToPrimary);
    goes(read, &replayed(), &replica(None), WaitForPrimary);
    goes(read, &replayed(), &primary(), Local);
    // By its consistency alone the read would not be doubted.
    goes((Read, Eventual, Some(at(4, 1))), &replayed(), &elected(), LocalAfterRenewal);
}

#[test]
fn passthrough_goes_here_whatever_happens() {
    let asked = (Passthrough, Strong, Some(at(9, 9)));
    goes(asked, &fresh(), &told(None), Local);
    goes(asked, &exhausted(), &down(told(Some("other"))), Local);
}

#[test]
fn a_copy_that_is_too_old_serves_no_read_while_there_is_a_primary() {
    let eventual = (Read, Eventual, None);
    let written = (Read, ReadYourWrites, Some(at(3, 12)));
    let other = lagging(replica(Some("other")));
    goes(eventual, &fresh(), &other, ToPrimary);
    goes(written, &fresh(), &other, ToPrimary);
    goes((Passthrough, Eventual, None), &fresh(), &other, Local);
    goes(eventual, &fresh(), &lagging(replica(None)), Local);
}
