//! A primary whose Litepilot is stopped or killed, with an application that writes by itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litepilot::claim::BootTime;
use litepilot::process::backoff::Backoff;
use litepilot::process::child::{self, Spec};
use litepilot::process::guard::{Deadline, Guard, SharedDeadline};
use litepilot::process::spawn::Launch;
use rusqlite::Connection;
use rustix::process::Signal;
use tempfile::TempDir;

use super::support::{LITEPILOT, PATIENCE, lines, lives, parent_of, send, until};

/// A claim, from its renewal to the guard's deadline; and how long after that nobody else becomes
/// primary.
const CLAIM: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_secs(1);

/// Inserts the time of `CLOCK_BOOTTIME` each few milliseconds, right before it commits; a worker of
/// the application does so.
const WRITER: &str = r#"
import os, sqlite3, sys, time

def here():
    with open(sys.argv[1] + "/pids", "a") as pids:
        pids.write(f"{os.getpid()}\n")

here()
if os.fork():
    os.wait()
    sys.exit()
here()
db = sqlite3.connect(sys.argv[1] + "/db.sqlite3", isolation_level=None, timeout=60)
db.execute("CREATE TABLE IF NOT EXISTS t (ns)")
while True:
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES (?)", (time.clock_gettime_ns(time.CLOCK_BOOTTIME),))
    db.execute("COMMIT")
    time.sleep(0.002)
"#;

/// Not a test of its own: a primary's Litepilot, as far as its guard knows. It renews its claim
/// until it finds that the claim has lapsed; then it is a replica.
#[test]
#[ignore = "a helper of other tests"]
fn helper_is_primary() {
    let Some(dir) = std::env::var_os("LITEPILOT_TEST_DIR").map(PathBuf::from) else { return };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let shared_deadline = SharedDeadline::default();
        renew(&shared_deadline, &dir);
        let _app = child::start(app(&dir, &shared_deadline));
        while !shared_deadline.deadline().is_past() {
            tokio::time::sleep(CLAIM / 20).await;
            if !shared_deadline.deadline().is_past() {
                renew(&shared_deadline, &dir);
            }
        }
        eprintln!("the claim has lapsed");
        shared_deadline.set(Deadline::None);
        std::future::pending::<()>().await;
    });
}

fn renew(shared_deadline: &SharedDeadline, dir: &Path) {
    let deadline = BootTime::now().after(CLAIM);
    // First to the file: no guard knows a later one than it.
    let file = dir.join("deadlines");
    let mut file = File::options().create(true).append(true).open(file).unwrap();
    file.write_all(format!("{}\n", deadline.0).as_bytes()).unwrap();
    assert!(shared_deadline.set(Deadline::At(deadline)));
}

fn app(dir: &Path, shared_deadline: &SharedDeadline) -> Spec {
    let command = ["python3", "-c", WRITER, dir.to_str().unwrap()];
    let launch = Launch {
        name: "app".into(),
        key: "app.command",
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        user: None,
        env: Vec::new(),
        log: (|_: &str, _: &str, line: &str| eprintln!("app: {line}")).into(),
        guard: Some(Guard {
            program: LITEPILOT.into(),
            shared_deadline: shared_deadline.clone(),
            tally: None,
        }),
    };
    let quick = Duration::from_millis(5);
    Spec::new(launch, CLAIM, Backoff::new(quick, quick, quick))
}

/// A primary, and the application's processes: the program, its worker and their guard.
struct Primary {
    process: Child,
    log: Arc<Mutex<String>>,
    dir: TempDir,
    app: [u32; 2],
    guard: u32,
}

impl Primary {
    fn start() -> Primary {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["parent::helper_is_primary", "--exact", "--ignored", "--nocapture"])
            .env("LITEPILOT_TEST_DIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, written) = (BufReader::new(process.stderr.take().unwrap()), log.clone());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut primary = Primary { process, log, dir, app: [0; 2], guard: 0 };
        let pids = lines(&primary.file("pids"), 2);
        primary.app = [pids[0].parse().unwrap(), pids[1].parse().unwrap()];
        primary.guard = parent_of(primary.app[0]);
        assert_eq!(parent_of(primary.guard), primary.process.id());
        until("it writes", || primary.commits().len() > 50);
        primary
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// When the application was about to commit what is there.
    fn commits(&self) -> Vec<BootTime> {
        let Ok(db) = Connection::open(self.file("db.sqlite3")) else { return Vec::new() };
        db.busy_timeout(PATIENCE).unwrap();
        let Ok(mut all) = db.prepare("SELECT ns FROM t ORDER BY rowid") else { return Vec::new() };
        let all = all.query_map((), |row| row.get::<_, i64>(0)).unwrap();
        all.map(|ns| BootTime(ns.unwrap().try_into().unwrap())).collect()
    }

    /// Those it has told its guard, and one more at most.
    fn deadlines(&self) -> Vec<BootTime> {
        let lines = lines(&self.file("deadlines"), 1);
        lines.iter().map(|line| BootTime(line.parse().unwrap())).collect()
    }

    fn signal(&self, signal: Signal) {
        send(signal, self.process.id());
    }

    fn said(&self, words: &str) -> bool {
        self.log.lock().unwrap().contains(words)
    }

    fn app_is_gone(&self) {
        until("the application is gone", || self.app.iter().all(|pid| !lives(*pid)));
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the primary said:\n{}", self.log.lock().unwrap());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn nothing_commits_after_the_deadline_of_a_primary_that_is_stopped() {
    let primary = Primary::start();
    primary.signal(Signal::STOP);
    primary.app_is_gone();
    let (deadline, commits) = (*primary.deadlines().last().unwrap(), primary.commits());
    let last = *commits.last().unwrap();
    assert!(last.since(deadline) <= MARGIN, "{:?} after its deadline", last.since(deadline));
    assert!(lives(primary.guard), "it waits to tell us");

    // Woken up it learns what was done and why, and starts the application as a replica's.
    primary.signal(Signal::CONT);
    until("it says so", || {
        primary.said("app: killed by its guard: the claim's deadline had passed")
            && primary.said("the claim has lapsed")
    });
    until("it starts another", || primary.commits().len() > commits.len());
    assert!(primary.commits()[commits.len()] > deadline);
}

#[test]
fn while_it_renews_its_claim_the_application_lives() {
    let primary = Primary::start();
    let first = primary.deadlines()[0];
    until("the first deadline is long gone", || BootTime::now().since(first) > CLAIM);
    let so_far = primary.commits().len();
    until("it still writes", || primary.commits().len() > so_far + 50);
    assert!(primary.app.iter().all(|pid| lives(*pid)));
    assert_eq!(lines(&primary.file("pids"), 2).len(), 2, "it was never started again");
}

#[test]
fn a_primary_that_is_killed_leaves_no_process_behind() {
    let mut primary = Primary::start();
    primary.process.kill().unwrap();
    primary.app_is_gone();
    until("the guard is gone", || !lives(primary.guard));
}

/// As by `pkill -9 litepilot`. The worker is on its own then: nobody is left to kill it.
#[test]
fn killed_together_with_its_guard_it_takes_the_program_along() {
    let mut primary = Primary::start();
    primary.signal(Signal::STOP);
    send(Signal::KILL, primary.guard);
    until("the program is gone", || !lives(primary.app[0]));
    primary.process.kill().unwrap();
    send(Signal::KILL, primary.app[1]);
    primary.app_is_gone();
}
