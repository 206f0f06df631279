//! How this node takes part in its cluster, by `cluster.election`.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::SINGLE_EPOCH;
use super::agreement;
use super::context::NodeContext;
use super::elected::{self, ElectedMembership};
use super::fixed::FixedMembership;
use super::peers::{Peering, electorate};
use super::permanent::PermanentPrimary;
use super::single::SingleMembership;
use super::status::{RaftSource, Roster, configured_roster};
use crate::cluster::{ClusterView, Epoch, Role};
use crate::config::{Config, Election};
use crate::control::Control;
use crate::control::fixed::FixedControl;
use crate::control::forwarder::Forwarder;
use crate::litefs::agreement::Agreement;
use crate::peer::{Credentials, Dialer};
use crate::proxy::PeerDoor;

/// One of the ways to take part, before the engine and the data plane are there.
pub(crate) enum Membership {
    /// There is only this node.
    Single(SingleMembership),
    /// The primary is always the same node.
    Fixed(FixedMembership),
    /// Primaries are elected. A witness votes and has no data.
    Elected(ElectedMembership),
}

impl Membership {
    /// The one that is configured. Others are told once `draining`.
    ///
    /// # Errors
    ///
    /// When what is on disk cannot be read or written.
    pub(crate) fn new(
        config: &Config,
        credentials: Option<Arc<Credentials>>,
        draining: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        Ok(match &config.cluster.election {
            Election::Single => {
                left_its_cluster(config)?;
                Self::Single(SingleMembership::new(config))
            }
            Election::Static(primary) => {
                Self::Fixed(FixedMembership::new(config, primary, credentials, draining)?)
            }
            Election::Raft => Self::Elected(ElectedMembership::new(config, credentials, draining)),
        })
    }

    /// The view that requests are routed by.
    pub(crate) fn view(&self) -> watch::Receiver<ClusterView> {
        match self {
            Self::Single(single) => single.view(),
            Self::Fixed(fixed) => fixed.view(),
            Self::Elected(elected) => elected.view(),
        }
    }

    /// The epoch of which this node is the primary from the start.
    pub(crate) fn primary_of(&self) -> Option<Epoch> {
        let is_primary = self.view().borrow().role == Role::Primary;
        is_primary.then(|| self.first_epoch()).flatten()
    }

    /// The epoch at the start; an election has none yet.
    fn first_epoch(&self) -> Option<Epoch> {
        match self {
            Self::Single(_) => Some(SINGLE_EPOCH),
            Self::Fixed(fixed) => Some(fixed.epoch()),
            Self::Elected(_) => None,
        }
    }

    /// To the other nodes, if there are any.
    pub(crate) fn peering(&self) -> Option<&Peering> {
        match self {
            Self::Single(_) => None,
            Self::Fixed(fixed) => Some(&fixed.peering),
            Self::Elected(elected) => Some(&elected.peering),
        }
    }

    /// Takes part, in tasks that are added to `tasks`. `door`: where peers' requests go; `None` on a
    /// witness.
    ///
    /// # Errors
    ///
    /// When the peer port cannot be had, or what is on disk cannot be used.
    pub(crate) async fn run(
        self,
        config: &Config,
        context: &NodeContext,
        door: Option<PeerDoor>,
        agreement: Agreement,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Participation> {
        if let Some(epoch) = self.first_epoch() {
            context.acks.begin(epoch, vec![electorate(config)]);
        }
        let context = context.clone();
        let dialer = self.peering().map(|peering| peering.dialer.clone());
        match (self, door) {
            (Self::Elected(elected), door) => {
                return elected
                    .run(config, context, door, agreement)
                    .await
                    .map(Participation::Elected);
            }
            (Self::Single(single), _) => {
                let primary = permanent(&context, agreement, tasks);
                tasks.spawn(single.run(primary, context));
            }
            (Self::Fixed(fixed), Some(door)) => {
                let primary = permanent(&context, agreement, tasks);
                let part = fixed.run(config, context, primary, door).await?;
                tasks.spawn(async move { drop(part.join_all().await) });
            }
            (Self::Fixed(_), None) => {}
        }
        Ok(Participation::Unelected(dialer))
    }
}

/// What a single node writes the others of a cluster would not know of, and might go on without.
fn left_its_cluster(config: &Config) -> io::Result<()> {
    let raft = config.data_dir.join(elected::RAFT);
    match raft.try_exists()? {
        false => Ok(()),
        true => Err(io::Error::other(format!(
            "election: single: this node is a member of a cluster, which would not know of what is \
             written here. To go on alone for a while, keep the election and `litepilot members \
             remove` the other nodes, one after the other. To leave for good, delete raft, litefs.* \
             and embedded.* in {}, and start again: the database stays",
            config.data_dir.display()
        ))),
    }
}

/// Without an election this node agrees with itself.
fn permanent(
    context: &NodeContext,
    agreement: Agreement,
    tasks: &mut JoinSet<()>,
) -> PermanentPrimary {
    let Agreement { starts, litefs_id, proposals } = agreement;
    tasks.spawn(agreement::by_this_node(litefs_id, proposals));
    PermanentPrimary::new(context.engine.clone(), starts)
}

/// A running membership.
pub(crate) enum Participation {
    /// Nobody can take this node's place, or it is always another's. The others are reached by this.
    Unelected(Option<Arc<Dialer>>),
    Elected(elected::Part),
}

impl Participation {
    /// Every member with its role, as far as that never changes.
    pub(crate) fn roster(&self, config: &Config) -> Roster {
        match self {
            Self::Unelected(_) => configured_roster(config),
            Self::Elected(part) => part.roster(),
        }
    }

    /// How Raft stands, if there is an election.
    pub(crate) fn raft(&self) -> Option<RaftSource> {
        match self {
            Self::Unelected(_) => None,
            Self::Elected(part) => Some(part.raft_status()),
        }
    }

    /// What operators can ask for.
    pub(crate) fn control(&self, config: &Config, context: &NodeContext) -> Arc<dyn Control> {
        match self {
            Self::Unelected(dialer) => {
                let forwarder = dialer.clone().map(|dial| Forwarder {
                    own: config.node.clone(),
                    dial,
                    view: context.view.clone(),
                });
                Arc::new(FixedControl::new(config, forwarder))
            }
            Self::Elected(part) => {
                Arc::new(part.steering(config, context.engine.clone(), context.view.clone()))
            }
        }
    }

    /// Ends this node's part.
    pub(crate) async fn stop(self) {
        if let Self::Elected(part) = self {
            part.stop().await;
        }
    }
}
