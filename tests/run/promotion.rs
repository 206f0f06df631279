//! `app.on_promote`: work that is done before writes are taken.

use super::program::Setup;

fn with_hook(command: &str) -> Setup {
    let setup = Setup::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/app.py");
    let socket = setup.file("app.sock").display().to_string();
    setup.key(&format!(
        "app: {{command: [python3, {script}, {socket}], on_promote: [sh, -c, '{command}']}}"
    ))
}

#[tokio::test]
async fn writes_wait_until_it_has_run() {
    let mut program = with_hook("echo hook begun; until test -e go; do sleep 0.01; done")
        .proxy("write_hold: 30s")
        .start()
        .await;
    program.says("hook begun").await;
    // Reads are served, so what the write waits for is not the application.
    assert_eq!(program.client().await.ask("GET /", &[]).await.status(), 200);
    let mut writer = program.client().await;
    writer.begin("POST /", &["Content-Length: 0"]).await;
    let held = "litepilot_requests_held{class=\"write\"} 1\n";
    while !program.admin("/metrics").await.text().contains(held) {
        tokio::task::yield_now().await;
    }
    assert_eq!(program.admin("/primary").await.status(), 503);
    std::fs::write(program.file("go"), "").unwrap();
    assert_eq!(writer.response().await.status(), 200);
    assert_eq!(program.admin("/primary").await.status(), 200);
    program.says("app.on_promote has run").await;
}

#[tokio::test]
async fn if_it_fails_the_node_takes_no_writes() {
    let mut program =
        with_hook("echo no tables >&2; exit 3").proxy("write_hold: 200ms").start().await;
    program.says("no tables").await;
    program.says("app.on_promote: it failed").await;
    let mut events = program.ask_admin("/events").await;
    let event = events.until("mend it and restart").await;
    assert!(event.contains("this node takes no writes"), "{event}");
    let answer = program.client().await.post("/", &[], "").await;
    assert_eq!((answer.status(), answer.problem().as_str()), (503, "no-primary"));
    assert!(answer.retry_is_safe() && answer.field("retry-after").is_some(), "{answer:?}");
    assert_eq!(program.client().await.ask("GET /", &[]).await.status(), 200);
    assert_eq!(program.admin("/primary").await.status(), 503);
}
