//! `litepilot status` and `litepilot primary`.

use std::process::Stdio;
use std::sync::Arc;

use litepilot::status::{AppState, Status};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::ChildStdout;
use tokio::sync::Notify;

use super::node::{Node, a_primary, err, litepilot, out, run, status};

#[tokio::test]
async fn status_is_a_table_for_people_and_the_ports_own_json_for_programs() {
    let node = Node::start().await;
    let table = run(&["status", "--admin", &node.url()]).await;
    assert_eq!(table.status.code(), Some(0), "{}", err(&table));
    assert!(out(&table).contains("node-2  primary  no         -"), "{}", out(&table));
    assert!(out(&table).contains("primary  none"), "{}", out(&table));

    let json = run(&["status", "--json", "--admin", &node.url()]).await;
    assert_eq!(json.status.code(), Some(0), "{}", err(&json));
    assert_eq!(serde_json::from_str::<Status>(out(&json)).unwrap(), status());
}

#[tokio::test]
async fn ready_is_an_exit_code_with_the_reason() {
    let node = Node::start().await;
    node.status.lock().unwrap().app.state = AppState::Down;
    let down = run(&["status", "--ready", "--admin", &node.url()]).await;
    assert_eq!(down.status.code(), Some(1), "{}", out(&down));
    assert!(err(&down).contains("the application does not answer"), "{}", err(&down));

    node.status.lock().unwrap().app.state = AppState::Up;
    let up = run(&["status", "--ready", "--admin", &node.url()]).await;
    assert_eq!(up.status.code(), Some(0), "{}", err(&up));
}

/// The program's output, line by line.
fn lines(args: &[&str]) -> (tokio::process::Child, Lines<BufReader<ChildStdout>>) {
    let mut child = litepilot(args).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[tokio::test]
async fn status_is_shown_anew_when_it_changes() {
    let node = Node::start().await;
    let (_program, mut lines) = lines(&["status", "--watch", "--admin", &node.url()]);
    let mut until = async |text: &str| {
        while !lines.next_line().await.unwrap().unwrap().contains(text) {}
    };
    until("primary  none").await;
    node.status.lock().unwrap().primary = a_primary();
    until("primary  node-2 since").await;
}

#[tokio::test]
async fn events_are_printed_and_followed() {
    let node = Node::start().await;
    node.events.record("primary", "node-1 in epoch 3 takes writes");
    let (_program, mut people) = lines(&["events", "--admin", &node.url()]);
    let line = people.next_line().await.unwrap().unwrap();
    assert!(line.ends_with("Z  primary           node-1 in epoch 3 takes writes"), "{line}");
    node.events.record("app-down", "it ends");
    assert!(people.next_line().await.unwrap().unwrap().ends_with("app-down          it ends"));
    let (_program, mut json) = lines(&["events", "--json", "--admin", &node.url()]);
    let line = json.next_line().await.unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["kind"], event["at"].is_string()), (&"primary".into(), true));
}

#[tokio::test]
async fn primary_prints_the_name_or_fails() {
    let node = Node::start().await;
    let none = run(&["primary", "--admin", &node.url()]).await;
    assert_eq!((none.status.code(), out(&none)), (Some(1), ""));
    assert!(err(&none).contains("no primary"), "{}", err(&none));

    let none = run(&["primary", "--wait", "300ms", "--admin", &node.url()]).await;
    assert_eq!(none.status.code(), Some(1));

    node.status.lock().unwrap().primary = a_primary();
    let found = run(&["primary", "--admin", &node.url()]).await;
    assert_eq!((found.status.code(), out(&found)), (Some(0), "node-2\n"));
}

#[tokio::test]
async fn primary_waits_for_a_node_to_start_and_to_hear_of_one() {
    let (node, listener) = Node::bound().await;
    let waiting = litepilot(&["primary", "--wait", "60s", "--admin", &node.url()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The first connection is cut; those that follow hear of no primary until there is one.
    drop(listener.accept().await.unwrap());
    let asked = Arc::new(Notify::new());
    let (shown, heard) = (node.status.clone(), asked.clone());
    let source = move || {
        heard.notify_one();
        shown.lock().unwrap().clone()
    };
    node.serve(listener, Arc::new(source));
    asked.notified().await;
    node.status.lock().unwrap().primary = a_primary();
    let output = waiting.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), out(&output)), (Some(0), "node-2\n"));
}

#[tokio::test]
async fn the_configuration_says_where_the_node_is() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("litepilot.yml");
    let yaml = format!(
        "node: node-1\nproxy: {{target: 127.0.0.1:8000, db: db.sqlite3}}\nadmin: {{listen: '0.0.0.0:{}'}}\n",
        node.address.port()
    );
    std::fs::write(&file, yaml).unwrap();
    let found = run(&["status", "--json", "-c", file.to_str().unwrap()]).await;
    assert_eq!(found.status.code(), Some(0), "{}", err(&found));
    assert_eq!(serde_json::from_str::<Status>(out(&found)).unwrap(), status());
}

#[tokio::test]
async fn what_goes_wrong_is_said_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = format!("http://{}", listener.local_addr().unwrap());
    let something_else = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
    });
    let other = run(&["status", "--admin", &free]).await;
    assert_eq!(other.status.code(), Some(1));
    assert!(err(&other).contains("does not answer as an admin port"), "{}", err(&other));
    something_else.await.unwrap();

    // TCPMUX: below the ports that the system gives to others.
    let refused = run(&["status", "--admin", "http://127.0.0.1:1"]).await;
    assert_eq!((refused.status.code(), out(&refused)), (Some(1), ""));
    assert!(err(&refused).contains("Is `litepilot run` running"), "{}", err(&refused));

    let wrong = run(&["status", "--admin", "https://127.0.0.1:9180"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("http://127.0.0.1:9180"), "{}", err(&wrong));

    let node = Node::start().await;
    let by_name = format!("http://localhost:{}", node.address.port());
    let refused = run(&["status", "--admin", &by_name]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("421") && err(&refused).contains("admin.hosts"),
        "{}",
        err(&refused)
    );

    let wrong = run(&["primary", "--wait", "soon"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    let wrong = run(&["status", "-c", "/nonexistent/litepilot.yml"]).await;
    assert_eq!(wrong.status.code(), Some(78), "{}", err(&wrong));
}
