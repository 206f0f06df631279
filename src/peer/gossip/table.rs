//! What was last heard from whom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::info;

use super::report::{Line, Report};
use crate::cluster::NodeId;

/// Every peer that was ever heard, by name.
pub type Peers = BTreeMap<NodeId, Heard>;

/// The last that was heard from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub(crate) report: Report,
    /// When that arrived here.
    pub(crate) at: Instant,
    /// It was heard within the last second.
    pub reachable: bool,
    boot: u64,
    sequence: u64,
    /// The newest connection on which this life of the peer spoke.
    link: u64,
}

impl Heard {
    /// A report that arrived at `at` over the peer's first connection.
    pub fn new(report: Report, at: Instant) -> Self {
        Self { report, at, reachable: true, boot: 0, sequence: 0, link: 0 }
    }

    /// Tells one life of the peer from another.
    pub(crate) fn life(&self) -> u64 {
        self.boot
    }

    /// Whether a line is news. A delayed one, from a connection that stood still, is not.
    fn is_older_than(&self, link: u64, line: &Line) -> bool {
        // Lives follow each other, so a new one speaks on a connection younger than all of the old.
        if line.boot == self.boot { line.sequence > self.sequence } else { link > self.link }
    }
}

/// The table's one owner.
pub(crate) struct Table(watch::Sender<Peers>);

impl Table {
    /// Nobody was heard yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Peers::new()))
    }

    /// For those who read it.
    pub(crate) fn watch(&self) -> watch::Receiver<Peers> {
        self.0.subscribe()
    }

    /// Takes a line that came over connection number `link`.
    pub(crate) fn heard(&self, link: u64, mut line: Line, now: Instant) {
        self.0.send_if_modified(move |peers| {
            let known = peers.get(&line.report.node);
            if known.is_some_and(|known| !known.is_older_than(link, &line)) {
                return false;
            }
            if known.is_none_or(|known| !known.reachable) {
                info!(peer = %line.report.node, role = line.report.role.as_str(), "a peer is heard");
            }
            let link = match known {
                Some(known) if known.boot == line.boot => known.link.max(link),
                _ => link,
            };
            // Left out: it is as before.
            if line.report.learned.is_none()
                && let Some(known) = known.filter(|known| known.boot == line.boot)
            {
                line.report.learned.clone_from(&known.report.learned);
            }
            let (boot, sequence) = (line.boot, line.sequence);
            let heard = Heard { report: line.report, at: now, reachable: true, boot, sequence, link };
            peers.insert(heard.report.node.clone(), heard);
            true
        });
    }

    /// Marks whoever has been silent for `silence` as unreachable, for good.
    pub(crate) async fn notice_silence(&self, silence: Duration) {
        let mut peers = self.watch();
        loop {
            let first = peers
                .borrow_and_update()
                .values()
                .filter(|heard| heard.reachable)
                .map(|heard| heard.at + silence)
                .min();
            match first {
                // Who speaks meanwhile only moves its own end of patience to a later time.
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => {
                    // The sender is `self`: it is there.
                    let _ = peers.changed().await;
                }
            }
            self.mark_silent(Instant::now(), silence);
        }
    }

    fn mark_silent(&self, now: Instant, silence: Duration) {
        self.0.send_if_modified(|peers| {
            let mut modified = false;
            for (peer, heard) in peers.iter_mut() {
                if heard.reachable && heard.at + silence <= now {
                    heard.reachable = false;
                    modified = true;
                    info!(%peer, "a peer is unreachable");
                }
            }
            modified
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, Role};

    const SILENCE: Duration = Duration::from_secs(1);

    fn line(boot: u64, sequence: u64) -> Line {
        let mut report = Report::new("a".parse().unwrap(), Role::Primary);
        report.epoch = Epoch(boot * 100 + sequence);
        Line { boot, sequence, report }
    }

    fn epoch_of_a(table: &Table) -> u64 {
        table.watch().borrow()[&"a".parse::<NodeId>().unwrap()].report.epoch.0
    }

    #[test]
    fn a_delayed_report_changes_nothing() {
        let table = Table::new();
        let now = Instant::now();
        table.heard(1, line(1, 5), now);
        table.heard(2, line(1, 4), now);
        assert_eq!(epoch_of_a(&table), 105);
        table.heard(1, line(1, 6), now);
        assert_eq!(epoch_of_a(&table), 106);
    }

    #[test]
    fn a_new_life_replaces_the_old_one_for_good() {
        let table = Table::new();
        let now = Instant::now();
        table.heard(1, line(9, 500), now);
        table.heard(2, line(9, 501), now);
        // The clock of the peer went back, its numbers start anew.
        table.heard(3, line(8, 1), now);
        assert_eq!(epoch_of_a(&table), 801);
        table.heard(2, line(9, 502), now);
        assert_eq!(epoch_of_a(&table), 801);
    }

    #[test]
    fn what_is_left_out_is_as_before() {
        let table = Table::new();
        let now = Instant::now();
        let learned =
            || table.watch().borrow()[&"a".parse::<NodeId>().unwrap()].report.learned.clone();
        let mut first = line(1, 1);
        first.report.learned = Some(Default::default());
        table.heard(1, first, now);
        table.heard(1, line(1, 2), now);
        assert!(learned().is_some());
        table.heard(2, line(2, 1), now);
        assert!(learned().is_none(), "another life has said nothing yet");
    }

    #[test]
    fn silence_makes_unreachable_and_a_word_reachable_again() {
        let table = Table::new();
        let peers = table.watch();
        let reachable = || peers.borrow().values().all(|heard| heard.reachable);
        let now = Instant::now();
        table.heard(1, line(1, 1), now);
        table.mark_silent(now + SILENCE / 2, SILENCE);
        assert!(reachable());
        table.mark_silent(now + SILENCE, SILENCE);
        assert!(!reachable());
        table.heard(1, line(1, 2), now + SILENCE);
        assert!(reachable());
    }
}
