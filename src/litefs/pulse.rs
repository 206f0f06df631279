//! Whether LiteFS answers. One that hangs takes with it whatever touches its file system, without a word; so
//! it is asked, in both ways in which it answers, and started anew when it does not.
//!
//! A LiteFS that is busy, on a machine that is busy, may be slow to answer: it is seen to work.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::engine::Litefs;
use crate::process::openers::Stat;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(250);
/// For an answer.
const ANSWER: Duration = Duration::from_millis(500);
/// One that has been silent for so long, and does nothing, hangs.
const PATIENCE: Duration = Duration::from_secs(2);
/// One that has been silent for so long hangs, whatever it does.
const LONGEST: Duration = Duration::from_secs(30);
/// So many questions at least: we may have stood still ourselves.
const QUESTIONS: u32 = 3;
/// Of its time on a processor, in 1/100 s, what one that only waits needs between two questions.
const IDLE: u64 = 5;

/// What a process does, as far as can be seen from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    /// Its time on a processor so far, in 1/100 s.
    spent: u64,
    /// A thread of it runs, or would if there were a processor for it, or waits for a disk.
    at_work: bool,
}

impl Work {
    fn of(pid: u32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        let spent = stat.number(14)? + stat.number(15)?;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let works = |place: &Path| {
            Stat::read(place).and_then(|stat| stat.state()).is_some_and(|s| "RD".contains(s))
        };
        let at_work = threads.flatten().any(|thread| works(&thread.path()));
        Some(Self { spent, at_work })
    }
}

/// For how long it has been silent, and what it did meanwhile.
#[derive(Debug)]
struct Pulse {
    answered: Instant,
    unanswered: u32,
    work: Option<Work>,
}

impl Pulse {
    fn beats(now: Instant) -> Self {
        Self { answered: now, unanswered: 0, work: None }
    }

    /// A question was not answered. Whether it hangs; `work`: what it does, if that can be seen.
    fn hangs(&mut self, work: Option<Work>, now: Instant) -> bool {
        self.unanswered += 1;
        let before = std::mem::replace(&mut self.work, work);
        let works = work.is_some_and(|now| {
            now.at_work || before.is_none_or(|before| now.spent > before.spent + IDLE)
        });
        let silent = now.saturating_duration_since(self.answered);
        let patience = if works { LONGEST } else { PATIENCE };
        self.unanswered >= QUESTIONS && silent >= patience
    }
}

impl Litefs {
    pub(super) async fn watch_pulse(self: Arc<Self>) {
        let mut pulse = Pulse::beats(Instant::now());
        loop {
            sleep(PAUSE).await;
            let asked = self.watch.seen().borrow().live;
            if !asked || self.answers().await {
                pulse = Pulse::beats(Instant::now());
            } else if pulse.hangs(self.pid().and_then(Work::of), Instant::now()) {
                tracing::error!("LiteFS has not answered for {PATIENCE:?}: it hangs");
                self.hung.notify_one();
                self.kill("it hangs");
                pulse = Pulse::beats(Instant::now());
            }
        }
    }

    /// Whether it answers a request and a look into its file system. One that has ended, and refuses, does
    /// not hang.
    async fn answers(&self) -> bool {
        let (info, content) =
            tokio::join!(timeout(ANSWER, self.api.info()), timeout(ANSWER, self.content()));
        let late = |why: io::Error| why.kind() == io::ErrorKind::TimedOut;
        info.is_ok() && content.is_ok_and(|content| !content.is_err_and(late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(spent: u64, at_work: bool) -> Option<Work> {
        Some(Work { spent, at_work })
    }

    #[test]
    fn one_that_is_silent_and_does_nothing_hangs() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        for idle in [work(100, false), None] {
            let mut pulse = Pulse::beats(start);
            assert!(!pulse.hangs(idle, after(750)) && !pulse.hangs(idle, after(1500)));
            assert!(pulse.hangs(idle, after(2250)), "{idle:?}");
        }
        let mut stalled = Pulse::beats(start);
        assert!(!stalled.hangs(work(1, false), after(60_000)), "we stood still ourselves");
    }

    #[test]
    fn one_that_works_is_busy_but_not_for_ever() {
        let start = Instant::now();
        for busy in [|i| work(100 + 20 * i, false), |_| work(100, true)] {
            let mut pulse = Pulse::beats(start);
            for i in 1..39 {
                assert!(!pulse.hangs(busy(i), start + Duration::from_millis(750 * i)));
            }
            assert!(pulse.hangs(busy(41), start + LONGEST));
        }
    }

    #[test]
    fn a_stopped_process_is_seen_to_do_nothing() {
        let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        while Stat::of(process.id()).and_then(|stat| stat.state()) != Some('T') {
            std::thread::yield_now();
        }
        assert!(!Work::of(process.id()).unwrap().at_work);
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(Work::of(process.id()), None);
    }
}
