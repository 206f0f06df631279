//! LiteFS as our child: started, watched, started again when it ends, stopped when told, its mount
//! removed before the next start and in the end.
//!
//! One task owns it; others hold a [`Supervisor`]. Unlike an application it is prepared for before each
//! start ([`preflight`]), has ended well by exit code 99, and leaves a dead mount when it is killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::api::Api;
use super::output::{self, Heard};
use super::version::{self, Verdict};
use super::{mount, preflight};
use crate::config::Litefs;
use crate::process::backoff::Backoff;
use crate::process::guard::Guard;
use crate::process::hook::{self, HookError};
use crate::process::running::{End, Process};
use crate::process::spawn::{self, Launch};

/// "Node lost write access during transaction": LiteFS, demoted in the middle of a commit, cannot tell
/// SQLite any more. It recovers when it is started again.
const LOST_WRITE_ACCESS: i32 = 99;
/// Quick at first, since held requests wait for a few seconds only.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(10));
/// Before it is started again after that.
const BREATH: Duration = Duration::from_millis(20);
/// Between two looks at whether a LiteFS that was started is ready.
const LOOK: Duration = Duration::from_millis(10);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// For `litefs version`, on a machine that has much else to do: one that is killed has only added to that.
const VERSION: Duration = Duration::from_secs(30);

/// What a LiteFS is started with.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Binary, mount, data, port.
    pub litefs: Litefs,
    /// The rendered `litefs.yml`.
    pub file: PathBuf,
    /// Who kills it when we cannot.
    pub guard: Option<Guard>,
    /// It has to mount its file system. False only for a stand-in of tests that has none.
    pub fuse: bool,
}

/// A LiteFS' state, as published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Its process id while it runs.
    pub(crate) pid: Option<u32>,
    /// Starts after the first, failed ones included.
    pub(crate) restarts: u64,
    /// It is mounted, and answers.
    pub(crate) ready: bool,
    /// Why it does not run, and what to do.
    pub(crate) trouble: Option<String>,
    /// It was stopped, for good.
    pub(crate) stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Order {
    Run,
    Stop,
}

/// A handle to a LiteFS. Dropping it stops LiteFS, as [`Supervisor::stop`] does.
pub(crate) struct Supervisor {
    state: watch::Receiver<State>,
    order: watch::Sender<Order>,
    /// Its process group, to kill at once.
    kill: watch::Sender<&'static str>,
    mounted: watch::Receiver<bool>,
    heard: Heard,
}

/// Starts LiteFS in a task of the current runtime, and keeps it running.
pub(crate) fn start(spec: Spec) -> Supervisor {
    let (publish, state) = watch::channel(State::default());
    let (order, orders) = watch::channel(Order::Run);
    let (kill, kills) = watch::channel("");
    let (mount, mounted) = watch::channel(false);
    let heard = Heard::default();
    let to = heard.clone();
    let task = SupervisorTask { spec, publish, mount, orders, kills, heard: to, backoff: BACKOFF };
    tokio::spawn(task.run());
    Supervisor { state, order, kill, mounted, heard }
}

impl Supervisor {
    /// Its state, now and as it changes.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Whether its file system is there. Files in it that are open do not outlive a `false`.
    pub(crate) fn mounted(&self) -> watch::Receiver<bool> {
        self.mounted.clone()
    }

    /// See [`Engine::refused_writes`](crate::engine::Engine::refused_writes).
    pub(crate) fn refused_writes(&self) -> u64 {
        self.heard.refused_writes()
    }

    /// SIGTERM, and SIGKILL if that does not help soon. Returns when it is gone and unmounted. Stop the
    /// application before: while it has a file open, LiteFS cannot unmount.
    pub(crate) async fn stop(&self) {
        let _ = self.order.send(Order::Stop);
        let mut state = self.state.clone();
        // An error means that the task is gone, and LiteFS with it.
        let _ = state.wait_for(|state| state.stopped).await;
    }

    /// SIGKILL. It is started again.
    pub(crate) fn kill(&self, why: &'static str) {
        self.kill.send_replace(why);
    }
}

struct SupervisorTask {
    spec: Spec,
    publish: watch::Sender<State>,
    mount: watch::Sender<bool>,
    orders: watch::Receiver<Order>,
    kills: watch::Receiver<&'static str>,
    heard: Heard,
    backoff: Backoff,
}

impl SupervisorTask {
    async fn run(mut self) {
        let version = tokio::select! {
            version = check_version(&self.spec) => version,
            () = ordered(&mut self.orders) => Ok(()),
        };
        match version {
            Ok(()) => {
                while self.keep_up().await.is_some() {}
                self.unmount().await;
            }
            Err(why) => {
                // It would be the same again.
                self.trouble(why);
                ordered(&mut self.orders).await;
            }
        }
        self.publish.send_modify(|state| state.stopped = true);
    }

    /// One start, one run, one pause; `None` if told to stop.
    async fn keep_up(&mut self) -> Option<()> {
        let pause = match self.start().await? {
            Ok(process) => self.watch_over(process).await?,
            Err(why) => {
                self.trouble(why);
                self.backoff.next(chance())
            }
        };
        tracing::info!("LiteFS: next start in {} ms", pause.as_millis());
        tokio::select! {
            () = ordered(&mut self.orders) => return None,
            () = sleep(pause) => {}
        }
        self.publish.send_modify(|state| state.restarts += 1);
        Some(())
    }

    /// The process, or why there is none.
    async fn start(&mut self) -> Option<Result<Process, String>> {
        let launch = launch(&self.spec, &self.heard);
        let starting = async {
            if let Some(guard) = &self.spec.guard {
                guard.shared_deadline.permits().await;
            }
            if self.spec.fuse {
                let litefs = self.spec.litefs.clone();
                apart(move || preflight::check(&litefs)).await?.map_err(|why| why.to_string())?;
            }
            spawn::spawn(&launch).await.map_err(|why| why.to_string())
        };
        tokio::select! {
            () = ordered(&mut self.orders) => None,
            started = starting => Some(started),
        }
    }

    /// Returns when it has ended by itself: how long to wait before the next start. `None` if it was
    /// stopped.
    async fn watch_over(&mut self, mut process: Process) -> Option<Duration> {
        let since = Instant::now();
        let pid = process.pid();
        tracing::info!("LiteFS: started, pid {pid}");
        self.publish.send_modify(|state| state.pid = Some(pid));
        self.kills.borrow_and_update();
        let ready = self.until_ready();
        let watching = async {
            ready.await;
            std::future::pending::<()>().await;
        };
        let mut orders = self.orders.clone();
        let mut kills = self.kills.clone();
        tokio::select! {
            () = ordered(&mut orders) => {
                self.stop(process).await;
                return None;
            }
            _ = process.wait() => {}
            _ = kills.changed() => {
                tracing::error!("LiteFS: {}: SIGKILL", *kills.borrow_and_update());
                process.group.signal(Signal::KILL);
            }
            () = watching => {}
        }
        let end = process.end().await;
        let ready = self.publish.borrow().ready;
        // Its dead mount stays until the next one is to be made: an application that has not ended yet would
        // make a new database in the bare directory.
        self.gone();
        self.backoff.ran_for(since.elapsed());
        match end {
            Ok(End::Exited(status)) if ready && status.code() == Some(LOST_WRITE_ACCESS) => {
                tracing::info!("LiteFS: it lost the lease in the middle of a commit, and restarts");
                return Some(BREATH);
            }
            Ok(End::Late) => tracing::warn!("LiteFS: {}", End::Late),
            Ok(end) => self.explain(&end, ready),
            Err(error) => tracing::warn!("LiteFS: killed, since {error}"),
        }
        Some(self.backoff.next(chance()))
    }

    /// Returns once it is mounted and answers.
    fn until_ready(&self) -> impl Future<Output = ()> + use<> {
        let (litefs, fuse) = (self.spec.litefs.clone(), self.spec.fuse);
        let (publish, mount) = (self.publish.clone(), self.mount.clone());
        async move {
            let api = Api(litefs.http);
            // It answers only once it has mounted; that somebody else does was ruled out before.
            let is_mounted = || !fuse || mount::is_mounted(&litefs.mount).unwrap_or(false);
            while api.info().await.is_err() || !is_mounted() {
                sleep(LOOK).await;
            }
            tracing::info!("LiteFS: mounted at {}", litefs.mount.display());
            publish.send_modify(|state| (state.ready, state.trouble) = (true, None));
            mount.send_replace(true);
        }
    }

    fn explain(&self, end: &End, was_ready: bool) {
        let why = self.heard.take_error();
        let why = why.map_or_else(|| end.to_string(), |why| format!("{end}: {why}"));
        if was_ready {
            tracing::warn!("LiteFS: ended by itself: {why}");
            return;
        }
        let help =
            if why.contains("fusermount") { preflight::MAY_NOT_MOUNT } else { "see the log" };
        self.trouble(format!("LiteFS does not start ({why}): {help}"));
    }

    async fn stop(&mut self, mut process: Process) {
        process.group.signal(Signal::TERM);
        let gone = async {
            let _ = process.wait().await;
        };
        if tokio::time::timeout(GRACE, gone).await.is_err() {
            tracing::warn!("LiteFS: still there {GRACE:?} after SIGTERM: SIGKILL");
        }
        match process.end().await {
            Ok(end) => tracing::info!("LiteFS: stopped: {end}"),
            Err(error) => tracing::warn!("LiteFS: stopped: {error}"),
        }
        self.gone();
    }

    fn gone(&self) {
        self.publish.send_modify(|state| (state.pid, state.ready) = (None, false));
        self.mount.send_replace(false);
    }

    /// Removes what it has left mounted.
    async fn unmount(&self) {
        if !self.spec.fuse {
            return;
        }
        let dir = self.spec.litefs.mount.clone();
        match apart(move || mount::clear_dead(&dir)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(_)) => tracing::info!("LiteFS: removed the mount that it left behind"),
            Ok(Err(why)) => tracing::error!("LiteFS: {why}"),
            Err(why) => tracing::error!("LiteFS: {why}"),
        }
    }

    fn trouble(&self, why: String) {
        let known = self.publish.borrow().trouble.as_ref() == Some(&why);
        if !known {
            tracing::error!("LiteFS: {why}");
        }
        self.publish.send_modify(|state| state.trouble = Some(why));
    }
}

fn launch(spec: &Spec, heard: &Heard) -> Launch {
    let file = spec.file.to_string_lossy().into_owned();
    let binary = spec.litefs.binary.to_string_lossy().into_owned();
    Launch {
        name: "litefs".into(),
        key: "litefs.binary",
        command: vec![binary, "mount".to_owned(), "-config".to_owned(), file],
        user: None,
        // Of a service that is gone: it would have LiteFS back up elsewhere than is configured.
        env: vec![("LITEFS_CLOUD_TOKEN".to_owned(), String::new())],
        log: output::log(heard.clone()),
        guard: spec.guard.clone(),
    }
}

/// Refuses a LiteFS that is too old, and one that is not there.
async fn check_version(spec: &Spec) -> Result<(), String> {
    let printed = Arc::new(Mutex::new(String::new()));
    let to = printed.clone();
    let print = move |_: &str, _: &str, line: &str| {
        let mut text = to.lock();
        if text.is_empty() {
            line.clone_into(&mut text);
        }
    };
    let mut launch = launch(spec, &Heard::default());
    launch.command = vec![launch.command[0].clone(), "version".to_owned()];
    (launch.log, launch.guard) = (print.into(), None);
    hook::run(&launch, VERSION).await.map_err(|why| match why {
        HookError::TimedOut(limit) => format!(
            "`{} version` has not ended within {limit:?}: is that a LiteFS, and has the machine too much to do?",
            spec.litefs.binary.display()
        ),
        why => why.to_string(),
    })?;
    let printed = printed.lock().clone();
    match version::judge(&printed) {
        Verdict::Good => tracing::info!("LiteFS: {printed}"),
        Verdict::Unknown(why) => tracing::warn!("LiteFS: {why}"),
        Verdict::TooOld(why) => return Err(format!("litefs.binary: {why}")),
    }
    Ok(())
}

/// Does on a thread of its own what may block; a runtime waits for its own threads when it ends.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    thread::Builder::new()
        .name("litefs-apart".to_owned())
        .spawn(move || drop(reply.send(work())))
        .map_err(|error| error.to_string())?;
    answer.await.map_err(|_| "a thread has ended too early".to_owned())
}

/// Returns once it is to stop. A handle that was dropped orders that, too.
async fn ordered(orders: &mut watch::Receiver<Order>) {
    let _ = orders.wait_for(|order| *order >= Order::Stop).await;
}

/// Jitter needs no secrecy: without a source of randomness there is simply none.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
