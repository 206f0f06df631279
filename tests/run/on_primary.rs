//! `litepilot on-primary`, beside a node that runs, starts or stops.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::port::reserve_port;
use super::program::{Program, Setup, lives, members, pair, send};

/// Far beyond what anything here takes: reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// `litepilot on-primary`, running. What it says is in files.
struct Run {
    process: Child,
    said: PathBuf,
}

/// Starts it in the directory of a node.
fn begin(node: &Path, args: &[&str]) -> Run {
    let said = tempfile::Builder::new().tempfile_in(node).unwrap().into_temp_path().keep().unwrap();
    let file = |name: &str| File::create(said.with_extension(name)).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_litepilot"))
        .arg("on-primary")
        .args(args)
        .current_dir(node)
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .unwrap();
    Run { process, said }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

impl Run {
    fn out(&self) -> String {
        text(&self.said.with_extension("out"))
    }

    fn err(&self) -> String {
        text(&self.said.with_extension("err"))
    }

    /// Returns once its command or itself says so.
    async fn says(&self, words: &str) {
        until(&format!("it says {words:?}"), || (self.out() + &self.err()).contains(words)).await;
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    async fn code(&mut self) -> Option<i32> {
        self.ended().await.code()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs it to its end.
async fn run(program: &Program, args: &[&str]) -> (Option<i32>, Run) {
    let mut run = begin(&program.file("."), args);
    (run.code().await, run)
}

/// A command that waits for a file.
fn until_there(file: &str) -> String {
    format!("echo begun; until test -e {file}; do sleep 0.01; done")
}

#[tokio::test]
async fn a_command_has_our_streams_and_environment_and_its_exit_code_is_ours() {
    let program = Setup::with_admin_port().start().await;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill $$", 143)] {
        let script = format!("echo $HOME $0; echo oops >&2; {script}");
        let (ended, run) = run(&program, &["--", "sh", "-c", &script, "an argument"]).await;
        assert_eq!(ended, Some(code), "{}", run.err());
        let home = std::env::var("HOME").unwrap_or_default();
        assert_eq!(run.out(), format!("{home} an argument\n"));
        assert_eq!(run.err(), "oops\n", "only the command says something");
    }
    let (ended, run) = run(&program, &["--", "litepilot-no-such-program"]).await;
    assert_eq!(ended, Some(1));
    assert!(run.err().contains("cannot run litepilot-no-such-program"), "{}", run.err());
}

#[tokio::test]
async fn under_a_key_it_runs_until_it_has_succeeded_once() {
    let program = Setup::with_admin_port().start().await;
    let migrate = |key: &'static str, script: &str| {
        let script = format!("echo ran {key} >> runs; {script}");
        let program = &program;
        async move { run(program, &["--once", key, "--", "sh", "-c", &script]).await }
    };
    assert_eq!(migrate("v1", "exit 3").await.0, Some(3));
    assert_eq!(migrate("v1", "exit 0").await.0, Some(0));
    let (code, again) = migrate("v1", "exit 4").await;
    assert_eq!(code, Some(0));
    assert!(again.err().contains("done before"), "{}", again.err());
    assert_eq!(migrate("v2", "exit 0").await.0, Some(0));
    assert_eq!(text(&program.file("runs")), "ran v1\nran v1\nran v2\n");
    assert_eq!(text(&program.file("data/once")), "v1\nv2\n");
}

#[tokio::test]
async fn started_many_times_at_once_it_runs_once() {
    let program = Setup::with_admin_port().start().await;
    let script = "echo ran >> runs; sleep 0.1";
    let start = |_| begin(&program.file("."), &["--once", "v1", "--", "sh", "-c", script]);
    for mut run in (0..6).map(start).collect::<Vec<_>>() {
        assert_eq!(run.code().await, Some(0), "{}", run.err());
    }
    assert_eq!(text(&program.file("runs")), "ran\n");
}

#[tokio::test]
async fn one_runs_at_a_time() {
    let program = Setup::with_admin_port().start().await;
    let directory = program.file(".");
    let mut first = begin(&directory, &["--", "sh", "-c", &until_there("go")]);
    first.says("begun").await;
    let mut second = begin(&directory, &["--", "sh", "-c", "test -e go && echo after"]);
    second.says("waiting for another command to end").await;
    fs::write(program.file("go"), "").unwrap();
    assert_eq!((first.code().await, second.code().await), (Some(0), Some(0)));
    assert_eq!(second.out(), "after\n");
}

#[tokio::test]
async fn signals_are_passed_on() {
    let program = Setup::with_admin_port().start().await;
    let script = format!(
        "trap 'echo TERM; exit 5' TERM; trap 'echo INT; exit 6' INT; {}",
        until_there("never")
    );
    for (signal, name, code) in [(Signal::TERM, "TERM", 5), (Signal::INT, "INT", 6)] {
        let mut run = begin(&program.file("."), &["--", "sh", "-c", &script]);
        run.says("begun").await;
        run.signal(signal);
        assert_eq!(run.code().await, Some(code));
        assert_eq!(run.out(), format!("begun\n{name}\n"));
    }
    // While it waits there is nobody to pass them on to.
    let mut holder = begin(&program.file("."), &["--", "sh", "-c", &until_there("go")]);
    holder.says("begun").await;
    let mut waiting = begin(&program.file("."), &["--", "echo", "ran"]);
    waiting.says("waiting for another").await;
    waiting.signal(Signal::TERM);
    assert_eq!((waiting.code().await, waiting.out()), (Some(143), String::new()));
    fs::write(program.file("go"), "").unwrap();
    assert_eq!(holder.code().await, Some(0));
}

#[tokio::test]
async fn it_waits_for_its_node_to_start() {
    let setup = Setup::with_admin_port();
    setup.configure();
    let mut run = begin(&setup.file("."), &["--once", "v1", "--", "echo", "ran"]);
    run.says("waiting: no token of the node").await;
    let _program = setup.start().await;
    assert_eq!(run.code().await, Some(0), "{}", run.err());
    assert_eq!(run.out(), "ran\n");
}

#[tokio::test]
async fn it_waits_for_a_primary_and_not_for_ever() {
    let hook = format!("app: {{on_promote: [sh, -c, '{}']}}", until_there("go"));
    let mut program = Setup::with_admin_port().key(&hook).start().await;
    program.says("begun").await;
    let (code, late) = run(&program, &["--wait", "100ms", "--", "echo", "ran"]).await;
    assert_eq!((code, late.out()), (Some(1), String::new()));
    assert!(late.err().contains("no primary took writes within 100ms"), "{}", late.err());
    let mut waiting = begin(&program.file("."), &["--", "echo", "ran"]);
    waiting.says("waiting for a primary").await;
    fs::write(program.file("go"), "").unwrap();
    assert_eq!(waiting.code().await, Some(0), "{}", waiting.err());
    assert_eq!(waiting.out(), "ran\n");

    let nobody = Setup::with_admin_port();
    nobody.configure();
    fs::create_dir(nobody.file("data")).unwrap();
    fs::copy(program.file("data/admin.token"), nobody.file("data/admin.token")).unwrap();
    let mut alone = begin(&nobody.file("."), &["--wait", "100ms", "--", "echo", "ran"]);
    assert_eq!((alone.code().await, alone.out()), (Some(1), String::new()));
    assert!(alone.err().contains("Is `litepilot run` running"), "{}", alone.err());
}

#[tokio::test]
async fn a_node_that_stops_meanwhile_makes_a_success_a_failure() {
    for (ending, expected) in [("exit 0", 1), ("exit 7", 7)] {
        let mut program = Setup::with_admin_port().start().await;
        let script = format!("{}; {ending}", until_there("go"));
        let mut run = begin(&program.file("."), &["--once", "v1", "--", "sh", "-c", &script]);
        run.says("begun").await;
        program.signal(Signal::TERM);
        assert_eq!(program.ended().await.code(), Some(0));
        run.says("the command runs on").await;
        fs::write(program.file("go"), "").unwrap();
        assert_eq!(run.code().await, Some(expected));
        let counts = run.err().contains("exited with 0, but counts as failed");
        assert_eq!(counts, expected == 1, "{}", run.err());
        assert_eq!(text(&program.file("data/once")), "");
    }
}

#[tokio::test]
async fn killed_it_keeps_its_turn_for_as_long_as_its_command_runs() {
    let program = Setup::with_admin_port().start().await;
    let directory = program.file(".");
    let script = format!("echo $$ > pid; {}", until_there("go"));
    let mut first = begin(&directory, &["--once", "v1", "--", "sh", "-c", &script]);
    first.says("begun").await;
    let command: u32 = text(&program.file("pid")).trim().parse().unwrap();
    first.signal(Signal::KILL);
    first.ended().await;
    let mut second = begin(&directory, &["--once", "v1", "--", "echo", "ran"]);
    second.says("waiting for another command to end").await;
    assert!(lives(command) && second.out().is_empty());
    send(Signal::KILL, command);
    assert_eq!(second.code().await, Some(0));
    assert_eq!(second.out(), "ran\n", "nobody has said that the first one succeeded");
}

#[tokio::test]
async fn it_is_the_primary_that_runs_it() {
    let [primary, replica] = pair();
    primary.configure();
    replica.configure();
    let script = "echo $PWD >> $RUNS";
    let runs = primary.file("runs");
    let start = |setup: &Setup| {
        let script = script.replace("$RUNS", runs.to_str().unwrap());
        begin(&setup.file("."), &["--once", "v1", "--", "sh", "-c", &script])
    };
    // Both at the same time, before either node runs: as when a release is rolled out everywhere.
    let (mut here, mut there) = (start(&primary), start(&replica));
    let replica = replica.start().await;
    there.says("waiting for a primary").await;
    let primary = primary.start().await;
    assert_eq!(here.code().await, Some(0), "{}", here.err());
    assert_eq!(there.code().await, Some(0), "{}", there.err());
    assert!(
        there.err().contains("n1 is the primary: there is nothing to do here"),
        "{}",
        there.err()
    );
    let ran_in = fs::canonicalize(primary.file(".")).unwrap();
    assert_eq!(text(&runs), format!("{}\n", ran_in.display()));
    // What has to be done at each call, is done there each time.
    for (program, lines) in [(&primary, 2), (&replica, 2)] {
        let script = script.replace("$RUNS", runs.to_str().unwrap());
        assert_eq!(run(program, &["--", "sh", "-c", &script]).await.0, Some(0));
        assert_eq!(text(&runs).lines().count(), lines);
    }
}

#[tokio::test]
async fn with_a_fixed_primary_a_command_given_on_another_node_runs_there() {
    let allows =
        format!("admin: {{listen: 127.0.0.1:{}, allow_forwarded_commands: true}}", reserve_port());
    let setups = [Setup::new().key(&allows), Setup::with_admin_port()];
    let [primary, replica] = members(setups, "election: static, primary: n1");
    let (_primary, replica) = (primary.start().await, replica.start().await);
    let forward = |command: &'static [&str]| {
        let replica = &replica;
        async move { run(replica, &[&["--forward", "--once", "v1", "--"], command].concat()).await }
    };
    let (code, failed) = forward(&["sh", "-c", "exit 7"]).await;
    assert_eq!(code, Some(7), "{}", failed.err());
    let (code, ran) = forward(&["sh", "-c", "echo in $LITEPILOT_NODE"]).await;
    assert_eq!((code, ran.out().as_str()), (Some(0), "in n1\n"), "{}", ran.err());
    let (code, again) = forward(&["echo", "ran"]).await;
    assert_eq!((code, again.out().as_str()), (Some(0), ""), "{}", again.err());
}

#[tokio::test]
async fn a_handoff_meanwhile_is_told_and_the_next_primary_runs_it_again() {
    let told = "echo demoted $LITEPILOT_NODE $LITEPILOT_EPOCH";
    let hook = format!("on_demote: [sh, -c, '{told}']");
    let setups = [(); 3].map(|()| Setup::with_app_and(&hook).on_admin_port());
    let mut nodes = Vec::new();
    // No election by itself, however busy the machine is.
    for setup in members(setups, "election: raft, lease: {ttl: 10s}") {
        nodes.push(setup.start().await);
    }
    let litepilot = |node: &Program, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_litepilot"));
        let output = command.args(args).current_dir(node.file(".")).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    // A node may have to catch up first.
    let promote = async |node: &Program| {
        until("it can be promoted", || litepilot(node, &["promote"]).is_some()).await;
    };
    let first = litepilot(&nodes[0], &["primary", "--wait", "60s"]).unwrap().trim().to_owned();
    let first: usize = first.trim_start_matches('n').parse::<usize>().unwrap() - 1;
    let second = (first + 1) % 3;

    let migrate = ["--once", "v1", "--", "sh", "-c", &until_there("go")];
    let mut before = begin(&nodes[first].file("."), &migrate);
    before.says("begun").await;
    promote(&nodes[second]).await;
    before.says("this node is not the primary any more").await;
    nodes[first].says(&format!("demoted n{} ", first + 1)).await;
    nodes[first].says("app.on_demote has run").await;
    fs::write(nodes[first].file("go"), "").unwrap();
    assert_eq!(before.code().await, Some(1), "{}", before.err());

    let named = format!("n{}\n", second + 1);
    for (i, node) in nodes.iter().enumerate() {
        let expected = if i == second { String::new() } else { named.clone() };
        until("the file to name the primary", || text(&node.file("data/.primary")) == expected)
            .await;
    }
    for (args, ran) in [("v1", "ran\n"), ("v1", "")] {
        let (code, after) = run(&nodes[second], &["--once", args, "--", "echo", "ran"]).await;
        assert_eq!((code, after.out().as_str()), (Some(0), ran), "{}", after.err());
    }
    // Everybody knows it: also whoever is the primary next.
    promote(&nodes[first]).await;
    let (code, after) = run(&nodes[first], &["--once", "v1", "--", "echo", "ran"]).await;
    assert_eq!((code, after.out().as_str()), (Some(0), ""), "{}", after.err());
    assert!(after.err().contains("done before"), "{}", after.err());
}
