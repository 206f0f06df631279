//! A cluster whose nodes speak TLS to each other: clients notice nothing.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::browser::Browser;
use crate::support::cluster::{NAMES, PRIMARY, Plan, REPLICAS};
use crate::support::until;

#[tokio::test]
async fn it_forwards_gossips_and_replicates() {
    let mut cluster = Plan::flask().tls().start().await;
    let mut entries = Vec::new();
    for node in 0..NAMES.len() {
        let mut browser = Browser::new(&cluster);
        entries.push(browser.sign(node, "text").await);
        for reader in 0..NAMES.len() {
            assert!(browser.sees(reader, entries[node]).await, "{node} {reader}");
        }
    }
    cluster.level().await;
    for node in 0..NAMES.len() {
        let status = cluster.status(node).await;
        let nodes = status["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), NAMES.len());
        assert!(nodes.iter().all(|node| node["reachable"] == true), "{status}");
    }

    cluster.stop(PRIMARY).await;
    cluster.without_primary(REPLICAS[0]).await;
    cluster.start(PRIMARY);
    cluster.settled().await;
    let mut browser = Browser::new(&cluster);
    entries.push(browser.sign(REPLICAS[0], "after its return").await);
    for entry in entries {
        assert!(browser.sees(REPLICAS[1], entry).await);
    }
}

#[tokio::test]
async fn nobody_without_a_certificate_is_let_in() {
    let cluster = Plan::flask().tls().start().await;
    let mut stranger = TcpStream::connect(cluster.peer_address(PRIMARY)).await.unwrap();
    stranger.write_all(b"LITEPILOT/1 litepilot-http/1 n2 n1\n").await.unwrap();
    let mut answer = Vec::new();
    stranger.read_to_end(&mut answer).await.unwrap();
    // An alert of TLS, and no more.
    assert!(answer.starts_with(&[21, 3]) && answer.len() < 16, "{answer:?}");
}

#[tokio::test]
async fn its_metrics_say_when_certificates_expire() {
    let cluster = Plan::flask().tls().start().await;
    let name = "litepilot_certificate_expiry_seconds";
    until("the metric", || async { cluster.metric(PRIMARY, name).await > 60 * 60 }).await;
}
