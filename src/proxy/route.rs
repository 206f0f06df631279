//! Where a request goes. Pure.

use crate::cluster::{ClusterView, Epoch};
use crate::config::Consistency;
use crate::rules::Class;
use crate::txid::{EpochTxid, Token, Txid};

/// Where the answer came from, as `Litepilot-Route` and the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    Local,
    Primary,
    /// The primary's application, after this node's had asked for that.
    Replayed,
    /// This node's application, by a passthrough rule.
    Passthrough,
    /// Nowhere: Litepilot answered itself.
    None,
}

impl Route {
    /// Every route, in the order of [`Route::index`].
    pub(crate) const ALL: [Self; 5] =
        [Self::Local, Self::Primary, Self::Replayed, Self::Passthrough, Self::None];

    /// The name in headers and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Primary => "primary",
            Self::Replayed => "replayed",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// Its place in tables.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// A token this far ahead of this node is not waited for: the primary is quicker.
const FAR_AHEAD: u64 = 10_000;

/// What a request needs.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What it does.
    pub class: Class,
    /// What a read must see.
    pub consistency: Consistency,
    /// What its client last saw.
    pub token: Option<Token>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To this node's application.
    Local,
    /// Likewise, once this node has reached the token; after `read_wait` to the primary.
    LocalAfterPosition(Token),
    /// Likewise, once this primary's claim has been renewed.
    LocalAfterRenewal,
    /// To the primary's application.
    ToPrimary,
    /// Nowhere until there is a primary.
    WaitForPrimary,
}

/// Decides from the class of a request, the view of the cluster, whether this node takes writes at this
/// moment, and its position.
pub fn decide(ask: &Ask, view: &ClusterView, takes_writes: bool, position: EpochTxid) -> Decision {
    match ask.class {
        Class::Passthrough => Decision::Local,
        _ if takes_writes && is_doubtful(ask, view) => Decision::LocalAfterRenewal,
        _ if takes_writes => Decision::Local,
        Class::Write => to_primary(view),
        Class::Read => match needed(ask, view, position) {
            None => to_primary(view),
            Some(needed) if needed <= position => Decision::Local,
            Some(needed) => {
                let near = needed.txid.0 <= position.txid.0.saturating_add(FAR_AHEAD);
                if near || view.primary.is_none() {
                    Decision::LocalAfterPosition(needed)
                } else {
                    to_primary(view)
                }
            }
        },
    }
}

/// Whether a primary has to doubt that it is one: the client has seen a later reign. That may have
/// been in a cluster that is no more; or the clock here has stood still, and with it the end of the
/// claim.
pub(crate) fn is_doubtful(ask: &Ask, view: &ClusterView) -> bool {
    let elected = view.claim.deadline().is_some();
    let by_token = ask.class == Class::Write || ask.consistency != Consistency::Eventual;
    elected && by_token && ask.token.is_some_and(|token| token.epoch > view.epoch())
}

/// The position from which on this node's copy will do for a read; `None` if only the primary's will.
///
/// With a token a copy has to follow the newest reign too: what it holds of an older one may be what
/// the next began without.
pub(crate) fn needed(ask: &Ask, view: &ClusterView, position: EpochTxid) -> Option<EpochTxid> {
    match (ask.consistency, ask.token) {
        (Consistency::Strong, _) => None,
        (Consistency::Eventual, _) | (_, None) => Some(EpochTxid::default()),
        (_, Some(token)) if token.epoch == Epoch(0) => Some(with_epoch(token, position)),
        // What this copy's reign began without has to be told, and is not known here yet.
        (_, Some(token))
            if token.epoch < position.epoch && !view.knows_losses_until(position.epoch) =>
        {
            None
        }
        (_, Some(token)) => {
            Some(token.max(EpochTxid { epoch: view.newest_epoch(), txid: Txid(0) }))
        }
    }
}

/// To the primary's application, elsewhere.
pub(crate) fn to_primary(view: &ClusterView) -> Decision {
    match &view.primary {
        Some(primary) if primary.node != view.node => Decision::ToPrimary,
        // Either there is none, or we are it and may not take writes yet.
        _ => Decision::WaitForPrimary,
    }
}

/// A client that keeps only LiteFS' own cookie means this node's epoch.
pub(crate) fn with_epoch(mut token: Token, position: EpochTxid) -> Token {
    if token.epoch == Epoch(0) {
        token.epoch = position.epoch;
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use crate::cluster::{EpochStart, NodeId, Primary, Role};
    use crate::txid::Position;
    use std::time::SystemTime;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn replica(primary: Option<&str>) -> ClusterView {
        ClusterView {
            node: node("me"),
            role: Role::Replica,
            primary: primary.map(|p| Primary {
                node: node(p),
                epoch: Epoch(3),
                since: SystemTime::UNIX_EPOCH,
            }),
            writable: false,
            claim: Claim::none(),
            elected: true,
            starts: [].into(),
            quorum: true,
        }
    }

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    fn ask(class: Class, consistency: Consistency, token: Option<Token>) -> Ask {
        Ask { class, consistency, token }
    }

    const HERE: EpochTxid = EpochTxid { epoch: Epoch(3), txid: Txid(100) };

    #[test]
    fn a_primary_serves_everything_itself_and_never_waits() {
        let view = ClusterView::single(node("me"), Epoch(3));
        for class in [Class::Passthrough, Class::Read, Class::Write] {
            for consistency in
                [Consistency::Eventual, Consistency::ReadYourWrites, Consistency::Strong]
            {
                let ask = ask(class, consistency, Some(at(9, 9)));
                assert_eq!(decide(&ask, &view, true, HERE), Decision::Local);
            }
        }
    }

    #[test]
    fn an_elected_primary_doubts_itself_when_a_client_has_seen_a_later_reign() {
        let claim = Claim::until(crate::claim::BootTime(u64::MAX - 1));
        let view = ClusterView { claim, ..ClusterView::single(node("me"), Epoch(3)) };
        let decide = |class, token| {
            decide(&ask(class, Consistency::ReadYourWrites, Some(token)), &view, true, HERE)
        };
        for class in [Class::Read, Class::Write] {
            assert_eq!(decide(class, at(4, 1)), Decision::LocalAfterRenewal);
            assert_eq!(decide(class, at(3, 999)), Decision::Local);
        }
        assert_eq!(decide(Class::Passthrough, at(4, 1)), Decision::Local);
        let eventual = ask(Class::Read, Consistency::Eventual, Some(at(4, 1)));
        assert_eq!(super::decide(&eventual, &view, true, HERE), Decision::Local);
    }

    #[test]
    fn a_write_goes_to_the_primary_or_waits_for_one() {
        let write = ask(Class::Write, Consistency::Eventual, None);
        let decide = |primary| decide(&write, &replica(primary), false, HERE);
        assert_eq!(decide(Some("other")), Decision::ToPrimary);
        assert_eq!(decide(None), Decision::WaitForPrimary);
        assert_eq!(decide(Some("me")), Decision::WaitForPrimary, "not writable yet");
    }

    #[test]
    fn a_primary_whose_claim_has_lapsed_holds_what_only_the_primary_may_do() {
        use Consistency::*;
        let view = ClusterView::single(node("me"), Epoch(3));
        let lapsed =
            |class, consistency, token| decide(&ask(class, consistency, token), &view, false, HERE);
        assert_eq!(lapsed(Class::Write, Eventual, None), Decision::WaitForPrimary);
        assert_eq!(lapsed(Class::Read, Strong, Some(at(3, 1))), Decision::WaitForPrimary);
        assert_eq!(lapsed(Class::Read, Monotonic, Some(at(3, 10_101))), Decision::WaitForPrimary);
        let ahead = at(3, 101);
        assert_eq!(
            lapsed(Class::Read, Monotonic, Some(ahead)),
            Decision::LocalAfterPosition(ahead)
        );
        assert_eq!(lapsed(Class::Read, ReadYourWrites, None), Decision::Local);
    }

    #[test]
    fn a_copy_of_an_older_reign_serves_no_tokens() {
        let behind = at(2, 500);
        for view in [
            replica(Some("other")),
            ClusterView {
                starts: [EpochStart { epoch: Epoch(3), held: Position::default() }].into(),
                ..replica(None)
            },
        ] {
            let read = |token| {
                let ask = ask(Class::Read, Consistency::ReadYourWrites, token);
                decide(&ask, &view, false, behind)
            };
            assert_eq!(read(Some(at(2, 1))), Decision::LocalAfterPosition(at(3, 0)));
            assert_eq!(read(Some(at(3, 2))), Decision::LocalAfterPosition(at(3, 2)));
            assert_eq!(read(Some(at(0, 1))), Decision::Local, "LiteFS' own cookie");
            assert_eq!(read(None), Decision::Local);
        }
    }

    #[test]
    fn a_copy_whose_reign_is_known_by_word_of_mouth_only_serves_no_older_tokens() {
        let start = EpochStart { epoch: Epoch(3), held: Position::default() };
        let (told, nobody) = (replica(Some("other")), replica(None));
        let agreed = ClusterView { starts: [start].into(), ..replica(None) };
        let read = |token, view: &ClusterView| {
            let ask = ask(Class::Read, Consistency::ReadYourWrites, Some(token));
            decide(&ask, view, false, at(3, 10))
        };
        assert_eq!(read(at(2, 5), &told), Decision::ToPrimary);
        assert_eq!(read(at(2, 5), &nobody), Decision::WaitForPrimary);
        assert_eq!(read(at(3, 5), &told), Decision::Local);
        assert_eq!(read(at(2, 5), &agreed), Decision::Local);
    }

    #[test]
    fn a_read_goes_by_its_token() {
        use Consistency::*;
        let start = EpochStart { epoch: Epoch(3), held: Position::default() };
        let other = ClusterView { starts: [start].into(), ..replica(Some("other")) };
        let read =
            |consistency, token| decide(&ask(Class::Read, consistency, token), &other, false, HERE);
        assert_eq!(read(ReadYourWrites, None), Decision::Local);
        assert_eq!(read(ReadYourWrites, Some(at(3, 100))), Decision::Local);
        assert_eq!(read(ReadYourWrites, Some(at(2, 999))), Decision::Local, "of an earlier epoch");
        assert_eq!(read(Monotonic, Some(at(3, 101))), Decision::LocalAfterPosition(at(3, 101)));
        assert_eq!(read(ReadYourWrites, Some(at(4, 1))), Decision::LocalAfterPosition(at(4, 1)));
        assert_eq!(read(ReadYourWrites, Some(at(3, 10_101))), Decision::ToPrimary);
        assert_eq!(read(Eventual, Some(at(3, 101))), Decision::Local);
        assert_eq!(read(Strong, None), Decision::ToPrimary);
        assert_eq!(read(ReadYourWrites, Some(at(0, 99))), Decision::Local, "LiteFS' own cookie");
        assert_eq!(
            read(ReadYourWrites, Some(at(0, 101))),
            Decision::LocalAfterPosition(at(3, 101))
        );
    }

    #[test]
    fn passthrough_goes_here_whatever_happens() {
        let ask = ask(Class::Passthrough, Consistency::Strong, Some(at(9, 9)));
        assert_eq!(decide(&ask, &replica(None), false, HERE), Decision::Local);
    }
}
