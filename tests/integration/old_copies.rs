//! Reads at a replica whose copy is further behind than `proxy.max_lag`.

use litepilot::claim::Claim;
use tokio::net::TcpListener;

use crate::support::recorder::Recorder;
use crate::support::stage::{NAMES, Plane, Stage};

/// The node whose application has answered a read.
async fn reader(node: &Plane) -> String {
    let answer = node.client().await.ask("GET /", &[]).await;
    assert_eq!(answer.status(), 200);
    answer.field("litepilot-node").unwrap().to_owned()
}

#[tokio::test]
async fn the_primary_serves_them() {
    let apps = [Recorder::echoing().await, Recorder::echoing().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    pair.elects(0, 1, &Claim::unlimited());
    let replica = &pair.nodes[1];
    assert_eq!(reader(replica).await, NAMES[1]);
    replica.database.grows_old();
    assert_eq!(reader(replica).await, NAMES[0]);
}

#[tokio::test]
async fn one_that_is_old_is_better_than_none_where_the_primary_takes_no_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let apps = [Recorder::echoing().await, Recorder::echoing().await];
    let pair = Stage::new().first_at(nobody).before([&apps[0], &apps[1]]).await;
    pair.learns(1, 0, 1);
    let replica = &pair.nodes[1];
    replica.database.grows_old();
    assert_eq!(reader(replica).await, NAMES[1]);
}
