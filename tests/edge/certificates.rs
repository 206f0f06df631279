//! Certificates that are wrong, and such that are replaced while it runs.

use std::time::{Duration, SystemTime};

use litepilot::config::Config;
use litepilot::node::{Node, StartError};

use super::files::Files;
use super::node::{Launch, TestNode};
use super::recorder::Recorder;
use super::tls::{Offer, shown};
use super::wire::Wire;

/// Why a node does not start with that `proxy.tls`.
fn refused(files: &Files, tls: &str) -> String {
    let dir = files.path("").display().to_string();
    let yaml = format!(
        "node: test\ndata_dir: {dir}data\nadmin: {{listen: 127.0.0.1:0}}\n\
         litefs: {{engine: embedded, mount: {dir}}}\n\
         proxy: {{listen: '127.0.0.1:0', target: '127.0.0.1:1', db: db, {tls}}}\n"
    );
    let config = Config::from_yaml("litepilot.yml", yaml.as_bytes(), &|_| None).unwrap();
    match Node::start(config) {
        Err(StartError::Config(problems)) => problems.iter().map(|p| format!("{p}\n")).collect(),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn files_that_do_not_fit_are_bad_configuration() {
    let files = Files::of_shop();
    files.issue("blog", &["blog.test"]);
    std::fs::copy(files.path("blog.key"), files.path("shop.key")).unwrap();
    let why = refused(&files, &files.tls(&["blog", "shop"]));
    assert!(why.contains("shop.key:1:1: proxy.tls.key: it is not the key of"), "{why}");
    assert!(!why.contains("blog.key:"), "{why}");
    std::fs::write(files.path("blog.crt"), "nothing").unwrap();
    let why = refused(&files, &files.tls(&["blog", "shop"]));
    assert!(why.contains("proxy.tls.cert: it holds no PEM") && why.contains("shop.key"), "{why}");
}

/// That a new connection is shown it.
async fn shows(node: &TestNode, certificate: &[u8]) {
    let stream = Offer::default().connect(node).await.unwrap();
    assert_eq!(shown(&stream).as_ref(), certificate);
}

#[tokio::test]
async fn new_certificates_are_for_new_connections_and_a_download_goes_on() {
    let (app, files) = (Recorder::played().await, Files::new());
    let old = files.issue("shop", &["shop.test"]);
    let node = Launch::before(app.target()).proxy(&files.tls(&["shop"])).start();
    let stream = Offer::http1().connect(&node).await.unwrap();
    assert_eq!(shown(&stream), old);
    let mut download = Wire::new(stream);
    download.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut origin = app.connection().await;
    origin.request().await.unwrap();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc").await;
    assert_eq!(download.head().await.unwrap().status(), 200);
    assert_eq!(download.bytes(3).await, b"abc");

    let new = files.issue("shop", &["shop.test"]);
    node.reload();
    assert_eq!(node.events_with("certificates of proxy.tls reloaded"), 1);
    shows(&node, &new).await;
    origin.send("def").await;
    assert_eq!(download.bytes(3).await, b"def");
}

#[tokio::test]
async fn what_would_be_worse_is_refused_and_the_old_ones_stay() {
    let (app, files) = (Recorder::echoing().await, Files::new());
    let good = files.issue("shop", &["shop.test"]);
    let node = Launch::before(app.target()).proxy(&files.tls(&["shop"])).start();
    let kept = "certificates of proxy.tls not reloaded: the old ones stay in force";

    let key = std::fs::read(files.path("shop.key")).unwrap();
    files.issue("shop", &["shop.test"]);
    std::fs::write(files.path("shop.key"), key).unwrap();
    node.reload();
    assert_eq!(node.events_with(kept), 1);
    shows(&node, &good).await;

    files.issue_until("shop", &["shop.test"], SystemTime::now() - Duration::from_secs(3600));
    node.reload();
    assert_eq!(node.events_with(kept), 2);
    shows(&node, &good).await;
}

#[tokio::test]
async fn an_expired_one_is_told_and_its_successor_taken() {
    let (app, files) = (Recorder::echoing().await, Files::new());
    let expired = SystemTime::now() - Duration::from_secs(3600);
    let old = files.issue_until("shop", &["shop.test"], expired);
    files.issue("blog", &["blog.test"]);
    // The clock of a machine that boots may be wrong: that must not keep it down for good.
    let node = Launch::before(app.target()).proxy(&files.tls(&["shop", "blog"])).start();
    shows(&node, &old).await;
    let left = async || node.metric("litepilot_certificate_expiry_seconds").await.unwrap();
    assert!(left().await.parse::<f64>().unwrap() < 0.0);
    let mut events = node.admin().await;
    events.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    events.until("shop.crt: it expired on").await;

    let new = files.issue("shop", &["shop.test"]);
    node.reload();
    shows(&node, &new).await;
    super::wire::soon("the metric to follow", async {
        while left().await.parse::<f64>().unwrap() < 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
