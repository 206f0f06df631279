//! `litepilot promote`, `litepilot members`, and what of `litepilot on-primary` needs no cluster.

use std::process::Output;

use super::node::{Node, err, out, run, write_private};

/// It failed, and said so in these words.
fn failed(output: &Output, code: i32, words: &[&str]) {
    assert_eq!((output.status.code(), out(output)), (Some(code), ""), "{}", err(output));
    for word in words {
        assert!(err(output).contains(word), "no {word:?} in: {}", err(output));
    }
}

#[tokio::test]
async fn promote_says_who_is_primary_or_why_not() {
    let node = Node::start().await;
    for (args, said) in [
        (&["promote"][..], "node-1 is the primary, in epoch 4\n"),
        (&["promote", "node-1"], "node-1 is the primary, in epoch 4\n"),
        (&["promote", "--force", "node-2"], "node-2 is the primary, in epoch 5\n"),
    ] {
        let promoted = node.asked(args).await;
        assert_eq!((promoted.status.code(), out(&promoted)), (Some(0), said), "{}", err(&promoted));
    }
    let unfit = node.asked(&["promote", "node-2"]).await;
    failed(&unfit, 1, &["node-2 cannot become primary now: its application is down", "409"]);
    failed(&node.asked(&["promote", "node-3"]).await, 1, &["there is no member node-3", "404"]);
    failed(&node.asked(&["promote", "a/b"]).await, 2, &["no node name"]);
}

#[tokio::test]
async fn members_are_listed_and_changed() {
    const TABLE: &str = "\
NODE    ADDRESS         DATA          VOTES
node-1  127.0.0.1:4321  yes           yes
node-2  127.0.0.1:4321  no (witness)  yes
";
    let node = Node::start().await;
    for args in [
        &["members"][..],
        &["members", "list"],
        &["members", "add", "node-4=10.0.0.4:4324"],
        &["members", "replace", "node-2"],
    ] {
        let listed = node.asked(args).await;
        assert_eq!((listed.status.code(), out(&listed)), (Some(0), TABLE), "{}", err(&listed));
    }
    let by_anybody = run(&["members", "--admin", &node.url()]).await;
    assert_eq!((by_anybody.status.code(), out(&by_anybody)), (Some(0), TABLE));
    failed(&node.asked(&["members", "remove", "node-1"]).await, 1, &["not Remove", "409"]);
    failed(&node.asked(&["members", "add", "node-4"]).await, 2, &["NODE=HOST:PORT"]);
    failed(&node.asked(&["members", "add", "node-4=here"]).await, 2, &["HOST:PORT"]);
    failed(&node.asked(&["members", "forget", "node-1"]).await, 2, &["forget"]);
    failed(&node.asked(&["members", "remove"]).await, 2, &["NODE"]);
}

#[tokio::test]
async fn what_changes_something_needs_the_token() {
    let node = Node::start().await;
    let wrong = node.token_file().with_file_name("wrong");
    write_private(&wrong, "fedcba9876543210");
    let open = node.token_file().with_file_name("open");
    std::fs::write(&open, "0123456789abcdef").unwrap();
    let url = node.url();
    for command in
        [&["promote"][..], &["members", "remove", "node-2"], &["on-primary", "--wait", "30s"]]
    {
        let ask = async |options: &[&str]| {
            let end: &[&str] = if command[0] == "on-primary" { &["--", "true"] } else { &[] };
            run(&[command, options, end].concat()).await
        };
        let token_file = |file: &std::path::Path| file.to_str().unwrap().to_owned();
        failed(&ask(&["--admin", &url]).await, 2, &["--token-file"]);
        failed(&ask(&["--token-file", &token_file(&wrong)]).await, 2, &["--admin"]);
        let refused = ask(&["--admin", &url, "--token-file", &token_file(&wrong)]).await;
        failed(&refused, 1, &["401", "admin.token"]);
        let refused = ask(&["--admin", &url, "--token-file", &token_file(&open)]).await;
        failed(&refused, 1, &["chmod 600"]);
        failed(&ask(&["-c", "/nonexistent/litepilot.yml"]).await, 78, &["/nonexistent"]);
    }
    let none = run(&["promote", "--admin", &url, "--token-file", "/nonexistent/token"]).await;
    failed(&none, 1, &["/nonexistent/token", "is this its data_dir?"]);
}

#[tokio::test]
async fn the_configuration_says_where_node_and_token_are() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("litepilot.yml");
    let yaml = |admin: &str| {
        let port = node.address.port();
        let yaml = format!(
            "node: node-1\ndata_dir: data\nproxy: {{target: 127.0.0.1:8000, db: db.sqlite3}}\nadmin: {{listen: '127.0.0.1:{port}'{admin}}}\n",
        );
        std::fs::write(&file, yaml).unwrap();
    };
    let promote = async || run(&["promote", "-c", file.to_str().unwrap()]).await;
    yaml("");
    failed(&promote().await, 1, &["data/admin.token", "at its first start"]);
    std::fs::create_dir(dir.path().join("data")).unwrap();
    write_private(&dir.path().join("data/admin.token"), "0123456789abcdef\n");
    assert_eq!(promote().await.status.code(), Some(0));
    yaml(", token: fedcba9876543210");
    failed(&promote().await, 1, &["401"]);
    yaml(", token: 0123456789abcdef");
    assert_eq!(promote().await.status.code(), Some(0));
}

#[tokio::test]
async fn on_primary_wants_a_command_and_a_key_that_is_one() {
    let node = Node::start().await;
    failed(&node.asked(&["on-primary"]).await, 2, &["CMD"]);
    failed(&node.asked(&["on-primary", "true"]).await, 2, &["true"]);
    for args in [&["--once", "a b"][..], &["--once", ""], &["--wait", "soon"]] {
        let args = [&["on-primary"], args, &["--", "true"]].concat();
        failed(&run(&args).await, 2, &[]);
    }
}

#[tokio::test]
async fn a_success_that_cannot_be_remembered_is_a_failure() {
    let node = Node::start().await;
    let (url, file) = (node.url(), node.token_file());
    let node = ["--admin", &url, "--token-file", file.to_str().unwrap()];
    let ran = async |args: &[&str]| run(&[&["on-primary"], &node[..], args].concat()).await;
    let done = ran(&["--once", "v1", "--", "true"]).await;
    failed(&done, 1, &["exited with 0, but counts as failed", "majority of the voters"]);
    // What the command says of itself comes first.
    assert_eq!(ran(&["--once", "v1", "--", "sh", "-c", "exit 7"]).await.status.code(), Some(7));
    assert_eq!(ran(&["--", "true"]).await.status.code(), Some(0));
}
