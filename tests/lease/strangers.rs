//! Whoever is not LiteFS gets nothing, and keeps LiteFS from nothing.

use std::sync::Arc;

use litepilot::engine::BoxFuture;
use litepilot::lease::{LeaseSource, PrimaryInfo, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Client, SECRET, serve};

/// A primary's, whose cluster ID cannot be set.
struct Primary;

impl LeaseSource for Primary {
    fn cluster_id(&self) -> Option<String> {
        None
    }

    fn set_cluster_id(&self, _id: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("no quorum".to_owned()) })
    }

    fn primary(&self) -> Option<PrimaryInfo> {
        None
    }

    fn create(&self) -> Session {
        Session("s".to_owned())
    }

    fn acquire(&self, session: &Session) -> bool {
        session.0 == "s"
    }

    fn renew(&self, session: &Session) -> bool {
        session.0 == "s"
    }

    fn release(&self, _session: &Session) -> bool {
        panic!("nobody may release it")
    }
}

#[tokio::test]
async fn without_the_password_nothing_is_answered() {
    let mut client = Client::connect(serve(Arc::new(Primary)).await).await;
    for secret in [None, Some(""), Some("0123456789abcdef"), Some("0123456789abcdef-leasX")] {
        let release = "PUT /v1/kv/litefs/primary?release=s";
        let (status, _) = client.ask_with(secret, release, "").await;
        assert_eq!(status, 403, "{secret:?}");
    }
    assert_eq!(client.ask("PUT /v1/session/renew/s", "").await.0, 200);
}

#[tokio::test]
async fn a_crowd_of_strangers_keeps_litefs_from_nothing() {
    let address = serve(Arc::new(Primary)).await;
    let mut litefs = Client::connect(address).await;
    assert_eq!(litefs.ask("PUT /v1/session/renew/s", "").await.0, 200);
    let mut crowd = Vec::new();
    for i in 0..500 {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        if i % 2 == 0 {
            // It may have given way already.
            let _ = stranger.write_all(b"PUT /v1/session/renew/s HTTP/1.1\r\nHost").await;
        }
        crowd.push(stranger);
    }
    assert_eq!(litefs.ask("PUT /v1/session/renew/s", "").await.0, 200, "on its old connection");
    let mut again = Client::connect(address).await;
    assert_eq!(again.ask("PUT /v1/session/renew/s", "").await.0, 200, "on a new one");
    drop(crowd);
}

#[tokio::test]
async fn anything_else_is_404() {
    let mut client = Client::connect(serve(Arc::new(Primary)).await).await;
    for line in
        ["GET /", "PUT /v1/catalog/register", "GET /v1/kv/other", "DELETE /v1/kv/litefs/primary"]
    {
        assert_eq!(client.ask(line, "").await.0, 404, "{line}");
    }
    let huge = "x".repeat(100_000);
    assert_eq!(client.ask("PUT /v1/kv/litefs/primary/clusterid", &huge).await.0, 404);
}

#[tokio::test]
async fn a_cluster_id_that_cannot_be_set_is_a_failure() {
    let mut client = Client::connect(serve(Arc::new(Primary)).await).await;
    let (status, why) = client.ask("PUT /v1/kv/litefs/primary/clusterid", "LFSC1").await;
    assert_eq!((status.as_u16(), why.as_str()), (500, "no quorum"));
}

#[tokio::test]
async fn garbage_and_silence_end_only_themselves() {
    let address = serve(Arc::new(Primary)).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(&[b'x'; 100_000]).await.unwrap_or_default();
    // It is hung up on, after a 400 or at once.
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.ask("PUT /v1/session/renew/s", "").await.0, 200);
    assert_eq!(client.ask_with(Some(SECRET), "PUT /v1/session/renew/t", "").await.0, 404);
}
