//! The Raft leader's part: keeps the time of the lease, and fills it when it is vacant.
//!
//! The table has no clock, so somebody has to hold the timers: whoever leads Raft, for as long as its
//! term lasts. A new term knows nothing of the renewals that the last one accepted and begins with a
//! full ttl. Once the end of an epoch was proposed that epoch is *revoked*: nothing renews it any
//! more. Otherwise a renewal that is confirmed while the expiry is on its way would make two claims.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::choice::{self, Situation, Verdict, Why};
use super::clock::until;
use super::context::ElectionContext;
use super::departed::Departed;
use super::majority::{self, EVERYTHING};
use super::raft::{ChangeError, Leadership};
use super::rpc::{Fitness, Request, Response};
use super::table::{Applied, Command, Holder, Session, Table, Term};
use crate::claim::BootTime;
use crate::cluster::{Epoch, NodeId};
use crate::control::MemberChange;
use crate::engine::BoxFuture;
use crate::publish;
use crate::telemetry::log_throttle::LogThrottle;

/// An answer to `Prepare` says for so long whether a node is fit; what it holds it says for good.
const FRESH: Duration = Duration::from_secs(1);

/// The timers of one node, in use while it leads Raft.
pub(crate) struct Lessor {
    context: Arc<ElectionContext>,
    timers: Mutex<Timers>,
    /// Whom the operator wants, in the epoch that is vacant.
    forced: watch::Sender<Option<(Epoch, NodeId)>>,
    /// Why nobody is chosen, while this node is to choose.
    waiting: watch::Sender<Option<Arc<str>>>,
    /// Whoever leads later may have to know, too.
    pub(super) departed: Departed,
    /// Without a quorum the same fails many times a second.
    log: LogThrottle<&'static str>,
}

/// How long a node that an operator wants may take to promise, and to be granted the lease.
const FORCED: Duration = Duration::from_secs(5);
#[derive(Default)]
struct Timers {
    term: Term,
    /// Neither this epoch nor an earlier one is renewed.
    revoked: Epoch,
    /// When the lease of that epoch expires.
    expiry: Option<(Epoch, BootTime)>,
}

/// The answers to `Prepare`, with the time of each.
type Answers = BTreeMap<NodeId, (Fitness, BootTime)>;

impl Lessor {
    pub(crate) fn new(context: Arc<ElectionContext>) -> Self {
        Self {
            context,
            timers: Mutex::default(),
            forced: watch::Sender::new(None),
            waiting: watch::Sender::new(None),
            departed: Departed::default(),
            log: LogThrottle::new(),
        }
    }

    /// Why nobody is chosen, while this node is to choose.
    pub(crate) fn waiting(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.waiting.subscribe()
    }

    /// Does the work of a Raft leader whenever this node is one.
    pub(crate) async fn run(&self) {
        let mut leadership = self.context.raft.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            let leads = async {
                if !now.ours {
                    return std::future::pending().await;
                }
                tokio::select! {
                    biased;
                    () = self.lead(now.term) => {}
                    () = self.pass_leadership_on() => {}
                }
            };
            tokio::select! {
                biased;
                changed = changed(&mut leadership, &now) => if !changed { return },
                () = leads => {}
            }
            publish::if_changed(&self.waiting, None);
        }
    }

    /// Answers what is asked of a Raft leader.
    pub(crate) async fn answer(&self, from: &NodeId, request: Request) -> Response {
        match request {
            Request::Renew { epoch, session } => self.renew(from, epoch, &session).await,
            Request::Propose(command) => self.propose(command).await,
            Request::Force(node) => self.force(node).await,
            Request::Members(change) => self.change_members(change).await,
            _ => Response::Refused("that is not asked of a Raft leader".to_owned()),
        }
    }

    /// The holder says that it is alive. The quorum round that confirms it begins after this was
    /// called: this node still led when it ended.
    async fn renew(&self, from: &NodeId, epoch: Epoch, session: &Session) -> Response {
        let leadership = self.context.raft.leadership().borrow().clone();
        if !leadership.ours {
            return Response::NotLeader(leadership.leader);
        }
        let Ok(table) = self.context.raft.confirm().await else { return Response::NotLeader(None) };
        let now = self.context.clock.now();
        let Some(mut timers) = self.timers_of(leadership.term) else {
            return Response::NotLeader(None);
        };
        let holds = table.holds(epoch, session).is_some_and(|holder| holder.node == *from);
        if !holds || epoch <= timers.revoked {
            return Response::LeaseLost;
        }
        timers.expiry = Some((epoch, now.after(self.context.times.ttl)));
        Response::Renewed
    }

    /// Somebody wants this agreed upon.
    async fn propose(&self, command: Command) -> Response {
        let leadership = self.context.raft.leadership().borrow().clone();
        if !leadership.ours {
            return Response::NotLeader(leadership.leader);
        }
        let ends = match &command {
            Command::Release { epoch } => Some(*epoch),
            Command::HandOver(to) => Some(Epoch(to.epoch.0.saturating_sub(1))),
            // Only the leader that has waited may say so.
            Command::Expire { .. } | Command::Acquire(_) => {
                return Response::Refused("only the Raft leader does that".to_owned());
            }
            _ => None,
        };
        if let Some(epoch) = ends {
            match self.timers_of(leadership.term) {
                Some(mut timers) => timers.revoke(epoch),
                None => return Response::NotLeader(None),
            }
        }
        match self.context.raft.propose(command).await {
            Ok(outcome) => Response::Proposed(outcome),
            Err(_) => Response::NotLeader(self.context.raft.leadership().borrow().leader.clone()),
        }
    }

    /// The operator wants `node` as primary although others may have more.
    async fn force(&self, node: NodeId) -> Response {
        let leadership = self.context.raft.leadership().borrow().clone();
        if !leadership.ours {
            return Response::NotLeader(leadership.leader);
        }
        let mut tables = self.context.raft.table();
        let table = tables.borrow_and_update().clone();
        if let Some(holder) = &table.holder {
            return Response::Refused(format!("{holder} is primary: promote without force"));
        }
        let epoch = next_epoch(&table);
        self.forced.send_replace(Some((epoch, node.clone())));
        let chosen = tokio::select! {
            biased;
            chosen = tables.wait_for(|table| table.last_epoch >= epoch) => {
                chosen.map(|table| table.holder.clone())
            }
            () = self.context.clock.sleep(FORCED) => {
                // Later would be a surprise.
                self.forced.send_replace(None);
                let why = self.waiting.borrow().clone();
                let why = why.map_or_else(|| "it was not chosen in time".to_owned(), |why| why.to_string());
                return Response::Refused(why);
            }
        };
        match chosen {
            Ok(Some(holder)) if holder.node == node => Response::Done,
            Ok(_) => Response::Refused("another node was faster".to_owned()),
            Err(_) => Response::NotLeader(None),
        }
    }

    /// What a majority of the old members has acknowledged a majority of the new ones has to hold,
    /// before only these count: the holder is asked to see to it.
    async fn change_members(&self, change: MemberChange) -> Response {
        let holder = self.context.raft.table().borrow().primary().map(|holder| holder.node.clone());
        let Some(holder) = holder else {
            let why = "there is no primary; members are changed while there is one";
            return Response::Refused(why.to_owned());
        };
        let newcomer = match &change {
            MemberChange::Remove { node } | MemberChange::Replace { node } if *node == holder => {
                return majority::stays(node);
            }
            MemberChange::Add { node, .. } | MemberChange::Replace { node } => Some(node.clone()),
            MemberChange::Remove { .. } => None,
        };
        let ask = |next| self.ask_holder(holder.clone(), next);
        let pass = async |next| {
            if let Some(newcomer) = &newcomer {
                self.until_level(newcomer, &holder).await?;
            }
            ask(Some(next)).await
        };
        let gate = |next| -> BoxFuture<'_, Result<(), String>> { Box::pin(pass(next)) };
        let changed = self.context.raft.change_members(change, &gate).await;
        if let Err(why) = ask(None).await {
            tracing::warn!(%holder, %why, "the primary does not know yet who counts");
        }
        match changed {
            Ok(()) => Response::Done,
            Err(ChangeError::NotLeader(leader)) => Response::NotLeader(leader),
            Err(ChangeError::Refused(why)) => Response::Refused(why),
        }
    }

    /// A vote is for a node whose engine works and whose copy is complete: it is counted on.
    async fn until_level(&self, newcomer: &NodeId, holder: &NodeId) -> Result<(), String> {
        let limit = self.context.clock.now().after(EVERYTHING);
        let goal = self.fitness_of(holder).await.map(|fitness| fitness.held.at);
        let goal = goal.map_err(|why| format!("the primary does not say what it holds: {why}"))?;
        loop {
            let why = match self.fitness_of(newcomer).await {
                Ok(Fitness { unfit: Some(why), .. }) | Err(why) => why,
                Ok(fitness) if fitness.held.at >= goal => return Ok(()),
                Ok(fitness) => {
                    format!("its copy is at {}, the primary's at {goal}", fitness.held.at)
                }
            };
            if self.context.clock.now() >= limit {
                return Err(format!(
                    "{newcomer} does not vote yet: {why}; fix that, then give the same command again"
                ));
            }
            self.context.pause().await;
        }
    }

    async fn fitness_of(&self, node: &NodeId) -> Result<Fitness, String> {
        let limit = self.context.times.renew;
        match self.context.transport.call(node.clone(), Request::Fitness, limit).await {
            Ok(Response::Fitness(fitness)) => Ok(fitness),
            Ok(Response::Refused(why)) => Err(why),
            Ok(_) => Err("its answer makes no sense".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }

    async fn ask_holder(&self, holder: NodeId, next: Option<Vec<NodeId>>) -> Result<(), String> {
        // The holder itself gives up after EVERYTHING, and says why: that answer should arrive.
        let limit = EVERYTHING + Duration::from_secs(1);
        match self.context.transport.call(holder, Request::Electorate(next), limit).await {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Refused(why)) => Err(why),
            Ok(_) => Err("the primary's answer makes no sense".to_owned()),
            Err(why) => Err(format!("the primary did not answer: {why}")),
        }
    }

    async fn lead(&self, term: Term) {
        drop(self.timers_of(term));
        let mut tables = self.context.raft.table();
        loop {
            let table = tables.borrow_and_update().clone();
            match &table.holder {
                Some(holder) => self.watch_over(holder, term, &mut tables).await,
                None => self.fill(&table, &mut tables).await,
            }
            publish::if_changed(&self.waiting, None);
        }
    }

    /// Returns once the table has changed, or the holder had its time.
    async fn watch_over(
        &self,
        holder: &Holder,
        term: Term,
        tables: &mut watch::Receiver<Arc<Table>>,
    ) {
        let Some(expiry) = self.expiry(term, holder.epoch) else { return };
        let died = tokio::select! {
            biased;
            _ = tables.changed() => return,
            () = self.departed.includes(&holder.node, &holder.session) => true,
            () = until(&*self.context.clock, expiry) => false,
        };
        let revoked = match died {
            true => self.revoke(term, holder.epoch),
            false => self.revoke_if_lapsed(term, holder.epoch),
        };
        let Some(first) = revoked else { return };
        if first {
            let ttl = self.context.times.ttl;
            let why = match died {
                true => format!("the process of {holder} has died: its lease ends"),
                false => format!("{holder} has not renewed its lease for {ttl:?}: it expires"),
            };
            self.context.callbacks.event("lease-expired", why);
        }
        let expire = Command::Expire { epoch: holder.epoch, term };
        if let Err(why) = self.context.raft.propose(expire).await {
            self.try_again("cannot expire the lease; trying again", &why).await;
        }
    }

    /// Says what failed, but not each time, and waits a little.
    async fn try_again(&self, what: &'static str, why: &impl Display) {
        if let Some(held_back) = self.log.may_speak(what, Instant::now()) {
            tracing::warn!(%why, held_back, "{what}");
        }
        self.context.pause().await;
    }

    /// Whoever both leads Raft and holds the lease takes both with it when it dies: that costs an
    /// election and a full ttl. Another voter had better lead.
    async fn pass_leadership_on(&self) {
        let table = self.context.raft.table();
        loop {
            self.context.clock.sleep(self.context.times.renew).await;
            let holds = |table: &Table| {
                table.holder.as_ref().is_some_and(|holder| holder.node == self.context.own)
            };
            let holds = holds(&table.borrow());
            if holds && let Err(why) = self.context.raft.pass_leadership_on().await {
                tracing::debug!(%why, "cannot pass Raft's leadership on");
            }
        }
    }

    /// The lease is vacant: has everybody promise the next epoch, and chooses its primary. Returns
    /// once the table has changed.
    async fn fill(&self, table: &Table, tables: &mut watch::Receiver<Arc<Table>>) {
        let epoch = next_epoch(table);
        let mut members = self.context.raft.members();
        let mut electorate = members.borrow_and_update().data_nodes();
        let counted = table.electorates.iter().flatten();
        electorate.extend(counted.cloned());
        electorate.sort_unstable();
        electorate.dedup();
        let (send, mut incoming) = mpsc::channel(64);
        let mut asking = JoinSet::new();
        for node in electorate.clone() {
            asking.spawn(self.ask(node, epoch, send.clone()));
        }
        let mut forced = self.forced.subscribe();
        let mut answers = Answers::new();
        let mut held_up: Option<BootTime> = None;
        let mut waiting = Waiting::default();
        let mut late = Late::new(self.context.clock.now(), self.context.times.pause);
        loop {
            tokio::select! {
                biased;
                _ = tables.changed() => return,
                _ = members.changed() => return,
                _ = forced.changed() => {}
                Some((node, fitness)) = incoming.recv() => {
                    answers.insert(node, (fitness, self.context.clock.now()));
                }
                () = until(&*self.context.clock, late.until(self.context.clock.now())) => {}
            }
            let now = self.context.clock.now();
            let wanted = forced.borrow().clone().filter(|(of, _)| *of == epoch).map(|(_, n)| n);
            let mut current = current(&answers, now);
            self.departed.mark(&mut current);
            let situation = Situation {
                electorate: &electorate,
                counted: &table.electorates,
                answers: &current,
                first: table.starts.is_empty(),
                had_data: table.starts.iter().any(|s| s.held.at.txid.0 > 0),
                held_up: held_up.map(|since| now.since(since)).unwrap_or_default(),
                patience: self.context.times.hold_up,
                promised: match self.context.promises {
                    true => table.last_epoch,
                    false => table.promised,
                },
                forced: wanted.as_ref(),
                rather_not: Some(&self.context.own),
            };
            match choice::choose(&situation) {
                // Another one may be fresher, and its answer just behind.
                Verdict::Elect(_) if late.may_come(&answers, &electorate, now) => {}
                Verdict::Elect(node) => match current.get(&node) {
                    Some(fitness) => return self.grant(&node, fitness, epoch).await,
                    None => continue,
                },
                Verdict::Wait(why) => {
                    match &why {
                        Why::HeldUp { .. } => held_up = held_up.or(Some(now)),
                        _ => held_up = None,
                    }
                    publish::if_changed(&self.waiting, Some(why.to_string().into()));
                    if waiting.is_news(&why, now, self.context.times.ttl) {
                        self.context.callbacks.event("no-primary", why.to_string());
                    }
                }
            }
        }
    }

    async fn grant(&self, node: &NodeId, fitness: &Fitness, epoch: Epoch) {
        let holder = fitness.holder(node.clone(), epoch);
        match self.context.raft.propose(Command::Acquire(holder.clone())).await {
            Ok(Applied::Done) => {
                let held = fitness.held.at;
                self.context.callbacks.event("elected", format!("{holder}; it holds {held}"));
                // Raft tells it as well, a little later.
                let limit = self.context.times.renew;
                let told =
                    self.context.transport.call(node.clone(), Request::Granted(holder), limit);
                drop(told.await);
            }
            Ok(Applied::Rejected(why)) => tracing::info!(%node, why, "was not granted the lease"),
            Err(why) => self.try_again("cannot grant the lease; trying again", &why).await,
        }
    }

    /// Asks one node again and again: whether it is fit changes.
    fn ask(
        &self,
        node: NodeId,
        epoch: Epoch,
        answers: mpsc::Sender<(NodeId, Fitness)>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let context = self.context.clone();
        async move {
            loop {
                let request = Request::Promise { epoch };
                let answer =
                    context.transport.call(node.clone(), request, context.times.hold_up).await;
                if let Ok(Response::Fitness(fitness)) = answer
                    && answers.send((node.clone(), fitness)).await.is_err()
                {
                    return;
                }
                context.clock.sleep(context.times.renew / 4).await;
            }
        }
    }

    /// The timers, begun anew if `term` is new; `None` if a later one has begun.
    fn timers_of(&self, term: Term) -> Option<MutexGuard<'_, Timers>> {
        let mut timers = self.timers.lock();
        if term > timers.term {
            *timers = Timers { term, ..Timers::default() };
        }
        (timers.term == term).then_some(timers)
    }

    /// When the lease of `epoch` expires; in a new term a full ttl from now.
    fn expiry(&self, term: Term, epoch: Epoch) -> Option<BootTime> {
        let full = self.context.clock.now().after(self.context.times.ttl);
        let mut timers = self.timers_of(term)?;
        if timers.revoked >= epoch {
            return Some(BootTime(0));
        }
        let known = timers.expiry.filter(|(of, _)| *of == epoch).map(|(_, at)| at);
        timers.expiry = Some((epoch, known.unwrap_or(full)));
        timers.expiry.map(|(_, at)| at)
    }

    /// Whether it is news that the lease of `epoch` is over.
    fn revoke(&self, term: Term, epoch: Epoch) -> Option<bool> {
        let mut timers = self.timers_of(term)?;
        let first = timers.revoked < epoch;
        timers.revoke(epoch);
        Some(first)
    }

    /// If the lease of `epoch` is at its end, also if it was renewed until this moment: whether that
    /// is news.
    fn revoke_if_lapsed(&self, term: Term, epoch: Epoch) -> Option<bool> {
        let now = self.context.clock.now();
        let mut timers = self.timers_of(term)?;
        if timers.revoked >= epoch {
            return Some(false);
        }
        let lapsed = timers.expiry.is_some_and(|(of, at)| of == epoch && at <= now);
        lapsed.then(|| {
            timers.revoke(epoch);
            true
        })
    }
}

/// Answers that may still be on their way when there are enough: whoever chooses waits for as long again
/// as these took.
struct Late {
    began: BootTime,
    pause: Duration,
    /// Once there were enough.
    ends: Option<BootTime>,
}

impl Late {
    fn new(began: BootTime, pause: Duration) -> Self {
        Self { began, pause, ends: None }
    }

    fn may_come(&mut self, answers: &Answers, of: &[NodeId], now: BootTime) -> bool {
        let took = now.since(self.began).min(self.pause);
        let ends = *self.ends.get_or_insert(now.after(took));
        now < ends && of.iter().any(|node| !answers.contains_key(node))
    }

    /// When to choose again although no answer has come.
    fn until(&self, now: BootTime) -> BootTime {
        let pause = now.after(self.pause);
        self.ends.filter(|ends| *ends > now).map_or(pause, |ends| ends.min(pause))
    }
}

/// Why there is no primary yet.
#[derive(Default)]
struct Waiting {
    why: Option<(Why, BootTime)>,
    told: bool,
}

impl Waiting {
    /// Whether operators should hear of it: once for each reason, if it lasts.
    fn is_news(&mut self, why: &Why, now: BootTime, patience: Duration) -> bool {
        let since = match &self.why {
            Some((known, since)) if known == why => *since,
            _ => {
                *self = Self { why: Some((why.clone(), now)), told: false };
                now
            }
        };
        let lasts = now.since(since) >= patience;
        lasts && !std::mem::replace(&mut self.told, true)
    }
}

impl Timers {
    fn revoke(&mut self, epoch: Epoch) {
        self.revoked = self.revoked.max(epoch);
    }
}

/// What the answers are worth now: a node that has fallen silent is not fit, but what it held when it
/// promised it holds still.
fn current(answers: &Answers, now: BootTime) -> BTreeMap<NodeId, Fitness> {
    let worth = |(node, (fitness, at)): (&NodeId, &(Fitness, BootTime))| {
        let mut fitness = fitness.clone();
        if now.since(*at) > FRESH && fitness.unfit.is_none() {
            fitness.unfit = Some("it has fallen silent".to_owned());
        }
        (node.clone(), fitness)
    };
    answers.iter().map(worth).collect()
}

fn next_epoch(table: &Table) -> Epoch {
    Epoch(table.last_epoch.0 + 1)
}

/// Returns once the leadership is another one than `from`; `false` if it will never change.
async fn changed(leadership: &mut watch::Receiver<Leadership>, from: &Leadership) -> bool {
    leadership.wait_for(|now| now != from).await.is_ok()
}
