//! The application as the program's child.

use rustix::process::{Signal, getuid};

use super::program::{Setup, app_pid, lives, send};

#[tokio::test]
async fn it_is_started_and_logged_and_started_again_when_it_dies() {
    let mut program = Setup::with_app().start().await;
    let mut client = program.client().await;
    let first = app_pid(&client.ask("GET /", &[]).await);
    let line = program.says("application says hello").await;
    assert!(line.contains("stream=\"stdout\""), "{line}");
    send(Signal::KILL, first);
    program.until("it is gone", |_| !lives(first)).await;
    // It waits for the next one.
    let second = app_pid(&client.post("/", &[], "").await);
    assert_ne!(first, second);
    program.says("ended by itself: signal: 9").await;
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
    if !getuid().is_root() {
        return eprintln!("skipped: only root can switch users");
    }
    let command = "echo I am $(id -un) with $LITEPILOT_NODE; exec sleep 1000";
    let mut program = Setup::new()
        .key(&format!("app: {{user: nobody, command: [sh, -c, '{command}']}}"))
        .start()
        .await;
    program.says("I am nobody with here").await;
}
