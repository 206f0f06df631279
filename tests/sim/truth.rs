//! What an observer outside of the cluster knows, and what must hold in its eyes (`docs/election.md`).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard};

use litepilot::cluster::{Epoch, NodeId};
use litepilot::election::table::Table;
use litepilot::txid::EpochTxid;

use super::engine::Entry;

/// Tokens that clients still carry.
const TOKENS: usize = 24;

/// The observer. Clones are the same one.
#[derive(Clone, Default)]
pub struct Truth(Arc<Mutex<Seen>>);

#[derive(Default)]
pub struct Seen {
    /// In true milliseconds.
    pub now: u64,
    /// Every granted epoch, with whom it was granted to.
    pub granted: BTreeMap<Epoch, (NodeId, String)>,
    /// Writes that were acknowledged as held by a majority.
    pub majority: Vec<u64>,
    /// The newest acknowledged writes.
    pub tokens: VecDeque<(u64, EpochTxid)>,
    /// Whose machine stood still and did not know it: it may believe too long in its claims to these
    /// and earlier epochs. There only `ack` protects.
    excused: BTreeMap<String, Epoch>,
    /// Who has begun which epoch since the table was last looked at.
    begun: Vec<(NodeId, Epoch)>,
    /// What happened how often.
    pub counts: BTreeMap<&'static str, u64>,
    /// The operator gave data up.
    pub forced: bool,
    pub violation: Option<String>,
    last_id: u64,
    trace: Vec<String>,
    hash: u64,
    pub print: bool,
}

impl Truth {
    pub fn see(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    pub fn note(&self, who: &str, text: &str) {
        self.see().note(who, text);
    }
}

impl Seen {
    pub fn note(&mut self, who: &str, text: &str) {
        let mut line = String::new();
        let _ = write!(line, "{:>6} ms  {who}: {text}", self.now);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.print {
            println!("{line}");
        }
        self.trace.push(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether something with this text in it has happened.
    pub fn saw(&self, text: &str) -> bool {
        self.trace.iter().any(|line| line.contains(text))
    }

    pub fn excuse(&mut self, who: &str) {
        let newest = self.newest();
        self.excused.insert(who.to_owned(), newest);
    }

    pub fn is_excused(&self, who: &str, epoch: Epoch) -> bool {
        self.excused.get(who).is_some_and(|last| epoch <= *last)
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.clone()
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn broken(&mut self, what: String) {
        self.note("VIOLATION", &what);
        self.violation.get_or_insert(what);
    }

    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub fn newest(&self) -> Epoch {
        self.granted.keys().next_back().copied().unwrap_or_default()
    }

    /// A node has applied this.
    pub fn table(&mut self, who: &str, table: &Table) {
        let Some(holder) = &table.holder else { return };
        let granted = (holder.node.clone(), holder.session.0.clone());
        match self.granted.get(&holder.epoch) {
            None if holder.epoch <= self.newest() && !self.granted.is_empty() => {
                // Nobody had applied it while it was the newest: a node that was behind.
                self.granted.insert(holder.epoch, granted);
            }
            None => {
                self.note(who, &format!("knows first that {holder} was granted the lease"));
                self.count("epochs granted");
                self.granted.insert(holder.epoch, granted);
            }
            Some(known) if *known == granted => {}
            Some(known) => {
                let text =
                    format!("epoch {} has two holders: {known:?}, {granted:?}", holder.epoch);
                self.broken(text);
            }
        }
    }

    /// An engine has committed.
    pub fn committed(&mut self, who: &str, id: u64, at: EpochTxid, by: &str) {
        self.count("commits");
        self.note(who, &format!("{by} commits w{id} at {at}"));
        let newest = self.newest();
        if at.epoch < newest && !self.is_excused(who, at.epoch) {
            self.broken(format!("1b: {who} commits w{id} at {at}, and epoch {newest} was granted"));
        }
    }

    /// A client was answered.
    pub fn acknowledged(&mut self, who: &str, id: u64, at: EpochTxid, majority: bool) {
        self.count(if majority { "writes acknowledged by a majority" } else { "writes answered" });
        let level = if majority { "majority" } else { "primary" };
        self.note(who, &format!("answers w{id} at {at} ({level})"));
        let newest = self.newest();
        if at.epoch < newest && !self.is_excused(who, at.epoch) {
            self.broken(format!("1c: {who} answers w{id} at {at}, and epoch {newest} was granted"));
        }
        if majority {
            self.majority.push(id);
        }
        if self.tokens.len() == TOKENS {
            self.tokens.pop_front();
        }
        self.tokens.push_back((id, at));
    }

    /// Once the tables are known: nobody has begun what he was not granted.
    pub fn check_begun(&mut self) {
        for (who, epoch) in std::mem::take(&mut self.begun) {
            if self.granted.get(&epoch).is_none_or(|(node, _)| *node != who) {
                self.broken(format!("{who} begins epoch {epoch}, which nobody granted it"));
            }
        }
    }

    /// An engine begins to be a primary's.
    pub fn begins(&mut self, who: &NodeId, epoch: Epoch, head: &Option<Arc<Entry>>) {
        self.note(who.as_str(), &format!("begins epoch {epoch} with {}", show(head)));
        self.begun.push((who.clone(), epoch));
        if self.forced {
            return;
        }
        let held: std::collections::BTreeSet<u64> = Entry::ids(head).collect();
        let lost: Vec<u64> =
            self.majority.iter().filter(|id| !held.contains(id)).copied().collect();
        if !lost.is_empty() {
            self.broken(format!(
                "4: {who} begins epoch {epoch} without {lost:?}, acknowledged by a majority"
            ));
        }
    }
}

pub fn show(head: &Option<Arc<Entry>>) -> String {
    match head {
        None => "nothing".to_owned(),
        Some(entry) => format!("{} writes up to w{} ({})", entry.count, entry.id, entry.checksum),
    }
}
