//! Writes on their way to the primary.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::browser::{Browser, json};
use crate::support::cluster::{Cluster, NAMES, PRIMARY, Plan, REPLICAS};
use crate::support::raw::Client;
use crate::support::wire::Message;
use crate::support::{together, until};

const REPLICA: usize = 1;

#[tokio::test]
async fn an_upload_of_100_mb_streams_through_a_replica_to_the_primary() {
    upload(Plan::flask()).await;
}

#[tokio::test]
async fn over_tls_too_an_upload_of_100_mb_streams_through_a_replica_to_the_primary() {
    upload(Plan::flask().tls()).await;
}

async fn upload(plan: Plan) {
    const LENGTH: usize = 100_000_000;
    // hashlib.sha256(bytes(i % 251 for i in range(100_000_000))).hexdigest()
    const SHA256: &str = "b736eb4f696a0f5f7df764258137852674817095d20f2adb9aba29758540efce";
    let cluster = plan.start().await;
    let pattern: Vec<u8> = (0..251 * 1000).map(|i| (i % 251) as u8).collect();
    for chunked in [false, true] {
        let mut client = cluster.client(REPLICA).await;
        let framing = match chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {LENGTH}"),
        };
        client.begin("POST /upload", &[&framing]).await;
        let mut left = LENGTH;
        while left > 0 {
            let piece = &pattern[..left.min(pattern.len())];
            if chunked {
                client.send(format!("{:x}\r\n", piece.len())).await;
            }
            client.send(piece).await;
            if chunked {
                client.send("\r\n").await;
            }
            left -= piece.len();
        }
        if chunked {
            client.send("0\r\n\r\n").await;
        }
        let answer = client.response().await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.field("litepilot-node"), Some(NAMES[PRIMARY]));
        let arrived = json(&answer);
        assert_eq!((&arrived["bytes"], &arrived["sha256"]), (&LENGTH.into(), &SHA256.into()));
    }
}

/// Counts a request with an id of its own; the answer, which breaks off if the application is killed
/// in the middle of it.
async fn count(node: SocketAddr, id: &str) -> Message {
    let id = format!("X-Request-Id: {id}");
    let mut client = Client::connect(node).await;
    client.begin("POST /api/count", &[&id, "Content-Length: 0"]).await;
    let answer = client.head().await.expect("an answer, whatever happens");
    match answer.field("content-type") {
        Some("application/problem+json") => client.rest_of_response(answer, "POST").await,
        _ => answer,
    }
}

/// How often the application has seen each id.
async fn seen(cluster: &Cluster) -> serde_json::Value {
    let answer = cluster.client(PRIMARY).await.ask("GET /api/count", &[]).await;
    json(&answer)["requests"].clone()
}

/// Writes from many clients at once through these nodes, each with an id of its own.
struct Load {
    answered: AtomicUsize,
}

impl Load {
    const CLIENTS: usize = 50;
    const EACH: usize = 8;

    /// Returns the answers, by id.
    async fn run(&self, nodes: &[SocketAddr]) -> Vec<(String, Message)> {
        let clients = (0..Self::CLIENTS).map(|client| async move {
            let mut answers = Vec::new();
            for n in 0..Self::EACH {
                let id = format!("{client}-{n}");
                let answer = count(nodes[(client + n) % nodes.len()], &id).await;
                self.answered.fetch_add(1, SeqCst);
                answers.push((id, answer));
            }
            answers
        });
        together(clients).await.into_iter().flatten().collect()
    }

    /// Returns once it is well under way.
    async fn runs(&self) {
        until("some load", || async { self.answered.load(SeqCst) > Self::CLIENTS }).await;
    }

    /// Compares what was told with what was done.
    async fn check(cluster: &Cluster, answers: Vec<(String, Message)>) {
        let seen = seen(cluster).await;
        let mut unknown = 0;
        for (id, answer) in answers {
            let times = seen[&id].as_u64().unwrap_or(0);
            match answer.status() {
                200 => assert_eq!(times, 1, "{id}"),
                // It was on its way to the application when that, or its node, was killed.
                502 => {
                    assert_eq!(answer.problem(), "write-outcome-unknown");
                    assert!(!answer.retry_is_safe() && times <= 1, "{id}: {times}");
                    unknown += 1;
                }
                _ => panic!("{id}: {answer:?}"),
            }
        }
        assert!(unknown <= Self::CLIENTS, "the others waited: {unknown}");
    }
}

const HELD: &str = "litepilot_requests_held{class=\"write\"}";

#[tokio::test]
async fn while_the_primarys_application_is_away_writes_wait_and_none_is_sent_twice() {
    let mut cluster = Plan::flask().proxy("write_hold: 25s").start().await;
    // The application is not the cluster's business: it is killed beside it.
    let mut app = cluster.members[PRIMARY].take_app();
    let load = Load { answered: AtomicUsize::new(0) };
    let nodes = [0, 1, 2].map(|node| cluster.address(node));
    let interruption = async {
        load.runs().await;
        app.kill_9();
        for node in 0..3 {
            until("writes to be held", || async { cluster.metric(node, HELD).await > 0 }).await;
        }
        app.restart();
    };
    let (answers, ()) = tokio::join!(load.run(&nodes), interruption);
    Load::check(&cluster, answers).await;
}

#[tokio::test]
async fn while_the_primary_is_away_writes_wait_and_none_is_sent_twice() {
    let mut cluster = Plan::flask().proxy("write_hold: 25s").start().await;
    let nodes = REPLICAS.map(|node| cluster.address(node));
    for round in ["killed", "stopped"] {
        let load = Load { answered: AtomicUsize::new(0) };
        let interruption = async {
            load.runs().await;
            match round {
                "killed" => cluster.kill(PRIMARY),
                _ => cluster.stop(PRIMARY).await,
            }
            for node in REPLICAS {
                until("writes to be held", || async { cluster.metric(node, HELD).await > 0 }).await;
            }
            cluster.start(PRIMARY);
        };
        let (answers, ()) = tokio::join!(load.run(&nodes), interruption);
        if round == "stopped" {
            let lost = answers.iter().filter(|(_, answer)| answer.status() != 200).count();
            assert_eq!(lost, 0, "whoever stops in good order answers what it has taken");
        }
        Load::check(&cluster, answers).await;
        let cleared = rusqlite::Connection::open(cluster.members[PRIMARY].database()).unwrap();
        cleared.execute("DELETE FROM requests", []).unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place_and_too_many_are_refused() {
    let mut cluster = Plan::flask().proxy("write_hold: 1h").proxy("held_writes: 1").start().await;
    cluster.stop(PRIMARY).await;
    cluster.without_primary(REPLICA).await;
    let mut waiting = Client::abrupt(cluster.address(REPLICA)).await;
    waiting.begin("POST /api/count", &["Content-Length: 0", "X-Request-Id: left"]).await;
    until("it to wait", || async { cluster.metric(REPLICA, HELD).await == 1 }).await;
    let answer = count(cluster.address(REPLICA), "refused").await;
    assert_eq!((answer.status(), answer.problem().as_str()), (503, "too-many-held"));
    assert!(answer.retry_is_safe() && answer.field("retry-after").is_some());
    drop(waiting);
    until("its place to be free", || async { cluster.metric(REPLICA, HELD).await == 0 }).await;

    let mut patient = cluster.client(REPLICA).await;
    patient.begin("POST /api/count", &["Content-Length: 0", "X-Request-Id: patient"]).await;
    until("it to wait", || async { cluster.metric(REPLICA, HELD).await == 1 }).await;
    cluster.start(PRIMARY);
    assert_eq!(patient.response().await.status(), 200);
    assert_eq!(seen(&cluster).await, serde_json::json!({"patient": 1}));
}

#[tokio::test]
async fn a_body_that_streams_arrives_whole_or_not_at_all_however_often_it_is_refused() {
    const LENGTH: usize = 3_000_000;
    // hashlib.sha256(bytes(i % 251 for i in range(3_000_000))).hexdigest()
    const SHA256: &str = "4d3870d4655ed773027a713ea136507d22e076248e0e9cc920a996039653b76f";
    let pattern: Vec<u8> = (0..LENGTH).map(|i| (i % 251) as u8).collect();
    let mut cluster = Plan::flask().proxy("write_hold: 25s").start().await;
    let mut app = cluster.members[PRIMARY].take_app();
    for chunked in [false, true] {
        app.kill_9();
        let mut client = cluster.client(REPLICA).await;
        let upload = async {
            let framing = match chunked {
                true => "Transfer-Encoding: chunked".to_owned(),
                false => format!("Content-Length: {LENGTH}"),
            };
            client.begin("POST /upload", &[&framing]).await;
            for piece in pattern.chunks(100_000) {
                let framed = match chunked {
                    true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                    false => piece.to_vec(),
                };
                client.send(framed).await;
            }
            if chunked {
                client.send("0\r\n\r\n").await;
            }
            client.response().await
        };
        let repair = async {
            until("it to be held", || async { cluster.metric(REPLICA, HELD).await == 1 }).await;
            app.restart();
        };
        let (answer, ()) = tokio::join!(upload, repair);
        assert_eq!(answer.status(), 200, "chunked {chunked}: {answer:?}");
        let arrived = json(&answer);
        assert_eq!((&arrived["bytes"], &arrived["sha256"]), (&LENGTH.into(), &SHA256.into()));
    }
}

#[tokio::test]
async fn litepilots_that_take_each_other_for_their_applications_notice_it() {
    let cluster = Plan::flask().in_a_circle().start().await;
    for node in 0..3 {
        for request in ["GET /", "POST /api/count"] {
            let mut client = cluster.client(node).await;
            let answer = client.ask(request, &["Content-Length: 0"]).await;
            // Said by the last node of the way, and passed back by the others.
            let kind = json(&answer)["type"].clone();
            assert_eq!(
                (answer.status(), kind),
                (508, "urn:litepilot:problem:loop-detected".into())
            );
        }
    }
}

#[tokio::test]
async fn a_replicas_database_refuses_writes_whoever_asks() {
    let cluster = Plan::flask().start().await;
    let mut browser = Browser::new(&cluster);
    browser.sign(PRIMARY, "text").await;
    cluster.level().await;
    for replica in REPLICAS {
        let database = rusqlite::Connection::open(cluster.members[replica].database()).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let entries = "SELECT count(*) FROM entries";
        assert_eq!(database.query_row(entries, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
        let refused = database.execute("DELETE FROM entries", []).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("attempt to write a readonly database"), "{refused}");
        // In LiteFS' format, for applications that look.
        let primary = std::fs::read_to_string(cluster.members[replica].beside(".primary"));
        assert_eq!(primary.unwrap(), "n1\n");
        let position = std::fs::read_to_string(cluster.members[replica].beside("db.sqlite3-pos"));
        let position = position.unwrap();
        let txid = cluster.status(replica).await["position"]["txid"].clone();
        assert_eq!((position.len(), &position[..16]), (34, txid.as_str().unwrap()));
    }
    assert!(!cluster.members[PRIMARY].beside(".primary").exists());
}

#[tokio::test]
async fn when_the_wait_for_an_application_is_over_the_client_is_told_that_nothing_was_done() {
    let mut cluster = Plan::flask().proxy("write_hold: 200ms").start().await;
    cluster.members[PRIMARY].take_app().kill_9();
    for node in 0..3 {
        let answer = count(cluster.address(node), "refused").await;
        assert_eq!((answer.status(), answer.problem().as_str()), (503, "app-unreachable"));
        assert!(answer.retry_is_safe() && answer.field("retry-after").is_some());
    }
    let strong = ["Litepilot-Consistency: strong"];
    let answer = cluster.client(REPLICA).await.ask("GET /api/entries", &strong).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (503, "app-unreachable"));
    let answer = cluster.client(REPLICA).await.ask("GET /api/entries", &[]).await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[REPLICA])));
}

#[tokio::test]
async fn a_replica_without_its_application_has_the_primary_answer() {
    let mut cluster = Plan::flask().start().await;
    cluster.members[REPLICA].take_app().kill_9();
    let answer = cluster.client(REPLICA).await.ask("GET /api/entries", &[]).await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[PRIMARY])));
    assert_eq!(count(cluster.address(REPLICA), "forwarded").await.status(), 200);
    until("the loss to be noticed", || async {
        let health = cluster.client(REPLICA).await.ask("GET /litefs/health", &[]).await;
        health.status() == 503 && cluster.admin(REPLICA, "/replica").await.status() == 503
    })
    .await;
}
