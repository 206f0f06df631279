//! Logs as whoever reads a node's stderr sees them. Each test runs itself again as a process of its
//! own, since a process has one log.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use litepilot::config::{Log, LogFormat};
use litepilot::telemetry::log;

/// Set in the process that logs.
const LOGGING: &str = "LITEPILOT_TEST_LOGGING";

fn logging() -> bool {
    std::env::var_os(LOGGING).is_some()
}

/// Starts the named test again, as the process that logs.
fn again(test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(LOGGING, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn lines(child: Child) -> Vec<String> {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

fn init(format: LogFormat) {
    let config = Log { format, level: tracing::Level::INFO, access: Default::default() };
    log::init(&config).unwrap();
    log::init(&config).unwrap();
}

fn say_something() {
    tracing::info!(target: "app", app = "guestbook", "it says \"hello\"\nand \x1b[31mmore");
    tracing::debug!(target: "app", "not at this level");
    tracing::error!(target: "h2::proto", "what a client can have a library say as often as it likes");
    log::flush(Duration::from_secs(30));
}

#[test]
fn text_is_a_line_per_event_without_control_characters() {
    if logging() {
        init(LogFormat::Text);
        return say_something();
    }
    let lines = lines(again("text_is_a_line_per_event_without_control_characters"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    let text = &lines[0];
    assert!(text.contains("INFO it says \"hello\"\\nand"), "{text}");
    assert!(text.contains("app=\"guestbook\""), "{text}");
    assert!(!text.contains('\x1b') && !text.contains("not at this level"), "{text}");
}

#[test]
fn json_is_an_object_per_line() {
    if logging() {
        init(LogFormat::Json);
        return say_something();
    }
    let lines = lines(again("json_is_an_object_per_line"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(event["level"], "INFO");
    assert_eq!(event["message"], "it says \"hello\"\nand \u{1b}[31mmore");
    assert_eq!(event["app"], "guestbook");
    assert!(event["timestamp"].is_string(), "{event}");
}

#[test]
fn nobody_waits_for_a_reader_that_stalls() {
    if logging() {
        init(LogFormat::Text);
        // Far more than a pipe and the queue hold.
        for i in 0..50_000 {
            tracing::info!(target: "app", i, "a line");
        }
        assert!(log::dropped_lines() > 0);
        return log::flush(Duration::from_millis(100));
    }
    // Nobody reads until it has ended by itself.
    let mut child = again("nobody_waits_for_a_reader_that_stalls");
    assert!(child.wait().unwrap().success());
}
