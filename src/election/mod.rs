//! `election: raft`: the primary is the holder of one replicated lease.
//!
//! Raft replicates the lease [`table`]; who leads Raft does not matter to the application, so a change
//! of Raft leader is invisible to it. The protocol, with the reason of each complication, is in
//! docs/election.md:
//!
//! | module | subject |
//! | --- | --- |
//! | [`lessor`] | the Raft leader's part: the timers of the lease, and filling it when it is vacant |
//! | [`departed`] | whose process has died, as its last will says |
//! | [`choice`] | who becomes primary. Pure |
//! | [`tenure`], [`keep_alive`] | the holder's part: from the grant to the end; renewing |
//! | [`majority`] | whose acknowledgements count, and what is promised by them |
//! | [`handover`] | a planned change of primary |
//! | [`view`], [`publisher`] | what a node knows of the cluster: pure; publishing it |
//! | [`failure`], [`watchers`] | handing over for as long as something fails this primary; what may do so |
//! | [`table`], [`times`] | what is agreed upon, without a clock; the lease in time. Pure |
//! | [`rpc`], [`loopback`], [`transport`] | what nodes ask each other; asking oneself; asking over the peer port |
//! | [`raft`] | the only user of openraft |
//!
//! Nothing here knows requests, processes or sockets: [`context::NodeCallbacks`] is the node around it.

pub(crate) mod choice;
pub mod clock;
pub mod context;
pub(crate) mod departed;
pub mod error;
pub mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod handover;
pub(crate) mod keep_alive;
pub(crate) mod lessor;
pub(crate) mod loopback;
pub(crate) mod majority;
pub mod publisher;
pub mod raft;
pub mod rpc;
pub mod table;
pub mod tenure;
pub mod times;
pub(crate) mod transport;
pub mod view;
pub mod watchers;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use self::clock::until;
use self::context::ElectionContext;
use self::error::ElectionError;
use self::lessor::Lessor;
use self::loopback::Loopback;
use self::rpc::{CallError, Fitness, Request, Response, Service};
use self::table::{Applied, Command, Life, Table, Term};
use self::tenure::{Order, Own, Patience, Tenure};
use crate::cluster::{Epoch, NodeId};
use crate::control::MemberChange;
use crate::engine::BoxFuture;

/// How long what is under way may hold up a handoff that an operator asked for.
pub const PATIENCE: Patience =
    Patience { services: Duration::from_secs(5), writes: Duration::from_secs(2) };
/// The same when something fails this primary: its clients wait already.
pub(crate) const HASTE: Patience = Patience { services: Duration::ZERO, ..PATIENCE };
/// How long an operator's request may travel to whoever can fulfil it, and take there: all that a
/// handoff waits for comes to 11 s.
const REQUEST: Duration = Duration::from_secs(12);
/// How long a change of the members may take: a new node has to be brought level first.
const MEMBERS: Duration = Duration::from_secs(60);
/// How many leaders may send on to the next one.
const LEADERS: usize = 5;

/// A node's part in the election. Cheap to clone.
#[derive(Clone)]
pub struct Election(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    context: Arc<ElectionContext>,
    lessor: Arc<Lessor>,
    tenure: Arc<Tenure>,
}

impl Election {
    /// Takes part once [`Election::run`] is polled.
    pub fn new(context: ElectionContext) -> Self {
        Self(Arc::new_cyclic(|parts: &Weak<Parts>| {
            let (own, local, remote) = (context.own.clone(), parts.clone(), context.transport);
            let transport = Arc::new(Loopback { own, local, remote });
            let context = Arc::new(ElectionContext { transport, ..context });
            let tenure = Arc::new(Tenure::new(context.clone()));
            let lessor = Arc::new(Lessor::new(context.clone()));
            Parts { context, lessor, tenure }
        }))
    }

    /// Takes part until it is dropped.
    pub async fn run(self) {
        let mut parts = JoinSet::new();
        let Parts { context, lessor, tenure } = (*self.0).clone();
        parts.spawn(async move { lessor.run().await });
        if !context.witness {
            parts.spawn(async move { tenure.run().await });
        }
        parts.join_all().await;
    }

    /// What was agreed upon, as far as this node has heard.
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.0.context.raft.table()
    }

    /// What this node is by itself.
    pub fn own(&self) -> watch::Receiver<Own> {
        self.0.tenure.own()
    }

    /// Why nobody is chosen, as long as this node is to choose a primary.
    pub fn waiting(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.lessor.waiting()
    }

    /// This run of its process.
    pub fn life(&self) -> &Life {
        &self.0.context.life
    }

    pub(crate) fn context(&self) -> &Arc<ElectionContext> {
        &self.0.context
    }

    /// Hands the lease over to `to`, whoever holds it now. With `force` also if its application does not
    /// answer, and while nobody holds the lease `to` gets it although others may have newer data. Done
    /// once `to` has it.
    ///
    /// # Errors
    ///
    /// See [`ElectionError`].
    pub async fn promote(&self, to: &NodeId, force: bool) -> Result<(), ElectionError> {
        let context = self.context();
        if !context.raft.members().borrow().data_nodes().contains(to) {
            return Err(ElectionError::NoDataNode(to.clone()));
        }
        let holder = self.table().borrow().holder.clone();
        let response = match holder {
            Some(holder) if holder.node == *to => return Ok(()),
            Some(_) if !force && self.app_is_down(to).await => return Err(ElectionError::AppDown),
            Some(holder) => {
                context.transport.call(holder.node, Request::Promote(to.clone()), REQUEST).await
            }
            None if force => self.force(to).await,
            None => return Err(ElectionError::NoPrimary),
        };
        granted(response?)
    }

    /// Asks the Raft leader, and the next one if it changes meanwhile.
    async fn force(&self, to: &NodeId) -> Result<Response, CallError> {
        let context = self.context();
        let mut leadership = context.raft.leadership();
        let end = context.clock.now().after(REQUEST);
        loop {
            let response = context.ask_leader(Request::Force(to.clone()), REQUEST).await;
            let Ok(Response::NotLeader(_)) = response else { return response };
            context.pause().await;
            tokio::select! {
                biased;
                () = until(&*context.clock, end) => return response,
                _ = leadership.wait_for(|now| now.leader.is_some()) => {}
            }
        }
    }

    /// As the holder: passes the lease to the fittest other node, once writes under way are done. It
    /// need not have an application that answers: that of a new release may wait for being the primary.
    ///
    /// # Errors
    ///
    /// When nobody is fit, or it did not go well; this node is then still the primary.
    pub async fn resign(&self, patience: Patience) -> Result<(), ElectionError> {
        let others = self.0.tenure.others_by_fitness().await;
        let (to, _) = others.into_iter().next().ok_or(ElectionError::NobodyFit)?;
        self.0.hand_over(to, patience).await
    }

    /// As the holder whose application is down: passes the lease to a node whose application answers.
    pub(crate) async fn pass_to_app(&self) -> Result<(), ElectionError> {
        let others = self.0.tenure.others_by_fitness().await;
        match others.into_iter().next() {
            Some((to, Fitness { app_up: true, .. })) => self.0.hand_over(to, HASTE).await,
            _ => Err(ElectionError::NoOtherApp),
        }
    }

    async fn app_is_down(&self, node: &NodeId) -> bool {
        let context = self.context();
        let asked =
            context.transport.call(node.clone(), Request::Fitness, context.times.renew).await;
        matches!(asked, Ok(Response::Fitness(Fitness { app_up: false, .. })))
    }

    /// Ends this node's tenure, if it holds the lease, and gives the lease back.
    pub(crate) async fn abdicate(&self) {
        let context = self.context();
        let mut own = self.own();
        let epoch = own.borrow().epoch;
        self.0.tenure.end_before(Epoch(epoch.0 + 1));
        // An error means that it is over already.
        let _ = own.wait_for(|own| !own.holding).await;
        let mine = |table: &Arc<Table>| {
            table.holder.as_ref().is_some_and(|holder| holder.node == context.own)
        };
        // After its ttl the lease is over anyway, and without a majority nobody hears of this.
        let mut table = self.table();
        tokio::select! {
            _ = table.wait_for(|table| !mine(table)) => {}
            () = context.clock.sleep(context.times.ttl) => {}
        }
    }

    /// This node's tenure of `epoch`, or an earlier one, has ended by itself: its engine is not the
    /// primary any more.
    pub(crate) fn engine_lost(&self, epoch: Epoch) {
        self.0.tenure.end_before(Epoch(epoch.0 + 1));
    }

    /// If this node leads Raft: has another voter lead. For a node that stops.
    pub(crate) async fn pass_leadership_on(&self) {
        let raft = &self.context().raft;
        if raft.leadership().borrow().ours
            && let Err(why) = raft.pass_leadership_on().await
        {
            tracing::debug!(%why, "this Raft leader stops without a successor");
        }
    }

    /// Changes who votes.
    ///
    /// # Errors
    ///
    /// See [`ElectionError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<(), ElectionError> {
        if let MemberChange::Remove { node } = &change {
            self.relieve(node).await?;
        }
        let context = self.context();
        let request = || Request::Members(change.clone());
        let ask_leader = async || {
            context.until_somebody_leads().await;
            context.ask_leader(request(), MEMBERS).await
        };
        let mut response = ask_leader().await;
        let mut again = false;
        // A leader that is to go passes that on first. Who leads then may be the primary, which passes it
        // back to the same node after a while: so it is asked now, not when the operator tries again.
        for _ in 0..LEADERS {
            let Ok(Response::NotLeader(next)) = response else { break };
            again = true;
            // It says so once it has heard what was agreed upon before.
            context.pause().await;
            response = match next {
                Some(leader) => context.transport.call(leader, request(), MEMBERS).await,
                None => ask_leader().await,
            };
        }
        match (granted(response?), &change) {
            // The first leader has removed it, and could not say so any more.
            (Err(ElectionError::Refused(_)), MemberChange::Remove { node })
                if again && !context.raft.members().borrow().contains(node) =>
            {
                Ok(())
            }
            (changed, _) => changed,
        }
    }

    /// Has another node take over from one that is to be removed, if that is the primary.
    async fn relieve(&self, node: &NodeId) -> Result<(), ElectionError> {
        let holds =
            |table: &Table| table.holder.as_ref().is_some_and(|holder| holder.node == *node);
        if !holds(&self.table().borrow()) {
            return Ok(());
        }
        let others = self.context().raft.members().borrow().data_nodes();
        let mut why = ElectionError::NobodyFit;
        for next in others.into_iter().filter(|other| other != node) {
            match self.promote(&next, false).await {
                Ok(()) => {
                    // Members are changed while there is a primary, and the next one has hardly begun.
                    self.until_another_than(node).await;
                    return Ok(());
                }
                Err(refused) => why = refused,
            }
        }
        Err(ElectionError::Refused(format!(
            "{node} is the primary, and nobody can take over from it: {why}; members are removed once \
             another node is (`litepilot promote NODE`)"
        )))
    }

    async fn until_another_than(&self, node: &NodeId) {
        let mut tables = self.table();
        let another = |table: &Arc<Table>| table.primary().is_some_and(|now| now.node != *node);
        tokio::select! {
            _ = tables.wait_for(another) => {}
            () = self.context().clock.sleep(PATIENCE.writes) => {}
        }
    }

    /// Has a command agreed upon.
    ///
    /// # Errors
    ///
    /// Why it was not, or why it came to nothing.
    pub(crate) async fn agree(&self, command: Command) -> Result<(), String> {
        match self.context().propose(command, REQUEST).await? {
            Applied::Done => Ok(()),
            Applied::Rejected(why) => Err(why),
        }
    }
}

impl Parts {
    async fn hand_over(&self, to: NodeId, patience: Patience) -> Result<(), ElectionError> {
        let (reply, result) = oneshot::channel();
        let order = Order { to, patience, reply };
        self.tenure.orders().try_send(order).map_err(|_| ElectionError::Busy)?;
        result.await.unwrap_or(Err(ElectionError::NotPrimary))
    }

    /// `node` has died: its lease is over at once, and if it led Raft somebody else stands for that.
    fn outlive(&self, node: NodeId, life: Life, term: Term) -> Response {
        let raft = self.context.raft.clone();
        if self.lessor.departed.add(node.clone(), life.clone()) {
            tracing::info!(%node, ?life, "that node's process has died, as its last will says");
        }
        tokio::spawn(async move { raft.succeed(&node, term).await });
        Response::Done
    }

    async fn serve(self, from: NodeId, request: Request) -> Response {
        match request {
            Request::Raft(message) => {
                Response::Raft(self.context.raft.answer(&from, message).await)
            }
            Request::Promise { epoch } => self.tenure.promise(epoch).await,
            Request::Fitness => self.tenure.fitness().await,
            Request::Granted(holder) => {
                self.tenure.granted(holder);
                Response::Done
            }
            Request::TakeOver { epoch, at } => self.tenure.take_over(from, epoch, at).await,
            Request::Yield { epoch } => self.tenure.yield_to(&from, epoch),
            Request::Promote(to) => done(self.hand_over(to, PATIENCE).await),
            Request::Ended { life, term } => self.outlive(from, life, term),
            Request::Electorate(next) => self.tenure.majority.expect(next).await,
            to_leader => self.lessor.answer(&from, to_leader).await,
        }
    }
}

/// For this node itself, member or not: a node that is being removed still has to give its lease back.
impl Service for Parts {
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Response> {
        Box::pin(self.clone().serve(from, request))
    }
}

/// For other nodes. Raft looks by itself at who asks.
impl Service for Election {
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Response> {
        let members = self.context().raft.members();
        if !matches!(request, Request::Raft(_)) && !members.borrow().contains(&from) {
            let why = format!("{from} is no member of this cluster");
            return Box::pin(std::future::ready(Response::Refused(why)));
        }
        self.0.answer(from, request)
    }
}

fn done(result: Result<(), ElectionError>) -> Response {
    result.map_or_else(|why| Response::Refused(why.to_string()), |()| Response::Done)
}

fn granted(response: Response) -> Result<(), ElectionError> {
    match response {
        Response::Done => Ok(()),
        Response::Refused(why) => Err(ElectionError::Refused(why)),
        Response::NotLeader(_) => Err(ElectionError::LeaderChanged),
        _ => Err(ElectionError::UnexpectedResponse),
    }
}
