//! What this node's LiteFS is told about the lease: whether it is the primary, and if not, whom it
//! follows. Answers from memory, at once.
//!
//! A tenure of ours is one session of LiteFS. Whatever ends that session ends the tenure: a LiteFS that was
//! demoted, even for a moment, may have lost what it had told SQLite was committed, so it does not get
//! the lease again in the same epoch. A refused renewal is never followed by a successful one.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::agreement::Agreed;
use crate::claim::Claim;
use crate::cluster::{Epoch, NodeId};
use crate::engine::BoxFuture;
use crate::lease::{LeaseSource, PrimaryInfo, Session};
use crate::secret::random_hex;

/// Between a session's node and its number; no node's name has it.
const OF: char = '~';

/// What LiteFS is told. Shared between the lease's server and the engine.
pub(crate) struct LeaseState {
    node: NodeId,
    agreed: Agreed,
    state: Mutex<State>,
    /// The last epoch that LiteFS itself has ended: by giving its lease back.
    given_back: watch::Sender<Epoch>,
    /// When LiteFS last asked for the lease, or whom to follow: it does so as long as it has neither.
    asked: watch::Sender<Option<Instant>>,
}

#[derive(Default)]
struct State {
    grant: Option<Grant>,
    primary: Option<PrimaryInfo>,
    /// For session names: all of them different even without a source of randomness.
    sessions: u64,
}

/// This node may be primary.
struct Grant {
    epoch: Epoch,
    claim: Claim,
    /// LiteFS has taken it, with this session.
    session: Option<Session>,
    /// LiteFS follows a primary that is to hand it its own session: whichever that is. It may even be one
    /// that this node made once, and handed over.
    handed: bool,
    /// Since when LiteFS has not renewed it.
    renewed: Instant,
    /// The database is fenced, so LiteFS may stay primary until then although the claim is over: it
    /// hands over to the next.
    yielding: Option<Instant>,
    over: bool,
}

impl Grant {
    fn is_valid(&self) -> bool {
        let yields = self.yielding.is_some_and(|until| Instant::now() < until);
        !self.over && (yields || self.claim.is_valid())
    }

    fn is_of(&self, session: &Session) -> bool {
        self.session.as_ref() == Some(session)
    }
}

impl LeaseState {
    /// LiteFS is told that there is no primary.
    pub(crate) fn new(node: NodeId, agreed: Agreed) -> Self {
        let given_back = watch::Sender::new(Epoch(0));
        Self { node, agreed, state: Mutex::default(), given_back, asked: watch::Sender::default() }
    }

    /// LiteFS gets the lease when it asks next, while `claim` is valid; with `handed`, also if another
    /// node's LiteFS hands it over to it.
    pub(crate) fn grant(&self, epoch: Epoch, claim: Claim, handed: bool) {
        let renewed = Instant::now();
        let (session, yielding, over) = (None, None, false);
        let grant = Grant { epoch, claim, session, handed, renewed, yielding, over };
        self.state().grant = Some(grant);
    }

    /// Nobody has handed the lease over to this LiteFS: it has to ask.
    pub(crate) fn not_handed(&self) {
        if let Some(grant) = &mut self.state().grant {
            grant.handed = false;
        }
    }

    /// LiteFS is the primary no more from its next renewal on.
    pub(crate) fn revoke(&self) {
        self.state().grant = None;
    }

    /// LiteFS, whose database is fenced, may stay primary for so long, whatever becomes of the claim.
    pub(crate) fn yielding(&self, time: Duration) {
        if let Some(grant) = &mut self.state().grant {
            grant.yielding = Some(Instant::now() + time);
        }
    }

    /// The fence was taken away: only the claim counts again.
    pub(crate) fn not_yielding(&self) {
        if let Some(grant) = &mut self.state().grant {
            grant.yielding = None;
        }
    }

    /// Whom LiteFS is to follow when it is not the primary.
    pub(crate) fn follow(&self, primary: Option<PrimaryInfo>) {
        self.state().primary = primary;
    }

    /// The epoch that LiteFS has the lease for, and may keep.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        let state = self.state();
        let grant = state.grant.as_ref().filter(|grant| grant.session.is_some() && !grant.over);
        grant.map(|grant| grant.epoch)
    }

    /// Whether LiteFS has asked for the lease within `time`, or whom to follow: it is alive and follows
    /// nobody.
    pub(crate) fn has_asked_within(&self, time: Duration) -> bool {
        self.asked.borrow().is_some_and(|at| at.elapsed() <= time)
    }

    /// Ready once LiteFS has asked within `time`.
    pub(crate) async fn asks(&self, time: Duration) {
        let asks = |asked: &Option<Instant>| asked.is_some_and(|at| at.elapsed() <= time);
        // An error cannot be: the sender is ours.
        let _ = self.asked.subscribe().wait_for(asks).await;
    }

    /// LiteFS follows a primary that it is to leave: only what it asks from now on counts.
    pub(crate) fn leaves(&self) {
        self.asked.send_replace(None);
    }

    fn note_asking(&self) {
        self.asked.send_replace(Some(Instant::now()));
    }

    /// How long LiteFS, which has the lease, has not renewed it; `None` if it does not have it.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let state = self.state();
        let grant = state.grant.as_ref().filter(|grant| grant.session.is_some() && !grant.over)?;
        Some(grant.renewed.elapsed())
    }

    /// The last epoch that LiteFS itself has ended.
    pub(crate) fn given_back(&self) -> watch::Receiver<Epoch> {
        self.given_back.subscribe()
    }

    /// LiteFS has ended, or says that it is not primary: so its epoch is over, whether it gave the lease
    /// back or handed it to somebody else.
    pub(crate) fn not_primary(&self) {
        self.asked.send_replace(None);
        let mut state = self.state();
        if let Some(grant) = state.grant.as_mut().filter(|grant| grant.session.is_some()) {
            self.end(grant);
        }
    }

    fn end(&self, grant: &mut Grant) {
        grant.over = true;
        self.given_back.send_if_modified(|epoch| {
            let news = grant.epoch > *epoch;
            *epoch = grant.epoch.max(*epoch);
            news
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl LeaseSource for LeaseState {
    fn cluster_id(&self) -> Option<String> {
        self.agreed.litefs_id()
    }

    fn set_cluster_id(&self, id: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.agreed.propose(id))
    }

    fn primary(&self) -> Option<PrimaryInfo> {
        self.note_asking();
        let state = self.state();
        // A LiteFS that is named itself connects to itself, and one that is to be primary must ask.
        if state.grant.is_some() { None } else { state.primary.clone() }
    }

    fn create(&self) -> Session {
        self.note_asking();
        let mut state = self.state();
        state.sessions += 1;
        let random = random_hex::<8>().unwrap_or_default();
        Session(format!("{}{OF}{}.{random}", self.node, state.sessions))
    }

    fn acquire(&self, session: &Session) -> bool {
        let mut state = self.state();
        let Some(grant) = state.grant.as_mut().filter(|grant| grant.is_valid()) else {
            return false;
        };
        if grant.session.is_none() {
            grant.session = Some(session.clone());
            grant.renewed = Instant::now();
        }
        grant.is_of(session)
    }

    fn renew(&self, session: &Session) -> bool {
        let mut state = self.state();
        let Some(grant) = &mut state.grant else { return false };
        if grant.session.is_none() && grant.handed && grant.is_valid() {
            // It acquires with it next.
            grant.session = Some(session.clone());
        }
        if !grant.is_of(session) {
            return false;
        }
        if !grant.is_valid() {
            self.end(grant);
            return false;
        }
        grant.renewed = Instant::now();
        true
    }

    fn release(&self, session: &Session) -> bool {
        let mut state = self.state();
        let Some(grant) = state.grant.as_mut().filter(|grant| grant.is_of(session)) else {
            return false;
        };
        let was_primary = !grant.over;
        self.end(grant);
        was_primary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::BootTime;
    use crate::litefs::agreement::agreement;

    const LONG: Duration = Duration::from_secs(3600);

    fn lease_state() -> LeaseState {
        LeaseState::new("node-1".parse().unwrap(), agreement().1)
    }

    fn other() -> PrimaryInfo {
        PrimaryInfo {
            hostname: "node-2".to_owned(),
            advertise_url: "http://127.0.0.1:1".to_owned(),
        }
    }

    #[test]
    fn only_a_grant_makes_it_primary() {
        let lease_state = lease_state();
        assert!(!lease_state.has_asked_within(LONG));
        let early = lease_state.create();
        assert!(!lease_state.acquire(&early) && !lease_state.renew(&early));
        assert!(lease_state.has_asked_within(LONG));
        lease_state.not_primary();
        assert!(!lease_state.has_asked_within(LONG));
        lease_state.primary();
        assert!(
            lease_state.has_asked_within(LONG),
            "it would follow somebody, so it follows nobody yet"
        );
        lease_state.grant(Epoch(1), Claim::unlimited(), false);
        let session = lease_state.create();
        assert_ne!(session, early);
        assert!(!lease_state.renew(&session), "it has not acquired yet");
        assert!(lease_state.acquire(&session) && lease_state.renew(&session));
        assert!(!lease_state.acquire(&lease_state.create()), "there is one primary");
        assert!(lease_state.silent_for().is_some());
    }

    #[test]
    fn a_claim_that_is_over_is_over_for_good() {
        let lease_state = lease_state();
        let claim = Claim::until(BootTime::now().after(LONG));
        lease_state.grant(Epoch(1), claim.clone(), false);
        let session = lease_state.create();
        assert!(lease_state.acquire(&session) && lease_state.renew(&session));
        claim.end();
        assert!(!lease_state.renew(&session));
        assert_eq!(*lease_state.given_back().borrow(), Epoch(1));
        lease_state.grant(Epoch(2), Claim::unlimited(), false);
        assert!(!lease_state.renew(&session), "of another epoch");
        assert!(lease_state.acquire(&lease_state.create()));
    }

    #[test]
    fn a_litefs_that_gave_up_does_not_get_the_same_epoch_again() {
        for dies in [false, true] {
            let lease_state = lease_state();
            lease_state.grant(Epoch(3), Claim::unlimited(), false);
            let session = lease_state.create();
            assert!(lease_state.acquire(&session));
            if dies {
                lease_state.not_primary();
            } else {
                assert!(lease_state.release(&session));
            }
            assert!(!lease_state.release(&session) && !lease_state.renew(&session));
            assert!(!lease_state.acquire(&lease_state.create()) && !lease_state.acquire(&session));
            assert_eq!(*lease_state.given_back().borrow(), Epoch(3));
            assert_eq!(lease_state.silent_for(), None);
        }
    }

    #[test]
    fn a_session_of_another_node_is_honored_only_where_it_was_granted() {
        let lease_state = lease_state();
        let handed = Session("node-2~7.abc".to_owned());
        assert!(!lease_state.renew(&handed), "nobody has handed over");
        lease_state.grant(Epoch(2), Claim::unlimited(), false);
        assert!(!lease_state.renew(&handed), "nobody is to hand over");
        lease_state.grant(Epoch(3), Claim::unlimited(), true);
        assert!(
            lease_state.renew(&handed)
                && lease_state.acquire(&handed)
                && lease_state.renew(&handed)
        );
        assert!(!lease_state.renew(&Session("node-3~1.abc".to_owned())));
        let own = lease_state.create();
        lease_state.grant(Epoch(4), Claim::unlimited(), true);
        assert!(lease_state.renew(&own), "it may come back to where it was made");
        lease_state.grant(Epoch(5), Claim::unlimited(), true);
        lease_state.not_handed();
        assert!(!lease_state.renew(&handed) && lease_state.acquire(&lease_state.create()));
    }

    #[test]
    fn a_fenced_primary_stays_until_it_has_handed_over() {
        let lease_state = lease_state();
        let claim = Claim::until(BootTime::now().after(LONG));
        lease_state.grant(Epoch(1), claim.clone(), false);
        let session = lease_state.create();
        assert!(lease_state.acquire(&session));
        lease_state.yielding(LONG);
        claim.end();
        assert!(lease_state.renew(&session));
        lease_state.not_yielding();
        assert!(!lease_state.renew(&session));
        lease_state.yielding(LONG);
        assert!(!lease_state.renew(&session), "refused once is refused for good");
    }

    #[test]
    fn it_is_never_told_to_follow_itself() {
        let lease_state = lease_state();
        lease_state.follow(Some(other()));
        assert_eq!(lease_state.primary(), Some(other()));
        lease_state.grant(Epoch(1), Claim::unlimited(), false);
        assert_eq!(lease_state.primary(), None);
        lease_state.revoke();
        assert_eq!(lease_state.primary(), Some(other()));
        lease_state.follow(None);
        assert_eq!(lease_state.primary(), None);
    }
}
