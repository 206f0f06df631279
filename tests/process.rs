//! Child processes as a user meets them: real programs, their output in our log, and their ends.

use std::future::poll_fn;
use std::path::Path;
use std::sync::{Mutex, Once};
use std::task::Poll;
use std::time::{Duration, Instant};

use litepilot::claim::BootTime;
use litepilot::config::{App, HostPort, OnPromote, RunOn, StopSignal, Target};
use litepilot::process::app;
use litepilot::process::backoff::Backoff;
use litepilot::process::child::{self, ChildHandle, Phase, Spec};
use litepilot::process::guard::{Deadline, Guard, SharedDeadline};
use litepilot::process::health;
use litepilot::process::hook::{self, HookError};
use litepilot::process::output::MAX_LINE;
use tokio::net::TcpListener;
use tokio::time::timeout;

#[path = "support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;

/// Far beyond what anything here takes: reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct ToLog;

impl std::io::Write for ToLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All tests of this file share one log, so each looks for words of its own.
fn capture_log() {
    static START: Once = Once::new();
    START.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| ToLog).init();
    });
}

fn log_lines(having: &str) -> Vec<String> {
    let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned();
    log.lines().filter(|line| line.contains(having)).map(str::to_owned).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn logged(words: &str) -> String {
    until(&format!("the log says {words:?}"), || !log_lines(words).is_empty()).await;
    log_lines(words).remove(0)
}

async fn phase(child: &ChildHandle, phase: Phase) {
    let mut state = child.state();
    let reached = timeout(PATIENCE, state.wait_for(|state| state.state == phase)).await;
    assert!(reached.is_ok(), "it never was {phase:?}");
}

/// Its process id, once it is known to run.
async fn pid(child: &ChildHandle) -> u32 {
    phase(child, Phase::Running).await;
    child.state().borrow().pid.unwrap()
}

fn config(command: &[&str]) -> App {
    App {
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        user: None,
        health: None,
        down_after: Duration::from_secs(5),
        run_on: RunOn::EveryNode,
        on_promote: OnPromote::Run(Vec::new()),
        on_demote: Vec::new(),
        on_quorum_lost: Vec::new(),
        hook_timeout: Duration::from_secs(30),
        stop_signal: StopSignal::Term,
        grace: PATIENCE,
        stuck_after: None,
    }
}

/// As `litepilot run` guards it.
fn guard() -> Guard {
    Guard {
        program: env!("CARGO_BIN_EXE_litepilot").into(),
        shared_deadline: SharedDeadline::default(),
        tally: None,
    }
}

/// The application as shipped, but for quicker restarts.
fn spec(command: &[&str]) -> Spec {
    capture_log();
    let quick = Backoff::new(Duration::from_millis(5), Duration::from_millis(20), PATIENCE);
    let app = app::spec(&config(command), Vec::new(), Some(guard()), None).unwrap();
    Spec { backoff: quick, ..app }
}

fn sh(script: &str) -> Spec {
    spec(&["sh", "-c", script])
}

/// A process counts as gone when it is a zombie, too: then only its parent has to notice.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

async fn pid_in(file: &Path) -> u32 {
    let mut pid = None;
    until("the pid is written", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|line| line.parse().ok());
        pid.is_some()
    })
    .await;
    pid.unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn output_lands_in_the_log_with_its_stream() {
    let app = child::start(sh("echo to-stdout-1; echo to-stderr-1 >&2; exec sleep 1000"));
    let out = logged("to-stdout-1").await;
    assert!(out.contains(" app: ") && out.contains("stream=\"stdout\""), "{out}");
    let err = logged("to-stderr-1").await;
    assert!(err.contains(" app: ") && err.contains("stream=\"stderr\""), "{err}");
    app.stop().await;
}

#[tokio::test]
async fn long_and_endless_lines_are_cut() {
    let script = "import sys; sys.stdout.write('endless' * 100_000 + '\\nafter-endless\\n')";
    let app = child::start(spec(&["python3", "-c", script]));
    logged("after-endless").await;
    app.stop().await;
    let pieces = log_lines("endlessendless");
    assert!(pieces.len() >= 700_000 / MAX_LINE, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|line| line.len() < MAX_LINE + 200));
}

#[tokio::test]
async fn standard_input_is_empty_and_the_environment_inherited_and_extended() {
    let mut spec = sh("cat; echo \"env-2 $EXTRA $PATH\"; exec sleep 1000");
    spec.launch.env = vec![("EXTRA".into(), "added".into())];
    let app = child::start(spec);
    let line = logged("env-2").await;
    let path = std::env::var("PATH").unwrap();
    assert!(line.contains(&format!("env-2 added {path}")), "{line}");
    app.stop().await;
}

#[tokio::test]
async fn it_is_started_again_when_it_ends() {
    let app = child::start(sh("echo again-3; exit 7"));
    until("it ran three times", || log_lines("again-3").len() >= 3).await;
    assert!(app.state().borrow().restarts >= 2);
    logged("ended by itself: exit status: 7").await;
    app.stop().await;
    let runs = log_lines("again-3").len();
    assert_eq!(app.state().borrow().state, Phase::Stopped);
    assert_eq!(log_lines("again-3").len(), runs);
}

#[tokio::test]
async fn a_crash_loop_is_slowed_down() {
    let minutes = Duration::from_secs(600);
    let slow = Backoff::new(minutes, minutes, minutes);
    let app = child::start(Spec { backoff: slow, ..sh("echo once-4; exit 1") });
    phase(&app, Phase::Backoff).await;
    assert_eq!(app.state().borrow().pid, None);
    logged("once-4").await;
    assert_eq!(app.state().borrow().restarts, 0);
    // A stop does not wait for the pause.
    timeout(PATIENCE, app.stop()).await.unwrap();
}

#[tokio::test]
async fn sigterm_lets_it_end_its_own_way() {
    let app =
        child::start(sh("trap 'echo bye-5; exit 0' TERM; echo up-5; while :; do sleep 0.01; done"));
    logged("up-5").await;
    app.stop().await;
    assert_eq!(log_lines("bye-5").len(), 1, "its last words are in the log");
    let state = *app.state().borrow();
    assert_eq!((state.state, state.pid, state.restarts), (Phase::Stopped, None, 0));
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed_after_the_grace() {
    let mut spec = sh("trap '' TERM; echo deaf-6; while :; do sleep 0.01; done");
    spec.grace = Duration::from_millis(100);
    let app = child::start(spec);
    logged("deaf-6").await;
    let pid = pid(&app).await;
    timeout(PATIENCE, app.stop()).await.unwrap();
    assert!(!lives(pid));
    logged("still there 100ms after SIGTERM").await;
}

#[tokio::test]
async fn a_kill_does_not_wait_for_the_grace() {
    let app = child::start(sh("trap '' TERM; echo deaf-7; while :; do sleep 0.01; done"));
    logged("deaf-7").await;
    let pid = pid(&app).await;
    // A stop that was given up goes on; its grace is longer than our patience.
    assert!(timeout(Duration::from_millis(1), app.stop()).await.is_err());
    timeout(PATIENCE / 2, app.kill()).await.unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn workers_behind_a_shell_get_the_grace_too() {
    let worker =
        "trap 'sleep 0.2; echo drained-8; exit 0' TERM; echo ready-8; while :; do sleep 0.01; done";
    let app = child::start(sh(&format!("sh -c \"{worker}\" & wait")));
    logged("ready-8").await;
    timeout(PATIENCE, app.stop()).await.unwrap();
    assert_eq!(log_lines("drained-8").len(), 1);
}

/// Prefork servers: the master tells its workers itself, once they have finished what they do.
#[tokio::test]
async fn who_leads_is_told_to_end_and_its_workers_are_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let worker = "trap 'echo told-17' TERM; echo ready-17; while ! test -e $GO; do sleep 0.01; done; \
                  echo finished-17";
    let mut spec = sh(&format!(
        "trap 'sleep 0.2; touch $GO' TERM; sh -c \"{worker}\" & \
         while ! test -e $GO; do sleep 0.01; done; wait"
    ));
    let go = dir.path().join("go").display().to_string();
    spec.launch.env = vec![("GO".into(), go)];
    let app = child::start(spec);
    logged("ready-17").await;
    timeout(PATIENCE, app.stop()).await.unwrap();
    assert_eq!(log_lines("finished-17").len(), 1);
    assert!(log_lines("told-17").is_empty());
}

#[tokio::test]
async fn it_is_asked_to_end_by_its_own_signal() {
    let script = "trap '' TERM; trap 'echo quit-18; exit 0' QUIT; echo up-18; \
                  while :; do sleep 0.01; done";
    let app = child::start(Spec { stop_signal: StopSignal::Quit, ..sh(script) });
    logged("up-18").await;
    timeout(PATIENCE, app.stop()).await.unwrap();
    assert_eq!(log_lines("quit-18").len(), 1);
}

/// MLflow ended after ten seconds each time, and was started again after 50 ms, for ever.
#[tokio::test]
async fn only_an_application_that_has_answered_is_started_again_at_once() {
    let (checker, health) = health::channel();
    let dir = tempfile::tempdir().unwrap();
    let end = dir.path().join("end");
    std::fs::write(&end, "").unwrap();
    let script = "while ! test -e $0; do sleep 0.01; done; exit 1";
    let mut spec = spec(&["sh", "-c", script, end.to_str().unwrap()]);
    spec.launch.name = "app-19".into();
    // Every run is long enough for the pauses to start anew, if its length counted.
    let backoff = Backoff::new(Duration::from_millis(1), PATIENCE, Duration::ZERO);
    let app = child::start(Spec { backoff, health: Some(health), ..spec });
    let pauses = || -> Vec<u64> {
        let lines = log_lines("app-19: next start in ");
        let pause = |line: &String| line.rsplit(' ').nth(1).unwrap().parse().unwrap();
        lines.iter().map(pause).collect()
    };
    until("it ends again and again", || pauses().len() >= 6).await;
    assert!(pauses()[5] >= 16, "{:?}", pauses());

    std::fs::remove_file(&end).unwrap();
    until("it is known to have answered", || {
        checker.report(checker.begin(), true);
        app.state().borrow().unanswered == 0
    })
    .await;
    let before = pauses().len();
    std::fs::write(&end, "").unwrap();
    until("it ends once more", || pauses().len() > before).await;
    assert!(pauses()[before] <= 1, "{:?}", pauses());
    app.kill().await;
}

#[tokio::test]
async fn grandchildren_die_when_it_crashes() {
    for guard in [Some(guard()), None] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("trap '' TERM; sleep 1000 & echo $! > {}; wait", file.display());
        let slow = Backoff::new(PATIENCE * 10, PATIENCE * 10, PATIENCE);
        let mut spec = Spec { backoff: slow, ..sh(&script) };
        spec.launch.guard = guard;
        let app = child::start(spec);
        let worker = pid_in(&file).await;
        assert!(lives(worker));
        kill(pid(&app).await);
        phase(&app, Phase::Backoff).await;
        until("the worker is gone", || !lives(worker)).await;
        app.stop().await;
    }
}

#[test]
fn the_whole_group_dies_with_our_runtime() {
    for guard in [Some(guard()), None] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let mut spec = sh(&script);
        spec.launch.guard = guard;
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ours = runtime();
        let (_app, leader, worker) = ours.block_on(async {
            let app = child::start(spec);
            let leader = pid(&app).await;
            (app, leader, pid_in(&file).await)
        });
        drop(ours);
        runtime().block_on(until("all are gone", || !lives(worker) && !lives(leader)));
    }
}

#[tokio::test]
async fn past_its_deadline_it_is_killed_and_started_again_once_that_is_permitted() {
    let shared_deadline = SharedDeadline::default();
    let mut spec = sh("echo run-15; exec sleep 1000");
    spec.launch.guard = Some(Guard { shared_deadline: shared_deadline.clone(), ..guard() });
    let app = child::start(spec);
    logged("run-15").await;
    let first = pid(&app).await;
    assert!(shared_deadline.set(Deadline::At(BootTime::now())));
    until("it is killed", || !lives(first)).await;
    let mut state = app.state();
    timeout(PATIENCE, state.wait_for(|state| state.restarts == 1)).await.unwrap().unwrap();
    logged("app: killed by its guard: the claim's deadline had passed").await;
    assert_eq!(app.state().borrow().state, Phase::Starting);
    assert!(shared_deadline.set(Deadline::None));
    assert_ne!(pid(&app).await, first);
    assert_eq!(app.state().borrow().restarts, 1, "nothing was tried in vain");
    until("it says so again", || log_lines("run-15").len() == 2).await;

    // Nor does waiting for that keep it from being stopped.
    shared_deadline.set(Deadline::At(BootTime::now()));
    let mut state = app.state();
    timeout(PATIENCE, state.wait_for(|state| state.restarts == 2)).await.unwrap().unwrap();
    timeout(PATIENCE, app.stop()).await.unwrap();
}

#[tokio::test]
async fn it_dies_with_its_guard_and_gets_a_new_one() {
    let app = child::start(sh("echo guarded-16 by $PPID; exec sleep 1000"));
    let line = logged("guarded-16 by ").await;
    let (_, after) = line.split_once("guarded-16 by ").unwrap();
    let guard = after.split(' ').next().unwrap().parse().unwrap();
    let first = pid(&app).await;
    kill(guard);
    until("it is gone", || !lives(first)).await;
    let line = logged("its guard has ended").await;
    assert!(line.contains("WARN") && line.contains("SIGKILL"), "{line}");
    until("another runs", || log_lines("guarded-16").len() == 2).await;
    app.stop().await;
}

#[tokio::test]
async fn a_handle_let_go_stops_it() {
    let app = child::start(sh(
        "trap 'echo let-go-9; exit 0' TERM; echo up-9; while :; do sleep 0.01; done",
    ));
    logged("up-9").await;
    let mut state = app.state();
    drop(app);
    timeout(PATIENCE, state.wait_for(|s| s.state == Phase::Stopped)).await.unwrap().unwrap();
    logged("let-go-9").await;
}

#[tokio::test]
async fn a_missing_program_says_so_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("app-10");
    let app = child::start(spec(&[program.to_str().unwrap()]));
    let line = logged("app-10").await;
    assert!(line.contains("ERROR") && line.contains("no such file; correct app.command"), "{line}");
    phase(&app, Phase::Failed).await;
    // Installed under another name first: never half a program in its place.
    let draft = dir.path().join("draft");
    std::fs::write(&draft, "#!/bin/sh\necho installed-10\nexec sleep 1000\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&draft, executable).unwrap();
    std::fs::rename(&draft, &program).unwrap();
    logged("installed-10").await;
    phase(&app, Phase::Running).await;
    app.stop().await;
}

#[tokio::test]
async fn an_unknown_user_says_so() {
    let mut spec = sh("echo never-11");
    spec.launch.user = Some("no-such-user-11".into());
    let app = child::start(spec);
    let line = logged("no-such-user-11").await;
    assert!(line.contains("ERROR") && line.contains("/etc/passwd"), "{line}");
    app.stop().await;
    assert!(log_lines("never-11").is_empty());
}

#[tokio::test]
async fn it_runs_as_its_user_with_that_users_groups_and_home() {
    if !need::root() {
        return;
    }
    let of_nobody = std::process::Command::new("id").args(["-G", "nobody"]).output().unwrap();
    let groups = String::from_utf8(of_nobody.stdout).unwrap();
    let mut spec = sh("echo \"who-12 $(id -un) $(id -G) | $USER $HOME\"; exec sleep 1000");
    spec.launch.user = Some("nobody".into());
    let app = child::start(spec);
    let line = logged("who-12").await;
    assert!(line.contains(&format!("who-12 nobody {} | nobody /", groups.trim())), "{line}");
    assert!(!line.ends_with(" /root"), "{line}");
    app.stop().await;
    assert!(rustix::process::getuid().is_root());
}

#[tokio::test]
async fn it_runs_as_a_number_in_no_group_of_ours() {
    if !need::root() {
        return;
    }
    let mut spec = sh("echo \"who-13 $(id -u) $(id -G).\"; exec sleep 1000");
    spec.launch.user = Some("54321".into());
    let app = child::start(spec);
    let line = logged("who-13").await;
    assert!(line.contains("who-13 54321 54321."), "{line}");
    app.stop().await;
}

#[tokio::test]
async fn the_published_state_reads_well() {
    let app = child::start(sh("exec sleep 1000"));
    phase(&app, Phase::Running).await;
    let state = *app.state().borrow();
    let json = serde_json::to_value(state).unwrap();
    let expected =
        serde_json::json!({"state": "running", "pid": state.pid, "restarts": 0, "unanswered": 0});
    assert_eq!(json, expected);
    app.stop().await;
}

#[test]
fn without_a_command_there_is_no_child() {
    assert!(app::spec(&config(&[]), Vec::new(), None, None).is_none());
}

#[tokio::test]
async fn a_hook_runs_once_and_its_output_is_logged() {
    let mut hook = sh("echo hook-14 $WHY").launch;
    hook.env = vec![("WHY".into(), "promoted".into())];
    hook::run(&hook, PATIENCE).await.unwrap();
    assert_eq!(log_lines("hook-14 promoted").len(), 1);
}

#[tokio::test]
async fn a_hook_that_fails_or_does_not_start_says_so() {
    let failed = hook::run(&sh("exit 3").launch, PATIENCE).await.unwrap_err();
    assert!(failed.to_string().contains("exit status: 3"), "{failed}");
    let missing = hook::run(&spec(&["no-such-hook"]).launch, PATIENCE).await.unwrap_err();
    assert!(missing.to_string().contains("PATH"), "{missing}");
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("trap '' TERM; sleep 1000 & echo $! > {}; wait", file.display());
    let hook = sh(&script).launch;
    let run = tokio::spawn(async move { hook::run(&hook, Duration::from_secs(2)).await });
    let worker = pid_in(&file).await;
    let killed = timeout(PATIENCE, run).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(killed, HookError::TimedOut(_)), "{killed}");
    until("its child is gone", || !lives(worker)).await;
}

#[tokio::test]
async fn a_hook_is_killed_at_its_deadline() {
    let shared_deadline = SharedDeadline::default();
    let mut hook = sh("echo hook-17; exec sleep 1000").launch;
    hook.guard = Some(Guard { shared_deadline: shared_deadline.clone(), ..guard() });
    let run = {
        let hook = hook.clone();
        tokio::spawn(async move { hook::run(&hook, PATIENCE).await })
    };
    logged("hook-17").await;
    shared_deadline.set(Deadline::At(BootTime::now()));
    let killed = timeout(PATIENCE, run).await.unwrap().unwrap().unwrap_err();
    assert!(killed.to_string().contains("deadline had passed"), "{killed}");
    let refused = hook::run(&hook, PATIENCE).await.unwrap_err();
    assert!(refused.to_string().contains("called off"), "{refused}");
    assert_eq!(log_lines("hook-17").len(), 1);
}

#[tokio::test]
async fn without_a_guard_it_is_our_own_child() {
    let mut spec = sh("echo alone-18 $PPID; exit 9");
    spec.launch.guard = None;
    let app = child::start(spec);
    let line = logged("alone-18").await;
    assert!(line.contains(&format!("alone-18 {}", std::process::id())), "{line}");
    logged("ended by itself: exit status: 9").await;
    app.stop().await;
}

fn target(listener: &TcpListener) -> Target {
    let port = listener.local_addr().unwrap().port();
    Target::Tcp(HostPort { host: "127.0.0.1".into(), port })
}

#[tokio::test]
async fn health_follows_an_app_that_goes_away_and_comes_back() {
    capture_log();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (checker, health) = health::channel();
    assert!(!health.is_up() && health.watch().borrow().down_since.is_some(), "unknown is down");
    let checks = tokio::spawn(health::run(checker, target(&listener), None));
    let mut reports = health.watch();
    let mut turns =
        async |up| timeout(PATIENCE, reports.wait_for(|r| r.up == up)).await.unwrap().map(|r| *r);
    assert_eq!(turns(true).await.unwrap().down_since, None);
    drop(listener);
    let down = turns(false).await.unwrap();
    let later = health.watch().wait_for(|r| r.check > down.check).await.map(|r| *r).unwrap();
    assert_eq!(later.down_since, down.down_since, "since the first check that failed");
    assert_eq!(health.watch().borrow().down_since, down.down_since);
    logged(&format!("the app at {address} does not")).await;
    let line = format!("the app at {address} does not answer: it takes no connection");
    assert_eq!(log_lines(&line).len(), 1, "once per transition, not per check");
    let _listener = TcpListener::bind(address).await.unwrap();
    turns(true).await.unwrap();
    until("both are in the log", || log_lines(&format!("the app at {address} is up")).len() == 2)
        .await;
    checks.abort();
}

#[tokio::test]
async fn a_doubt_is_settled_only_by_a_check_that_began_after_it() {
    let (checker, health) = health::channel();
    let early = checker.begin();
    let mut recovered = Box::pin(health.recovered());
    let mut returned =
        async || poll_fn(|cx| Poll::Ready(recovered.as_mut().poll(cx).is_ready())).await;
    assert!(!returned().await);
    timeout(PATIENCE, checker.doubted()).await.unwrap();
    checker.report(early, true);
    assert!(!returned().await, "that check began before the doubt");
    let late = checker.begin();
    checker.report(late, false);
    assert!(!returned().await, "that check found it down");
    checker.report(checker.begin(), true);
    timeout(PATIENCE, recovered).await.unwrap();
}

#[tokio::test]
async fn a_doubt_brings_a_check_forward() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (checker, health) = health::channel();
    let checks = tokio::spawn(health::run(checker, target(&listener), None));
    // A hundred doubts, each answered by a check of its own: far more than a check each second.
    timeout(PATIENCE, async {
        for _ in 0..100 {
            health.recovered().await;
        }
    })
    .await
    .unwrap();
    checks.abort();
}
