//! Applications that find out on a replica that they need to write.

use serde_json::json;

use crate::support::browser::{self, Browser};
use crate::support::cluster::{Cluster, NAMES, PRIMARY, Plan};
use crate::support::until;
use crate::support::wire::Message;

const REPLICA: usize = 1;

async fn get(cluster: &Cluster, node: usize, path: &str) -> Message {
    cluster.client(node).await.ask(&format!("GET {path}"), &[]).await
}

fn asks_for_nothing(answer: &Message) {
    assert_eq!((answer.field("litepilot-replay"), answer.field("fly-replay")), (None, None));
}

#[tokio::test]
async fn a_wish_for_a_replay_is_granted_in_either_form_and_never_seen_by_the_client() {
    let cluster = Plan::flask().proxy("learn: false").start().await;
    let fly = "&fly=region%3Dams%3Bstate%3Dopaque";
    for (query, state) in [("", None), (fly, Some("opaque")), ("&fly=instance%3Dxyz", None)] {
        let answer = get(&cluster, REPLICA, &format!("/replay?{query}")).await;
        assert_eq!((answer.status(), answer.field("litepilot-route")), (200, Some("replayed")));
        assert_eq!(answer.field("litepilot-node"), Some(NAMES[PRIMARY]));
        asks_for_nothing(&answer);
        let seen = browser::json(&answer);
        assert_eq!((&seen["node"], &seen["role"]), (&json!("n1"), &json!("primary")));
        let source = seen["replayed_from"].as_str().unwrap();
        assert!(source.starts_with("instance=n2;"), "{source}");
        let returned = source.split(';').find_map(|field| field.strip_prefix("state="));
        assert_eq!(returned, state);
    }
    // Somewhere else than the primary is not for us: the answer stands as it is.
    for elsewhere in ["app%3Dother", "elsewhere%3Dtrue", "app%3Dother%3Bregion%3Dams"] {
        let answer = get(&cluster, REPLICA, &format!("/replay?fly={elsewhere}")).await;
        assert_eq!((answer.status(), answer.text()), (200, "not for you"));
        assert_eq!(answer.field("litepilot-node"), Some(NAMES[REPLICA]));
        asks_for_nothing(&answer);
    }
    // No client can make itself pass for a replay.
    let forged = ["fly-replay-src: instance=evil"];
    let answer = cluster.client(PRIMARY).await.ask("GET /replay", &forged).await;
    assert_eq!(browser::json(&answer)["replayed_from"], json!(null));
}

#[tokio::test]
async fn the_primarys_own_application_cannot_ask_for_the_primary() {
    let cluster = Plan::flask().start().await;
    for node in [PRIMARY, REPLICA] {
        for fly in ["", "&fly=region%3Dams"] {
            let answer = get(&cluster, node, &format!("/replay?always=1{fly}")).await;
            assert_eq!((answer.status(), answer.problem().as_str()), (508, "loop-detected"));
            asks_for_nothing(&answer);
        }
    }
}

#[tokio::test]
async fn the_body_is_sent_again_too_if_it_was_kept() {
    let rules = "rules:\n  - {match: {method: POST}, as: read}\n";
    let cluster = Plan::flask().rules(rules).proxy("replay_body: 100KiB").start().await;
    let mut browser = Browser::new(&cluster);
    browser.sign(PRIMARY, "first").await;
    // To Litepilot that was a read: the primary's engine finds the write by itself, a little later.
    let none = json!("0000000000000000");
    until("the first write to be seen", || async {
        cluster.status(PRIMARY).await["position"]["txid"] != none
    })
    .await;
    cluster.level().await;
    // The copy refuses to be written, and the middleware says so.
    let text = "a text ".repeat(250);
    let entry = browser.sign(REPLICA, &text).await;
    let answer = browser.get(REPLICA, &format!("/api/entries/{entry}")).await;
    assert_eq!(browser::json(&answer)["text"], text);

    let id = ["X-Request-Id: kept"];
    let body = "x".repeat(100 * 1024);
    let mut client = cluster.client(REPLICA).await;
    let answer = client.post("/api/count", &id, &body).await;
    assert_eq!((answer.status(), answer.field("litepilot-route")), (200, Some("replayed")));
    let id = ["X-Request-Id: too-large"];
    let body = "x".repeat(100 * 1024 + 1);
    let mut client = cluster.client(REPLICA).await;
    let answer = client.post("/api/count", &id, &body).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (413, "body-too-large-to-replay"));
    let seen = get(&cluster, PRIMARY, "/api/count").await;
    assert_eq!(browser::json(&seen)["requests"], json!({"kept": 1}));
}

#[tokio::test]
async fn pages_that_write_on_get_work_on_a_replica() {
    let cluster = Plan::flask().proxy("learn: false").start().await;
    Browser::new(&cluster).sign(PRIMARY, "makes the tables").await;
    cluster.level().await;
    for (visits, node) in [(1, REPLICA), (2, 2), (3, PRIMARY)] {
        let answer = get(&cluster, node, "/visits").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let seen = browser::json(&answer);
        assert_eq!((&seen["visits"], &seen["node"]), (&json!(visits), &json!("n1")));
    }
}

#[tokio::test]
async fn a_django_view_that_writes_its_session_on_get_works_on_a_replica() {
    let cluster = Plan::django().proxy("learn: false").start().await;
    cluster.level().await;
    let mut browser = Browser::new(&cluster);
    for (visits, node) in [(1, REPLICA), (2, 2), (3, REPLICA), (4, PRIMARY)] {
        let answer = browser.get(node, "/visits/").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        asks_for_nothing(&answer);
        let seen = browser::json(&answer);
        assert_eq!((&seen["visits"], &seen["node"]), (&json!(visits), &json!("n1")));
        let route = if node == PRIMARY { "local" } else { "replayed" };
        assert_eq!(answer.field("litepilot-route"), Some(route));
        // Read-your-writes holds after a replay too.
        assert!(browser.cookies.contains_key("__txid"));
    }
}

#[tokio::test]
async fn what_asked_for_a_replay_once_goes_to_the_primary_at_once_through_every_node() {
    let cluster = Plan::flask().start().await;
    Browser::new(&cluster).sign(PRIMARY, "makes the tables").await;
    cluster.level().await;
    let first = get(&cluster, REPLICA, "/visits").await;
    assert_eq!((first.status(), first.field("litepilot-route")), (200, Some("replayed")));
    let other = 2;
    until("the other replica to be told", || async {
        cluster.status(other).await["learned_writes"][0]["request"] == "GET /visits"
    })
    .await;
    for (visits, node) in [(2, REPLICA), (3, other)] {
        let answer = get(&cluster, node, "/visits").await;
        assert_eq!((answer.status(), answer.field("litepilot-route")), (200, Some("primary")));
        assert_eq!(browser::json(&answer)["visits"], visits);
    }
    let refused = &cluster.status(REPLICA).await["suspected_writes"][0];
    assert_eq!((&refused["request"], &refused["refused"]), (&json!("GET /visits"), &json!(1)));
}
