//! Without the primary, and after its return.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::cluster::{Cluster, NAMES, PRIMARY, Plan, REPLICAS};
use crate::support::until;
use crate::support::wire::Message;

/// Its problem, whether a retry is safe, and whether it says when.
fn problem(answer: &Message) -> (u16, String, bool, bool) {
    let when = answer.field("retry-after").is_some();
    (answer.status(), answer.problem(), answer.retry_is_safe(), when)
}

fn no(kind: &str) -> (u16, String, bool, bool) {
    (503, kind.to_owned(), true, true)
}

async fn healthy(cluster: &Cluster, node: usize) {
    for check in ["/health/live", "/health/ready", "/replica", "/replica?lag=1ms", "/read-only"] {
        let answer = cluster.admin(node, check).await;
        assert_eq!(answer.status(), 200, "{check} at {node}: {answer:?}");
    }
    assert_eq!(cluster.admin(node, "/primary").await.status(), 503);
    let health = cluster.client(node).await.ask("GET /litefs/health", &[]).await;
    assert_eq!((health.status(), health.text().trim()), (200, "OK"));
}

#[tokio::test]
async fn without_the_primary_replicas_serve_what_they_have_and_say_so() {
    let plan = Plan::flask().proxy("write_hold: 200ms").proxy("read_wait: 50ms");
    let mut cluster = plan.start().await;
    let (txid, epoch, entry) = {
        let mut browser = Browser::new(&cluster);
        let entry = browser.sign(PRIMARY, "text").await;
        (browser.cookies["__txid"].clone(), browser.cookies["__txid_epoch"].clone(), entry)
    };
    cluster.level().await;
    for replica in REPLICAS {
        assert_eq!(cluster.admin(replica, "/replica?lag=10s").await.status(), 200);
    }
    cluster.stop(PRIMARY).await;
    for replica in REPLICAS {
        cluster.without_primary(replica).await;
        healthy(&cluster, replica).await;
        let mut client = cluster.client(replica).await;
        let path = format!("GET /api/entries/{entry}");
        assert_eq!(client.ask(&path, &[]).await.status(), 200);
        let reached = format!("Cookie: __txid={txid}; __txid_epoch={epoch}");
        assert_eq!(client.ask(&path, &[&reached]).await.status(), 200);
        assert_eq!(client.ask(&path, &["Cookie: __txid=nonsense"]).await.status(), 200);
        for ahead in [5, 20_000] {
            let txid = u64::from_str_radix(&txid, 16).unwrap() + ahead;
            let ahead = format!("Cookie: __txid={txid:016x}; __txid_epoch={epoch}");
            assert_eq!(problem(&client.ask(&path, &[&ahead]).await), no("no-primary"));
            let eventual = [&ahead[..], "Litepilot-Consistency: eventual"];
            assert_eq!(client.ask(&path, &eventual).await.status(), 200);
        }
        let strong = ["Litepilot-Consistency: strong"];
        assert_eq!(problem(&client.ask(&path, &strong).await), no("no-primary"));
        assert_eq!(problem(&client.post("/api/count", &[], "").await), no("no-primary"));
        assert_eq!(problem(&client.ask("GET /replay", &[]).await), no("no-primary"));
    }
    // Alone, it says why nobody can become primary.
    cluster.stop(2).await;
    until("the loss of the quorum", || async { cluster.status(1).await["quorum"] == false }).await;
    healthy(&cluster, 1).await;
    let mut client = cluster.client(1).await;
    assert_eq!(problem(&client.post("/api/count", &[], "").await), no("no-quorum"));
    assert_eq!(client.ask("GET /api/entries", &[]).await.status(), 200);
}

#[tokio::test]
async fn every_node_tells_of_all_nodes() {
    let mut cluster = Plan::flask().start().await;
    {
        let mut browser = Browser::new(&cluster);
        browser.sign(1, "text").await;
    }
    cluster.level().await;
    let position = cluster.status(PRIMARY).await["position"].clone();
    assert_ne!(position["txid"], "0000000000000000");
    for node in 0..3 {
        until("all to be heard", || async {
            let status = cluster.status(node).await;
            status["nodes"].as_array().unwrap().iter().enumerate().all(|(i, member)| {
                member["node"] == NAMES[i]
                    && member["role"] == if i == PRIMARY { "primary" } else { "replica" }
                    && member["reachable"] == true
                    && member["position"] == position
                    && member["lag_ms"].is_u64()
            })
        })
        .await;
        let status = cluster.status(node).await;
        assert_eq!((&status["primary"]["node"], &status["quorum"]), (&json!("n1"), &json!(true)));
        assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(status["litefs"]["engine"], "embedded");
    }
    // The command says the same.
    let admin = format!("http://{}", cluster.admin_address(1));
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_litepilot"))
        .args(["status", "--json", "--admin", &admin])
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["node"], status["nodes"].as_array().unwrap().len()), (&json!("n2"), 3));
    assert_eq!(status["nodes"][0]["position"], position);

    cluster.stop(2).await;
    until("its loss to be told", || async {
        let members = cluster.status(PRIMARY).await["nodes"].clone();
        members[2]["reachable"] == false && members[1]["reachable"] == true
    })
    .await;
}

#[tokio::test]
async fn nodes_restart_in_any_order_and_nothing_is_lost() {
    let mut cluster = Plan::flask().proxy("write_hold: 25s").start().await;
    let mut entries = Vec::new();
    let mut old: Option<String> = None;
    for (epoch, order) in [[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]].into_iter().enumerate() {
        {
            let mut browser = Browser::new(&cluster);
            for node in order {
                entries.push(browser.sign(node, &format!("epoch {epoch}")).await);
            }
            for node in order {
                for entry in &entries {
                    assert!(browser.sees(node, *entry).await, "{entry} at {node}");
                }
            }
            assert_eq!(browser.cookies["__txid_epoch"], (epoch + 1).to_string());
            // A token of an earlier reign is satisfied by any copy of the present one.
            if let Some(old) = old {
                let mut client = cluster.client(order[2]).await;
                assert_eq!(client.ask("GET /api/entries", &[&old]).await.status(), 200);
            }
            old = Some(format!("Cookie: __txid=0000000000ffffff; __txid_epoch={}", epoch + 1));
        }
        for node in order {
            cluster.stop(node).await;
        }
        for node in order {
            cluster.start(node);
            if node != PRIMARY {
                // A node that starts alone serves its copy.
                until("its application to be found", || async {
                    cluster.status(node).await["app"]["state"] == "up"
                })
                .await;
                let mut client = cluster.client(node).await;
                let path = format!("GET /api/entries/{}", entries[0]);
                assert_eq!(client.ask(&path, &[]).await.status(), 200);
            }
        }
        cluster.settled().await;
    }
    for replica in REPLICAS {
        let diverged = cluster.members[replica].data("diverged");
        assert!(!diverged.exists(), "a copy was taken for one that differs");
    }
}

#[tokio::test]
async fn a_replica_that_was_away_catches_up() {
    let mut cluster = Plan::flask().start().await;
    cluster.stop(2).await;
    let entry = Browser::new(&cluster).sign(1, "while it was away").await;
    cluster.start(2);
    cluster.settled().await;
    cluster.level().await;
    assert!(Browser::new(&cluster).sees(2, entry).await);
    // Killed in the middle of anything it comes back too.
    cluster.kill(2);
    cluster.start(2);
    cluster.settled().await;
    cluster.level().await;
    let entries = |answer: Message| serde_json::from_slice::<Value>(&answer.body).unwrap();
    let mut client = cluster.client(2).await;
    assert_eq!(entries(client.ask("GET /api/entries", &[]).await).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nodes_that_lost_what_they_remember_are_taken_back() {
    let mut cluster = Plan::flask().proxy("write_hold: 25s").start().await;
    let mut entries = Vec::new();
    for lost in [vec![PRIMARY], vec![1], vec![PRIMARY, 1, 2]] {
        entries.push(Browser::new(&cluster).sign(1, "before").await);
        cluster.level().await;
        for node in [0, 1, 2] {
            cluster.stop(node).await;
        }
        for node in lost {
            std::fs::remove_dir_all(cluster.members[node].data("")).unwrap();
        }
        for node in [2, 1, 0] {
            cluster.start(node);
        }
        cluster.settled().await;
        let mut browser = Browser::new(&cluster);
        entries.push(browser.sign(2, "after").await);
        for node in [1, 0, 2] {
            for entry in &entries {
                assert!(browser.sees(node, *entry).await, "{entry} at {node}");
            }
        }
    }
    // A copy that is taken away comes back from the primary.
    cluster.stop(2).await;
    let mount = cluster.members[2].beside("");
    for name in ["db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"] {
        let _ = std::fs::remove_file(mount.join(name));
    }
    cluster.start(2);
    cluster.settled().await;
    cluster.level().await;
    let mut client = cluster.client(2).await;
    let path = format!("GET /api/entries/{}", entries[0]);
    let answer = client.ask(&path, &[]).await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[2])));
}
