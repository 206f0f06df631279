//! What signals do.

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
async fn sigterm_sigint_and_sigquit_finish_what_is_under_way() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
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

#[tokio::test]
async fn what_is_meant_for_the_application_reaches_it_and_never_ends_us() {
    let app = "for signal in USR1 USR2 WINCH; do trap \"echo got $signal\" $signal; done
        echo all are trapped
        while :; do sleep 0.01; done";
    let mut program = Setup::new().arguments(&["--", "sh", "-c", app]).start().await;
    program.says("all are trapped").await;
    for (signal, name) in [(Signal::USR1, "USR1"), (Signal::USR2, "USR2"), (Signal::WINCH, "WINCH")]
    {
        program.signal(signal);
        program.says(&format!("got {name}")).await;
    }
    assert_eq!(program.admin("/health/live").await.status(), 200);
}

#[tokio::test]
async fn without_an_application_of_ours_such_signals_do_nothing() {
    let program = Setup::new().start().await;
    for signal in [Signal::USR1, Signal::USR2, Signal::WINCH] {
        program.signal(signal);
    }
    assert_eq!(program.admin("/health/live").await.status(), 200);
}

/// Changes its configuration, and has it read.
fn reconfigure(program: &Program, from: &str, to: &str) {
    let file = program.file("litepilot.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
    program.signal(Signal::HUP);
}

#[tokio::test]
async fn sighup_takes_files_that_are_newly_listed_and_names_what_waits_for_a_restart() {
    let setup = Setup::with_app().proxy("rules: [static]").proxy("max_lag: 10s");
    std::fs::write(setup.file("more.yml"), "rules:\n  - match: {path: /a}\n    as: passthrough\n")
        .unwrap();
    let mut program = setup.start().await;
    let mut client = program.client().await;
    assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("local"));

    reconfigure(&program, "rules: [static]", "rules: [static, more.yml]");
    program.says("rules reloaded").await;
    assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("passthrough"));
    assert!(!program.log().contains("after a restart"), "nothing else has changed");

    reconfigure(&program, "max_lag: 10s", "max_lag: 11s");
    let waits = program.says("after a restart").await;
    assert!(waits.contains("WARN") && waits.contains("proxy.max_lag"), "{waits}");

    reconfigure(&program, "max_lag", "max_lga");
    let problem = program.says("max_lga").await;
    assert!(problem.contains("ERROR") && problem.contains("max_lag"), "{problem}");
    let kept = program.says("configuration not reloaded").await;
    assert!(kept.contains("ERROR") && kept.contains("the old ones stay in force"), "{kept}");
    assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("passthrough"));
}
