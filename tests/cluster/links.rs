//! The link to the primary fails at every stage of a forwarded write: nothing is done twice, and what
//! the client is told is true.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, join, sink};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::support::browser::{Browser, json};
use crate::support::cluster::{Cluster, NAMES, PRIMARY, Plan};
use crate::support::relay::{Link, Way};
use crate::support::until;
use crate::support::wire::{Message, Wire};

const REPLICA: usize = 1;
/// What opens a connection between the two.
const HELLO: usize = "LITEPILOT/1 litepilot-http/1 n2 n1\n".len();
const OK: usize = "OK\n".len();
/// More than is kept of a body: it streams.
const LARGE: usize = 400_000;

/// When the link fails: after so many bytes of a write's connection have passed that way.
const STAGES: [(&str, Way, usize); 11] = [
    ("nothing was said", Way::There, 1),
    ("half a greeting", Way::There, HELLO / 2),
    ("the greeting, no answer to it", Way::There, HELLO),
    ("half the answer to the greeting", Way::Back, OK - 1),
    ("the answer to the greeting", Way::Back, OK),
    ("half a head", Way::There, HELLO + 100),
    ("most of a head", Way::There, HELLO + 250),
    ("a head and some of a body", Way::There, HELLO + 1_000),
    ("a part of the response's status line", Way::Back, OK + 5),
    ("half the response's head", Way::Back, OK + 100),
    ("the response's head and some of its body", Way::Back, OK + 400),
];

/// What a request may be named.
fn name(text: &str) -> String {
    text.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// A client of the replica that sends while it receives.
struct Writer {
    read: Wire,
    write: Option<OwnedWriteHalf>,
}

impl Writer {
    async fn connect(cluster: &Cluster) -> Self {
        let stream = TcpStream::connect(cluster.address(REPLICA)).await.unwrap();
        let (read, write) = stream.into_split();
        Self { read: Wire::new(join(read, sink())), write: Some(write) }
    }

    /// A write of so many bytes, with an id of its own; and the head of its answer.
    async fn count(&mut self, id: &str, length: usize) -> Message {
        let head = format!(
            "POST /api/count HTTP/1.1\r\nHost: shop\r\nX-Request-Id: {id}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let mut write = self.write.take().unwrap();
        let sending = tokio::spawn(async move {
            // The node may have answered and gone before it has all.
            let _ = write.write_all(head.as_bytes()).await;
            let _ = write.write_all(&vec![b'x'; length]).await;
            write
        });
        let mut answer = self.read.head().await.expect("an answer, whatever happens");
        // Of what the application answers the rest may be missing, and a client would notice that.
        if answer.field("content-type") == Some("application/problem+json") {
            answer = self.read.rest_of_response(answer, "POST").await;
        }
        if sending.is_finished() {
            self.write = Some(sending.await.unwrap());
        }
        answer
    }

    /// A write over a link that works; the whole of its answer.
    async fn count_well(&mut self, id: &str) {
        let head = self.count(id, 0).await;
        let answer = self.read.rest_of_response(head, "POST").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}

/// What a client may conclude from an answer: how often its write was done.
fn told(answer: &Message) -> &'static [u64] {
    match answer.status() {
        200 => &[1],
        502..=504 if answer.retry_is_safe() => &[0],
        502 => {
            assert_eq!(answer.problem(), "write-outcome-unknown");
            &[0, 1]
        }
        504 => {
            assert_eq!(answer.problem(), "app-timeout");
            &[0, 1]
        }
        _ => panic!("{answer:?}"),
    }
}

/// Fails the link in one way at every stage, with small and large bodies, on new connections and on
/// kept ones. Returns what was told about each write.
async fn disturbed(cluster: &Cluster, fault: Link) -> BTreeMap<String, Message> {
    let mut answers = BTreeMap::new();
    for (stage, way, bytes) in STAGES {
        let greeting = if way == Way::There { HELLO } else { OK };
        for (length, kept) in [(600, false), (LARGE, false), (600, true), (LARGE, true)] {
            // A kept connection was greeted already.
            let bytes = if kept { bytes.saturating_sub(greeting) } else { bytes };
            if bytes > 0 {
                let id = name(&format!("{stage}; {length} bytes; kept {kept}"));
                let answer = fail(cluster, fault, (way, bytes), kept, &id, length).await;
                answers.insert(id, answer);
            }
        }
    }
    recover(cluster).await;
    answers
}

/// One write of which the link fails after so many bytes.
async fn fail(
    cluster: &Cluster,
    fault: Link,
    (way, bytes): (Way, usize),
    kept: bool,
    id: &str,
    length: usize,
) -> Message {
    recover(cluster).await;
    let http = &cluster.link(REPLICA).http;
    // The same connection to the node means the same connection to the primary.
    let mut writer = Writer::connect(cluster).await;
    if kept {
        writer.count_well(&format!("before:{id}")).await;
    }
    http.set_after(way, bytes as u64, fault);
    let connections = http.connections();
    let answer = writer.count(id, length).await;
    let dialed = http.connections() > connections;
    assert!(if kept { !dialed || told(&answer) == [0] } else { dialed }, "{id}: {answer:?}");
    answer
}

/// Returns once the link works, and nobody has a connection through it.
async fn recover(cluster: &Cluster) {
    static ROUND: AtomicUsize = AtomicUsize::new(0);
    let http = &cluster.link(REPLICA).http;
    http.renew().await;
    // A node that was not reached is not dialed for a while.
    until("the link to be used again", || async {
        let id = format!("recover:{}", ROUND.fetch_add(1, SeqCst));
        Writer::connect(cluster).await.count(&id, 0).await.status() == 200
    })
    .await;
    http.renew().await;
}

/// Compares what was told with what was done, once nothing can be under way any more.
async fn truthful(mut cluster: Cluster, answers: &BTreeMap<String, Message>) {
    cluster.stop(PRIMARY).await;
    drop(cluster.members[PRIMARY].take_app());
    let database = rusqlite::Connection::open(cluster.members[PRIMARY].database()).unwrap();
    let mut seen = database.prepare("SELECT id, seen FROM requests").unwrap();
    let rows = seen.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))).unwrap();
    let seen: BTreeMap<String, u64> = rows.map(Result::unwrap).collect();
    for (id, answer) in answers {
        let done = seen.get(id).copied().unwrap_or(0);
        assert!(told(answer).contains(&done), "{id}: done {done} times, told {answer:?}");
    }
    for (id, done) in &seen {
        assert_eq!(*done, 1, "{id}");
    }
}

async fn cluster(response_timeout: &str) -> Cluster {
    let plan = Plan::flask().linked().proxy("write_hold: 300ms").proxy("replay_body: 64KiB");
    let plan = plan.proxy("body_timeout: 1s").proxy("connect_timeout: 1s");
    let cluster = plan.proxy(&format!("response_timeout: {response_timeout}")).start().await;
    Browser::new(&cluster).sign(PRIMARY, "makes the tables").await;
    cluster
}

fn how_many(answers: &BTreeMap<String, Message>, status: u16) -> usize {
    answers.values().filter(|answer| answer.status() == status).count()
}

#[tokio::test]
async fn a_link_that_is_cut() {
    let cluster = cluster("1s").await;
    let answers = disturbed(&cluster, Link::Cut).await;
    truthful(cluster, &answers).await;
}

#[tokio::test]
async fn a_link_that_stalls() {
    let cluster = cluster("1s").await;
    let answers = disturbed(&cluster, Link::Stalled).await;
    truthful(cluster, &answers).await;
}

#[tokio::test]
async fn a_link_of_which_the_way_there_ends() {
    let cluster = cluster("1s").await;
    let answers = disturbed(&cluster, Link::HalfClosed(Way::There)).await;
    truthful(cluster, &answers).await;
}

#[tokio::test]
async fn a_link_of_which_the_way_back_ends() {
    let cluster = cluster("1s").await;
    let answers = disturbed(&cluster, Link::HalfClosed(Way::Back)).await;
    truthful(cluster, &answers).await;
}

#[tokio::test]
async fn a_link_that_is_slow_only_takes_longer() {
    let cluster = cluster("25s").await;
    let answers = disturbed(&cluster, Link::Slow(Duration::from_micros(200))).await;
    assert_eq!(how_many(&answers, 200), answers.len(), "{answers:?}");
    truthful(cluster, &answers).await;
}

#[tokio::test]
async fn a_link_that_comes_back_in_time_is_used_again() {
    let cluster = Plan::flask().linked().proxy("write_hold: 25s").start().await;
    let mut writer = Writer::connect(&cluster).await;
    let http = &cluster.link(REPLICA).http;
    http.set(Link::Cut);
    let repair = async {
        let held = "litepilot_requests_held{class=\"write\"}";
        let waits = || async { cluster.metric(REPLICA, held).await == 1 };
        until("the write to be held", waits).await;
        http.set(Link::Whole);
    };
    let (answer, ()) = tokio::join!(writer.count("patient", 0), repair);
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[PRIMARY])));
    truthful(cluster, &[("patient".to_owned(), answer)].into()).await;
}

#[tokio::test]
async fn a_read_that_has_to_be_the_primarys_is_tried_again() {
    let cluster = cluster("1s").await;
    let http = &cluster.link(REPLICA).http;
    let strong = ["Litepilot-Consistency: strong"];
    let path = format!("GET /download?bytes={LARGE}");
    let mut client = cluster.client(REPLICA).await;
    assert_eq!(client.ask("GET /api/entries", &strong).await.status(), 200);
    // A kept connection breaks before the response's head.
    http.set_after(Way::Back, 5, Link::HalfClosed(Way::Back));
    client.begin("GET /api/entries", &strong).await;
    http.becomes(Link::HalfClosed(Way::Back)).await;
    http.set(Link::Whole);
    let answer = client.response().await;
    assert!(answer.status() == 200 || answer.retry_is_safe(), "{answer:?}");
    // In the middle of a body nothing can be mended: the client notices.
    http.set_after(Way::Back, LARGE as u64 / 2, Link::Cut);
    let mut client = cluster.client(REPLICA).await;
    client.begin(&path, &strong).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.field("content-length"), Some(LARGE.to_string().as_str()));
    assert!(client.rest().await.len() < LARGE);
}

#[tokio::test]
async fn replication_that_is_disturbed_delays_reads_and_loses_nothing() {
    let cluster = Plan::flask().linked().start().await;
    let data = &cluster.link(REPLICA).data;
    let mut browser = Browser::new(&cluster);
    let faults =
        [Link::Stalled, Link::Cut, Link::HalfClosed(Way::There), Link::HalfClosed(Way::Back)];
    for fault in faults {
        for (way, bytes) in [(Way::Back, 1), (Way::Back, 3_000), (Way::There, 1)] {
            data.set_after(way, bytes, fault);
            let entry = browser.sign(REPLICA, "text").await;
            // From its own copy or from the primary: it is there.
            assert!(browser.sees(REPLICA, entry).await, "{fault:?} after {bytes} {way:?}");
            data.renew().await;
            assert!(browser.sees(REPLICA, entry).await, "{fault:?} after {bytes} {way:?}");
        }
    }
    cluster.level().await;
    let count = browser.get(REPLICA, "/api/entries").await;
    assert_eq!(count.field("litepilot-node"), Some(NAMES[REPLICA]));
    assert_eq!(json(&count).as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn of_the_two_ways_in_which_nodes_hear_each_other_one_is_enough() {
    let cluster = Plan::flask().linked().start().await;
    cluster.link(REPLICA).gossip.set(Link::Cut);
    let mut browser = Browser::new(&cluster);
    for _ in 0..20 {
        let entry = browser.sign(REPLICA, "text").await;
        assert!(browser.sees(REPLICA, entry).await);
    }
    assert_eq!(cluster.status(REPLICA).await["primary"]["node"], NAMES[PRIMARY]);
}
