//! The access log, as whoever reads standard error sees it.

use super::program::Setup;

#[tokio::test]
async fn each_request_is_a_line() {
    let mut program = Setup::with_app().key("log: {access: on}").start().await;
    let mut client = program.client().await;
    client.ask("GET /read?a=1", &[]).await;
    client.post("/write", &[], "").await;
    for words in [
        "method=GET uri=\"/read?a=1\" status=200 class=\"read\" route=\"local\"",
        "method=POST uri=\"/write\" status=200 class=\"write\" route=\"local\"",
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
async fn only_some_classes_are_logged_and_no_secret_ever() {
    let mut program = Setup::with_app().key("log: {access: [write], level: trace}").start().await;
    let mut client = program.client().await;
    let fields =
        ["Authorization: Bearer s3cret-1", "Cookie: session=s3cret-2", "X-Request-Id: the-id"];
    client.ask("GET /unlogged", &[]).await;
    client.post("/write?page=2&access_token=s3cret-3", &fields, "password=s3cret-4").await;
    let line = program.says("uri=").await;
    assert!(line.contains("uri=\"/write?page=2&access_token=***\""), "{line}");
    assert!(line.contains("class=\"write\"") && line.contains("request_id=\"the-id\""), "{line}");
    program.signal(rustix::process::Signal::TERM);
    program.ended().await;
    let log = program.log();
    assert!(!log.contains("/unlogged") && !log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn by_default_requests_are_not_logged() {
    let mut program = Setup::with_app().start().await;
    program.client().await.ask("GET /unlogged", &[]).await;
    program.signal(rustix::process::Signal::TERM);
    program.ended().await;
    assert!(!program.log().contains("/unlogged"));
}
