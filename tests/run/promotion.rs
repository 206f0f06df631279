//! `app.on_promote`: work that is done before writes are taken.

use std::time::Duration;

use super::program::Setup;
use super::wire::soon;

/// Said of the application.
const IS_UP: &str = "app.sock is up";

fn with_hook(command: &str) -> Setup {
    Setup::with_app_and(&format!("on_promote: [sh, -c, '{command}']"))
}

#[tokio::test]
async fn writes_wait_until_it_has_run() {
    let mut program = with_hook("echo hook begun; until test -e go; do sleep 0.01; done")
        .proxy("write_hold: 30s")
        .start()
        .await;
    program.says("app.on_promote runs; writes wait for it").await;
    program.says("hook begun").await;
    program.says(IS_UP).await;
    // What the write waits for is not the application.
    assert_eq!(program.client().await.ask("GET /", &[]).await.status(), 200);
    let mut writer = program.client().await;
    writer.begin("POST /", &["Content-Length: 0"]).await;
    let held = "litepilot_requests_held{class=\"write\"} 1\n";
    let is_held = async {
        while !program.admin("/metrics").await.text().contains(held) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the write to be held", is_held).await;
    assert_eq!(program.admin("/primary").await.status(), 503);
    std::fs::write(program.file("go"), "").unwrap();
    assert_eq!(writer.response().await.status(), 200);
    assert_eq!(program.admin("/primary").await.status(), 200);
    program.says("app.on_promote has run").await;
}

#[tokio::test]
async fn it_is_told_who_and_in_which_epoch() {
    let mut program =
        with_hook("echo told $LITEPILOT_NODE $LITEPILOT_EPOCH $LITEPILOT_PRIMARY").start().await;
    program.says("told here 1 here").await;
}

#[tokio::test]
async fn if_it_fails_the_node_takes_no_writes() {
    let mut program =
        with_hook("echo no tables >&2; exit 3").proxy("write_hold: 200ms").start().await;
    program.says("no tables").await;
    program.says(IS_UP).await;
    program.says("app.on_promote: it failed").await;
    let mut events = program.ask_admin("/events").await;
    let event = events.until("fix it and restart").await;
    assert!(event.contains("this node takes no writes"), "{event}");
    let answer = program.client().await.post("/", &[], "").await;
    assert_eq!((answer.status(), answer.problem().as_str()), (503, "no-primary"));
    assert!(answer.retry_is_safe() && answer.field("retry-after").is_some(), "{answer:?}");
    assert_eq!(program.client().await.ask("GET /", &[]).await.status(), 200);
    assert_eq!(program.admin("/primary").await.status(), 503);
}
