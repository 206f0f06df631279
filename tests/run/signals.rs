//! SIGTERM, SIGINT and SIGHUP.

use rustix::process::Signal;

use super::program::{Program, Setup, app_pid, lives};
use super::raw::Client;

/// A client whose request is under way, and the application's process id.
async fn slow_request(program: &mut Program) -> (Client, u32) {
    let mut client = program.client().await;
    let app = app_pid(&client.ask("GET /", &[]).await);
    client.begin("POST /slow", &["Content-Length: 0"]).await;
    program.says("slow request begun").await;
    (client, app)
}

#[tokio::test]
async fn sigterm_and_sigint_finish_what_is_under_way() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = Setup::with_app().start().await;
        let (mut client, app) = slow_request(&mut program).await;
        program.signal(signal);
        program.refuses_connections().await;
        assert!(lives(app), "the application has to answer first");
        std::fs::write(program.file("go"), "").unwrap();
        assert_eq!(app_pid(&client.response().await), app);
        assert_eq!(program.ended().await.code(), Some(0));
        let log = program.log();
        assert!(log.contains("application says goodbye"), "SIGTERM has to reach it: {log}");
        assert!(!lives(app));
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut program = Setup::with_app().key("shutdown_timeout: 1h").start().await;
    let (mut client, app) = slow_request(&mut program).await;
    program.signal(Signal::TERM);
    program.refuses_connections().await;
    program.signal(Signal::TERM);
    program.ended().await;
    client.closed().await;
    assert!(!lives(app));
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let mut program = Setup::with_app().key("shutdown_timeout: 300ms").start().await;
    let (mut client, app) = slow_request(&mut program).await;
    program.signal(Signal::TERM);
    assert_eq!(program.ended().await.code(), Some(0));
    client.closed().await;
    assert!(!lives(app));
}

#[tokio::test]
async fn sighup_reloads_the_rules_and_refuses_bad_ones() {
    const PASSTHROUGH: &str = "rules:\n  - match: {path: /a}\n    as: passthrough\n";
    let setup = Setup::with_app().proxy("rules: [rules.yml]");
    std::fs::write(setup.file("rules.yml"), "rules: []\n").unwrap();
    let mut program = setup.start().await;
    let mut client = program.client().await;
    assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("local"));

    std::fs::write(program.file("rules.yml"), PASSTHROUGH).unwrap();
    program.signal(Signal::HUP);
    program.says("rules reloaded").await;
    assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("passthrough"));

    std::fs::write(program.file("rules.yml"), "rules:\n  - match: {pth: /a}\n    as: read\n")
        .unwrap();
    program.signal(Signal::HUP);
    program.says("rules not reloaded").await;
    let problem = program.says("rules.yml:2:").await;
    assert!(problem.contains("pth") && problem.contains("path"), "{problem}");
    assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("passthrough"));
}
