//! The thread on which everything runs but the data plane.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;

use super::ports::Ports;
use super::start::Start;
use crate::process::child::ChildState;

/// What still waits for a disk then is left behind: a directory of another machine's may hang for ever.
const HANGING: Duration = Duration::from_secs(5);

pub(super) struct ControlThread {
    pub(super) thread: JoinHandle<()>,
    /// Its sender goes when the thread ends.
    pub(super) alive: watch::Receiver<()>,
    /// The application, if it is ours.
    pub(super) app: Option<watch::Receiver<ChildState>>,
}

impl ControlThread {
    /// Returns once the node has started, or could not.
    pub(super) fn spawn(start: Start, ports: Ports) -> io::Result<Self> {
        let (report, started) = std::sync::mpsc::channel();
        let (life, alive) = watch::channel(());
        let control = move || {
            let _life = life;
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(why) => return drop(report.send(Err(why))),
            };
            runtime.block_on(async {
                match start.run(ports).await {
                    Ok(running) => {
                        let data = running.data.as_ref();
                        let _ = report.send(Ok(data.and_then(|data| data.programs.app())));
                        running.run().await;
                    }
                    Err(why) => drop(report.send(Err(why))),
                }
            });
            runtime.shutdown_timeout(HANGING);
        };
        let thread = thread::Builder::new().name("control".into()).spawn(control)?;
        let app = started.recv().map_err(io::Error::other)??;
        Ok(Self { thread, alive, app })
    }
}
