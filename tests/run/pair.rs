//! What a pair of nodes tells scripts and hooks about its primary.

use std::fs;

use rustix::process::Signal;

use super::program::{Program, pair};

/// What `data_dir/.primary` holds; `None`: it is not there.
fn primary_file(program: &Program) -> Option<String> {
    fs::read_to_string(program.file("data/.primary")).ok()
}

#[tokio::test]
async fn the_primarys_name_is_in_a_file_where_it_is_another_node() {
    let [first, second] = pair();
    fs::create_dir(first.file("data")).unwrap();
    fs::write(first.file("data/.primary"), "long-gone\n").unwrap();
    let mut replica = second.start().await;
    assert_eq!(primary_file(&replica), None, "nobody is heard yet");
    let mut primary = first.start().await;
    replica.until("the file names it", |p| primary_file(p).as_deref() == Some("n1\n")).await;
    primary.until("the old one is gone", |p| primary_file(p).is_none()).await;
    primary.signal(Signal::TERM);
    primary.ended().await;
    replica.until("nobody is the primary", |p| primary_file(p).is_none()).await;
}

#[tokio::test]
async fn hooks_run_where_they_are_for() {
    let hooks = |told: &str| {
        let told = format!("echo {told} $LITEPILOT_NODE $LITEPILOT_EPOCH $LITEPILOT_PRIMARY.");
        format!("[sh, -c, '{told}']")
    };
    let app =
        format!("app: {{on_promote: {}, on_quorum_lost: {}}}", hooks("promoted"), hooks("lost"));
    let [first, second] = pair().map(|setup| setup.key(&app));
    let mut replica = second.start().await;
    let mut primary = first.start().await;
    primary.says("promoted n1 1 n1.").await;
    replica.until("the primary is heard", |p| primary_file(p).is_some()).await;
    primary.signal(Signal::KILL);
    primary.ended().await;
    let said = replica.says("lost n2 1 ").await;
    // Whether the primary is missed before the quorum is a matter of moments.
    assert!(said.contains("lost n2 1 .") || said.contains("lost n2 1 n1."), "{said}");
    replica.says("app.on_quorum_lost has run").await;
    assert!(!replica.log().contains("promoted"), "it is no primary");
}
