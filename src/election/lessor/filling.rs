//! Fills a vacant lease: has everybody promise the next epoch, and chooses its primary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::super::choice::{self, Situation, Verdict, Why};
use super::super::clock::until;
use super::super::rpc::{Fitness, Request, Response};
use super::super::table::{Applied, Command, Table};
use super::Lessor;
use crate::claim::BootTime;
use crate::cluster::{Epoch, NodeId};
use crate::publish;

/// An answer to `Prepare` says for so long whether a node is fit; what it holds it says for good.
const FRESH: Duration = Duration::from_secs(1);

/// How long a node that an operator wants may take to promise, and to be granted the lease. Its LiteFS may
/// just be starting anew, as after a reset of LiteFS' cluster ID.
const FORCED: Duration = Duration::from_secs(10);

/// The answers to `Prepare`, with the time of each.
type Answers = BTreeMap<NodeId, (Fitness, BootTime)>;

impl Lessor {
    /// The operator wants `node` as primary although others may have more.
    pub(super) async fn force(&self, node: NodeId) -> Response {
        let mut leaderships = self.context.raft.leadership();
        let leadership = leaderships.borrow_and_update().clone();
        if !leadership.ours {
            return Response::NotLeader(leadership.leader);
        }
        let mut tables = self.context.raft.table();
        let table = tables.borrow_and_update().clone();
        match &table.holder {
            // A former leader was asked, and has granted it.
            Some(holder) if holder.node == node => return Response::Done,
            Some(holder) => {
                return Response::Refused(format!("{holder} is primary: promote without force"));
            }
            None => {}
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
            _ = leaderships.wait_for(|now| *now != leadership) => {
                // The next leader has to be asked anew; should this one lead again, it would be a surprise.
                self.forced.send_replace(None);
                return Response::NotLeader(None);
            }
        };
        match chosen {
            Ok(Some(holder)) if holder.node == node => Response::Done,
            Ok(_) => Response::Refused("another node was faster".to_owned()),
            Err(_) => Response::NotLeader(None),
        }
    }

    /// The lease is vacant: has everybody promise the next epoch, and chooses its primary. Returns
    /// once the table has changed.
    pub(super) async fn fill(&self, table: &Table, tables: &mut watch::Receiver<Arc<Table>>) {
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
        let mut refusals = BTreeMap::new();
        let mut held_up: Option<BootTime> = None;
        let mut waiting = Waiting::default();
        let mut late = Late::new(self.context.clock.now(), self.context.times.pause);
        loop {
            tokio::select! {
                biased;
                _ = tables.changed() => return,
                _ = members.changed() => return,
                _ = forced.changed() => {}
                Some((node, answer)) = incoming.recv() => match answer {
                    Ok(fitness) => drop(answers.insert(node, (fitness, self.context.clock.now()))),
                    Err(why) => drop(refusals.insert(node, why)),
                },
                () = until(&*self.context.clock, late.until(self.context.clock.now())) => {}
            }
            let now = self.context.clock.now();
            if nobody_has_the_id(table, &electorate, &answers, now) {
                return self.forget_the_id().await;
            }
            let wanted = forced.borrow().clone().filter(|(of, _)| *of == epoch).map(|(_, n)| n);
            let mut current = current(&answers, now);
            self.departed.mark(&mut current);
            let situation = Situation {
                electorate: &electorate,
                counted: &table.electorates,
                unheard: &table.unheard,
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
                    let explained = why.explained(&refusals);
                    if waiting.is_news(&why, now, self.context.times.ttl) {
                        self.context.callbacks.event("no-primary", explained.clone());
                    }
                    publish::if_changed(&self.waiting, Some(explained.into()));
                }
            }
        }
    }

    /// Else nobody would ever become primary, since none of them may without it.
    async fn forget_the_id(&self) {
        tracing::warn!(
            "LiteFS' cluster ID was agreed upon, and the LiteFS that made it has ended before it noted \
             that: another one is made"
        );
        if let Err(why) = self.context.raft.propose(Command::ResetLitefsId).await {
            self.try_again("cannot forget LiteFS' cluster ID; trying again", &why).await;
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

    /// Asks one node again and again: whether it is fit changes. An error is what it said that it cannot tell by.
    fn ask(
        &self,
        node: NodeId,
        epoch: Epoch,
        answers: mpsc::Sender<(NodeId, Result<Fitness, String>)>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let context = self.context.clone();
        async move {
            loop {
                let request = Request::Promise { epoch };
                let answer =
                    context.transport.call(node.clone(), request, context.times.hold_up).await;
                let answer = match answer {
                    Ok(Response::Fitness(fitness)) => Some(Ok(fitness)),
                    Ok(Response::Refused(why)) => Some(Err(why)),
                    _ => None,
                };
                if let Some(answer) = answer
                    && answers.send((node.clone(), answer)).await.is_err()
                {
                    return;
                }
                context.clock.sleep(context.times.renew / 4).await;
            }
        }
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

/// Whether all nodes lack the cluster ID that LiteFS of one of them made, and no primary ever took writes
/// under it.
fn nobody_has_the_id(table: &Table, of: &[NodeId], answers: &Answers, now: BootTime) -> bool {
    let lacks = |node| {
        let answer = answers.get(node);
        answer.is_some_and(|(fitness, at)| fitness.lacks_litefs_id && now.since(*at) <= FRESH)
    };
    table.litefs_id.is_some() && table.starts.is_empty() && of.iter().all(lacks)
}

fn next_epoch(table: &Table) -> Epoch {
    Epoch(table.last_epoch.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::EpochStart;
    use crate::txid::Position;

    /// LiteFS was killed between having its ID agreed upon and noting it: a new cluster stood still for ever.
    #[test]
    fn an_id_that_no_litefs_has_is_forgotten_as_long_as_nothing_was_written() {
        let nodes = ["a", "b"].map(|name| name.parse::<NodeId>().unwrap());
        let (now, late) = (BootTime(0), BootTime(0).after(2 * FRESH));
        let answers = |lacking: [bool; 2]| -> Answers {
            let answer = |(node, lacks_litefs_id): (&NodeId, bool)| {
                (node.clone(), (Fitness { lacks_litefs_id, ..choice::tests::fitness(0, 0) }, now))
            };
            nodes.iter().zip(lacking).map(answer).collect()
        };
        let mut table = Table { litefs_id: Some("LFSC1".to_owned()), ..Table::default() };
        let is_so =
            |table: &Table, answers: &Answers, at| nobody_has_the_id(table, &nodes, answers, at);
        assert!(is_so(&table, &answers([true, true]), now));
        assert!(!is_so(&table, &answers([true, false]), now), "one may have it");
        assert!(!is_so(&table, &answers([true, true]), late), "one may have got it since");
        let one = answers([true, true]).into_iter().take(1).collect();
        assert!(!is_so(&table, &one, now), "one may have it");
        assert!(!is_so(&Table::default(), &answers([true, true]), now));
        table.starts.push_back(EpochStart { epoch: Epoch(1), held: Position::default() });
        assert!(!is_so(&table, &answers([true, true]), now), "writes may have been taken under it");
    }

    #[test]
    fn an_answer_that_is_just_behind_is_waited_for_as_long_as_the_others_took() {
        let ms = |ms| BootTime(0).after(Duration::from_millis(ms));
        let nodes = ["a", "b"].map(|name| name.parse::<NodeId>().unwrap());
        let mut late = Late::new(ms(0), Duration::from_millis(50));
        assert!(late.may_come(&Answers::new(), &nodes, ms(20)));
        assert_eq!(late.until(ms(20)), ms(40));
        assert!(late.may_come(&Answers::new(), &nodes, ms(39)));
        assert!(!late.may_come(&Answers::new(), &nodes, ms(40)));
        assert!(!late.may_come(&Answers::new(), &[], ms(21)), "all have answered");
        let mut late = Late::new(ms(0), Duration::from_millis(50));
        assert!(late.may_come(&Answers::new(), &nodes, ms(900)));
        assert_eq!(late.until(ms(900)), ms(950), "not for as long as they took");
    }
}
