//! One gossip connection: the sending and the receiving half.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::SILENCE;
use super::report::{Line, Report};
use crate::cluster::NodeId;
use crate::lines::JsonLines;

/// Bytes of the longest line.
const MAX_LINE: usize = 16 * 1024;
/// Between two reports, however fast things change: only the latest matters.
const AT_MOST_EACH: Duration = Duration::from_millis(10);
/// Between two reports, even if nothing changes.
const AT_LEAST_EACH: Duration = Duration::from_millis(250);

/// Sends this node's reports until the connection ends, or this node does. All connections with the same
/// `origin` show their signs of life at the same time: so a node that has nothing else to do wakes up
/// once.
pub(crate) async fn send(
    mut writer: impl AsyncWrite + Unpin,
    mut own: watch::Receiver<Report>,
    boot: u64,
    sequence: &AtomicU64,
    origin: Instant,
) -> io::Result<()> {
    // What was said of learned routes on this connection.
    let mut said = None;
    loop {
        // The number before the report: a report with a higher number is never the older one.
        let sequence = sequence.fetch_add(1, Ordering::Relaxed);
        let mut report = own.borrow_and_update().clone();
        if report.learned == said {
            report.learned = None;
        } else {
            said.clone_from(&report.learned);
        }
        let line = Line { boot, sequence, report }.encode()?;
        let sent = Instant::now();
        timeout(SILENCE, async {
            writer.write_all(&line).await?;
            writer.flush().await
        })
        .await??;
        match timeout_at(next_sign(origin, sent), own.changed()).await {
            Ok(Ok(())) => sleep_until(sent + AT_MOST_EACH).await,
            Ok(Err(_)) => return Ok(()),
            Err(_) => {}
        }
    }
}

/// The first sign of life after `now`.
fn next_sign(origin: Instant, now: Instant) -> Instant {
    let into = now.duration_since(origin).as_nanos() % AT_LEAST_EACH.as_nanos();
    now + AT_LEAST_EACH - Duration::from_nanos(into as u64)
}

/// Passes on what `peer` reports until the connection ends or is silent for a second.
pub(crate) async fn receive(
    reader: impl AsyncRead + Unpin,
    peer: &NodeId,
    mut heard: impl FnMut(Line),
) -> io::Result<()> {
    let mut lines = JsonLines::of_at_most(MAX_LINE, BufReader::new(reader));
    while let Some(line) = timeout(SILENCE, lines.next::<Line>()).await?? {
        if line.report.node != *peer {
            let why = "it reports for another node";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        heard(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;
    use tokio::io::AsyncBufReadExt;

    fn line(node: &str) -> Vec<u8> {
        let report = Report::new(node.parse().unwrap(), Role::Replica);
        Line { boot: 1, sequence: 1, report }.encode().unwrap()
    }

    async fn received(bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut count = 0;
        let end = receive(bytes, &"a".parse().unwrap(), |_| count += 1).await;
        (count, end)
    }

    #[tokio::test]
    async fn only_whole_lines_of_the_peer_itself_count() {
        let good = line("a");
        let (count, end) = received(&[&good[..], &good].concat()).await;
        assert_eq!((count, end.is_ok()), (2, true));
        let endless = vec![b'{'; 1 << 20];
        for bad in [&line("b")[..], b"{}\n", &good[..good.len() - 1], &endless] {
            let (count, end) = received(&[&good[..], bad].concat()).await;
            assert_eq!((count, end.is_ok()), (1, false));
        }
    }

    #[test]
    fn signs_of_life_come_at_the_same_times_on_all_connections() {
        let origin = Instant::now();
        let millis = |n| origin + Duration::from_millis(n);
        assert_eq!(next_sign(origin, origin), millis(250));
        assert_eq!(next_sign(origin, millis(249)), millis(250));
        assert_eq!(next_sign(origin, millis(250)), millis(500));
        assert_eq!(next_sign(origin, millis(86_400_001)), millis(86_400_250));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_is_said_when_it_has_changed() {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (own, reports) = watch::channel(Report::new("a".parse().unwrap(), Role::Primary));
        let sequence = AtomicU64::new(1);
        let mut lines = BufReader::new(theirs).lines();
        let sending = send(ours, reports, 1, &sequence, Instant::now());
        let reading = async {
            let mut said = async || {
                let line = lines.next_line().await.unwrap().unwrap();
                serde_json::from_str::<Line>(&line).unwrap().report.learned.is_some()
            };
            assert!(!said().await);
            own.send_modify(|report| report.learned = Some(Default::default()));
            assert!(said().await);
            assert!(!said().await, "a sign of life");
            own.send_modify(|report| report.writable = true);
            assert!(!said().await, "it is the same");
        };
        tokio::select! {
            sent = sending => panic!("{sent:?}"),
            () = reading => {}
        }
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let end = receive(ours, &"a".parse().unwrap(), |_| {}).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (_own, reports) = watch::channel(Report::new("a".parse().unwrap(), Role::Replica));
        let end = send(ours, reports, 1, &AtomicU64::new(1), Instant::now()).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
