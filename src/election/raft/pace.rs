//! Sends a leader's heartbeats, and lets openraft sleep while there is nothing to be seen.
//!
//! openraft looks at its clock five times for each heartbeat, as leader for when the next one is
//! due, or as follower for how long the last one is ago: more than a third of an idle node's wake-ups. So
//! it looks only while nobody leads, as far as this node has heard.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::lateness::Lateness;
use super::shared::RaftNode;
use super::timers::Timers;
use super::types::Openraft;

/// Runs for as long as `core` does.
pub(crate) async fn pace(shared: &RaftNode, core: &Openraft) {
    let heartbeat = Timers::of(shared.setup.ttl).heartbeat;
    let mut lateness = Lateness::new(heartbeat * 6);
    let mut leadership = shared.leadership.subscribe();
    loop {
        let ours = leadership.borrow_and_update().ours;
        // This looks once per heartbeat, so openraft is awake again 2.5 of them after the last one:
        // before a follower may ask for votes.
        let silence = heartbeat * 3 / 2 + lateness.get() * 2;
        core.runtime_config().tick(!ours && !shared.has_heard(silence));
        if ours && core.trigger().heartbeat().await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            real = waited(heartbeat) => lateness.note(heartbeat, real),
        }
    }
}

/// Waits for so long, and says how long that was.
async fn waited(pause: Duration) -> Duration {
    let began = Instant::now();
    sleep(pause).await;
    began.elapsed()
}
