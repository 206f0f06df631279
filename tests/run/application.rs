//! The application as the program's child.

use std::time::Duration;

use rustix::process::Signal;

use super::need;
use super::program::{Setup, app_pid, lives, send};
use super::wire::soon;

#[tokio::test]
async fn it_is_started_and_logged_and_started_again_when_it_dies() {
    let mut program = Setup::with_app().start().await;
    let mut client = program.client().await;
    let first = app_pid(&client.ask("GET /", &[]).await);
    let line = program.says("application says hello").await;
    assert!(line.contains("stream=\"stdout\""), "{line}");
    send(Signal::KILL, first);
    // Before that the write might still be connected to its socket, and fail with it.
    program.says("ended by itself: signal: 9").await;
    let second = app_pid(&client.post("/", &[], "").await);
    assert_ne!(first, second);
    let status = program.admin("/status").await;
    let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!((&status["app"]["pid"], &status["app"]["restarts"]), (&second.into(), &1.into()));
}

#[tokio::test]
async fn the_command_line_goes_before_the_configuration() {
    let mut program = Setup::new()
        .key("app: {command: [echo, from the configuration]}")
        .arguments(&["--", "sh", "-c", "echo from the command line; exec sleep 1000"])
        .start()
        .await;
    program.says("from the command line").await;
    assert!(!program.log().contains("from the configuration"));
}

#[tokio::test]
async fn it_runs_as_its_user() {
    if !need::root() {
        return;
    }
    let command = "echo I am $(id -un) with $LITEPILOT_NODE; exec sleep 1000";
    let mut program = Setup::new()
        .key(&format!("app: {{user: nobody, command: [sh, -c, '{command}']}}"))
        .start()
        .await;
    program.says("I am nobody with here").await;
}

async fn gone(pids: &[u32]) {
    let gone = async {
        while pids.iter().any(|pid| lives(*pid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("all to be gone", gone).await;
}

/// Also what the application had started. Who guarded it is an orphan then, and ends by itself.
#[tokio::test]
async fn if_it_is_killed_nothing_is_left_behind() {
    let app = "trap '' TERM; sleep 1000 & echo pids of the application: $PPID $$ $! .; wait";
    let mut program = Setup::new().arguments(&["--", "sh", "-c", app]).start().await;
    let line = program.says("pids of the application: ").await;
    let (_, pids) = line.split_once("application: ").unwrap();
    let pids: Vec<u32> = pids.split(' ').map_while(|pid| pid.parse().ok()).collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| lives(*pid)), "{line}");
    let reported = || async {
        let status = program.admin("/status").await;
        serde_json::from_slice::<serde_json::Value>(&status.body).unwrap()["app"]["pid"].clone()
    };
    while reported().await.is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(reported().await, pids[1], "the application's, not its guard's");
    program.signal(Signal::KILL);
    program.ended().await;
    gone(&pids).await;
}

#[tokio::test]
async fn what_runs_at_a_promotion_does_not_outlive_it_either() {
    let hook = "echo pid of the hook: $$ .; exec sleep 1000";
    let setup = Setup::new().key(&format!("app: {{on_promote: [sh, -c, '{hook}']}}"));
    let mut program = setup.start().await;
    let line = program.says("pid of the hook: ").await;
    let (_, pid) = line.split_once("hook: ").unwrap();
    let pid = pid.split(' ').next().unwrap().parse().unwrap();
    program.signal(Signal::KILL);
    program.ended().await;
    gone(&[pid]).await;
}

#[tokio::test]
async fn how_a_service_ends_is_told_as_the_applications_end_is() {
    let worker = "{name: worker, command: [sleep, '1000']}";
    let missing = "{name: missing, command: [/no/such/program]}";
    let program = Setup::new().key(&format!("services: [{worker}, {missing}]")).start().await;
    let mut events = program.ask_admin("/events").await;
    events.until("the service missing cannot be started").await;
    let pid = loop {
        let status: serde_json::Value =
            serde_json::from_slice(&program.admin("/status").await.body).unwrap();
        if let Some(pid) = status["services"][0]["pid"].as_u64() {
            break pid;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    send(Signal::KILL, pid as u32);
    events.until("the service worker's process has ended").await;
    events.until("the service worker was started again, pid").await;
}
