//! The access log, as whoever reads standard error sees it.

use super::program::Setup;

#[tokio::test]
async fn each_request_is_a_line() {
    let mut program = Setup::with_app().key("log: {access: on}").start().await;
    let mut client = program.client().await;
    client.ask("GET /read?a=1", &[]).await;
    client.post("/write", &[], "").await;
    for words in [
        "method=GET uri=/read?a=1 status=200 class=\"read\" route=\"local\"",
        "method=POST uri=/write status=200 class=\"write\" route=\"local\"",
    ] {
        let line = program.says(words).await;
        assert!(line.contains("client=\"127.0.0.1\"") && line.contains("took_ms="), "{line}");
    }
}

#[tokio::test]
async fn each_request_is_an_object() {
    let mut program = Setup::with_app().key("log: {access: on, format: json}").start().await;
    program.client().await.ask("GET /read?a=1", &[]).await;
    let line = program.says("/read?a=1").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (key, value) in [
        ("uri", "/read?a=1"),
        ("method", "GET"),
        ("class", "read"),
        ("route", "local"),
        ("client", "127.0.0.1"),
        ("target", "access"),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert_eq!(line["status"], 200);
    assert!(line["took_ms"].is_f64() && line["timestamp"].is_string(), "{line}");
}

#[tokio::test]
async fn by_default_requests_are_not_logged() {
    let mut program = Setup::with_app().start().await;
    program.client().await.ask("GET /unlogged", &[]).await;
    program.signal(rustix::process::Signal::TERM);
    program.ended().await;
    assert!(!program.log().contains("/unlogged"));
}
