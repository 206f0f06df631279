//! Tokens on one node, over a real SQLite database that the application writes to.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::node::{Launch, TestNode};
use crate::support::raw::Client;
use crate::support::recorder::{Recorder, response};
use crate::support::wire::Message;

/// An application that inserts a row for each POST to `/`, and answers as told.
struct Guestbook {
    app: Recorder,
    dir: TempDir,
}

impl Guestbook {
    async fn new(journal: &'static str, fields: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = database(dir.path());
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", journal).unwrap();
        db.execute_batch("CREATE TABLE entries (text)").unwrap();
        let app = Recorder::answering(move |request| {
            if request.start.starts_with("POST / ") {
                insert(&path);
            }
            response("200 OK", fields, "")
        })
        .await;
        Self { app, dir }
    }

    fn launch(&self) -> Launch {
        Launch::before(self.app.target()).mount(self.dir.path())
    }

    fn start(&self) -> TestNode {
        self.launch().start()
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("db.sqlite3")
}

fn insert(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    db.execute("INSERT INTO entries VALUES ('hello')", ()).unwrap();
}

/// The token in a response's headers, as a client would compare it.
fn token(answer: &Message) -> (u64, u64) {
    let txid = answer.field("litepilot-txid").unwrap_or_else(|| panic!("no token: {answer:?}"));
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    assert!(txid.len() == 16 && txid.bytes().all(lower), "{txid}");
    let epoch = answer.field("litepilot-epoch").unwrap();
    (epoch.parse().unwrap(), u64::from_str_radix(txid, 16).unwrap())
}

fn has_token(answer: &Message) -> bool {
    let cookies = answer.all("set-cookie").iter().any(|cookie| cookie.starts_with("__txid"));
    let headers = answer.field("litepilot-txid").is_some();
    assert_eq!(cookies, headers, "{answer:?}");
    assert_eq!(headers, answer.field("litepilot-epoch").is_some());
    headers
}

/// As a browser would send it back.
fn cookie((epoch, txid): (u64, u64)) -> String {
    format!("Cookie: __txid={txid:016x}; __txid_epoch={epoch}")
}

async fn write(client: &mut Client) -> Message {
    client.post("/", &[], "text=hello").await
}

#[tokio::test]
async fn each_write_carries_a_higher_token() {
    for journal in ["wal", "delete"] {
        let guestbook = Guestbook::new(journal, &[]).await;
        let node = guestbook.start();
        let mut client = node.client().await;
        let mut last = (0, 0);
        for _ in 0..30 {
            let answer = write(&mut client).await;
            let now = token(&answer);
            assert!(now > last, "{journal}: {now:?} after {last:?}");
            assert_eq!(now.0, 1, "the only epoch of a single node");
            let attributes = "HttpOnly; SameSite=Lax; Path=/; Max-Age=300";
            let [txid, epoch, marked] = answer.all("set-cookie")[..] else { panic!("{answer:?}") };
            assert_eq!(txid, format!("__txid={:016x}; {attributes}", now.1));
            assert_eq!(epoch, format!("__txid_epoch={}; {attributes}", now.0));
            assert!(marked.starts_with("__txid_at_"), "{marked}");
            assert!(
                marked.ends_with(&format!("={}.{:016x}; {attributes}", now.0, now.1)),
                "{marked}"
            );
            last = now;
        }
    }
}

#[tokio::test]
async fn a_write_that_changes_nothing_carries_the_token_of_what_is_there() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.start();
    let mut client = node.client().await;
    let before = token(&write(&mut client).await);
    let nothing = token(&client.post("/nothing", &[], "").await);
    assert_eq!(nothing, before);
}

#[tokio::test]
async fn reads_and_passthrough_carry_none() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook
        .launch()
        .rules("rules:\n  - match: {path: /static/**}\n    as: passthrough\n")
        .start();
    let mut client = node.client().await;
    let known = cookie(token(&write(&mut client).await));
    for fields in [vec![], vec![known.as_str()]] {
        assert!(!has_token(&client.ask("GET /", &fields).await));
        assert!(!has_token(&client.ask("HEAD /", &fields).await));
        assert!(!has_token(&client.ask("POST /static/x", &fields).await));
    }
}

#[tokio::test]
async fn the_app_never_sees_a_token() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.start();
    let mut client = node.client().await;
    client
        .ask(
            "GET /",
            &[
                "Cookie: a=1; __txid=0000000000000001; __txid_epoch=1; b=\"x; y\"; __txidx=2",
                "Cookie: __txid=0000000000000001",
                "Cookie: c=3; __txid=; __txid_epoch",
                "Litepilot-Txid: 0000000000000001",
                "Litepilot-Epoch: 1",
                "Litepilot_Txid: 0000000000000001",
                "Litepilot-Consistency: eventual",
            ],
        )
        .await;
    let request = guestbook.app.only();
    let cookies = request.all("cookie").join("; ");
    assert!(!cookies.contains("__txid=") && !cookies.contains("__txid_epoch"), "{cookies}");
    for kept in ["a=1", "b=\"x; y\"", "__txidx=2", "c=3"] {
        assert!(cookies.contains(kept), "{kept} in {cookies}");
    }
    for gone in ["litepilot-txid", "litepilot-epoch", "litepilot_txid"] {
        assert_eq!(request.field(gone), None, "{gone}");
    }

    client.ask("GET /", &["Cookie: __txid=0000000000000001; __txid_epoch=1"]).await;
    assert_eq!(guestbook.app.only().field("cookie"), None);
}

#[tokio::test]
async fn a_token_that_cannot_exist_is_replaced_on_a_read() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.start();
    let mut client = node.client().await;
    let (epoch, txid) = token(&write(&mut client).await);
    for impossible in [
        cookie((epoch, txid + 1_000_000)),
        cookie((epoch + 5, 1)),
        cookie((epoch, u64::MAX)),
        "Cookie: __txid=ffffffffffffffff".to_owned(),
        "Cookie: __txid=nonsense".to_owned(),
        "Cookie: __txid=".to_owned(),
        format!("Cookie: __txid={txid:016X}z; __txid_epoch={epoch}"),
        format!("Cookie: __txid={txid:016x}; __txid_epoch=-1"),
        "Litepilot-Txid: ffffffffffffffff\r\nLitepilot-Epoch: 1".to_owned(),
        // Of several the highest counts.
        format!("{}; __txid=ffffffffffffffff; __txid_epoch={epoch}", cookie((epoch, txid))),
        format!(
            "{}\r\nLitepilot-Txid: ffffffffffffffff\r\nLitepilot-Epoch: {epoch}",
            cookie((epoch, txid))
        ),
    ] {
        let answer = client.ask("GET /", &[&impossible]).await;
        assert_eq!(answer.status(), 200, "{impossible}");
        assert!(has_token(&answer), "{impossible}");
        assert_eq!(token(&answer), (epoch, txid), "{impossible}");
    }
    for possible in [
        cookie((epoch, txid)),
        cookie((epoch, txid - 1)),
        cookie((0, txid)),
        format!("Cookie: __txid={txid:016x}"),
        format!("Litepilot-Txid: {txid:016x}\r\nLitepilot-Epoch: {epoch}"),
    ] {
        assert!(!has_token(&client.ask("GET /", &[&possible]).await), "{possible}");
    }
}

#[tokio::test]
async fn cookies_are_secure_where_the_client_came_over_tls() {
    let https = ["X-Forwarded-Proto: https"];
    for (settings, fields, secure) in [
        (vec![], vec![], false),
        (vec![], https.to_vec(), true),
        (vec!["trusted: []"], https.to_vec(), false),
        (vec!["cookie: {secure: true}"], vec![], true),
        (vec!["cookie: {secure: false}"], https.to_vec(), false),
    ] {
        let guestbook = Guestbook::new("wal", &[]).await;
        let launch = settings.iter().fold(guestbook.launch(), |launch, line| launch.proxy(line));
        let node = launch.start();
        let answer = node.client().await.post("/", &fields, "").await;
        let cookies = answer.all("set-cookie");
        assert_eq!(cookies.len(), 3);
        for cookie in cookies {
            assert_eq!(cookie.contains("; Secure"), secure, "{settings:?} {fields:?}: {cookie}");
        }
    }
}

#[tokio::test]
async fn cookies_are_as_the_configuration_says() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.launch().proxy("cookie: {same_site: strict, domain: example.org}").start();
    let answer = write(&mut node.client().await).await;
    for cookie in answer.all("set-cookie") {
        assert!(cookie.contains("SameSite=Strict") && cookie.contains("Domain=example.org"));
    }
}

#[tokio::test]
async fn a_response_that_caches_share_gets_no_cookie() {
    for control in ["cache-control: public, max-age=60", "cache-control: max-age=0, S-MaxAge=60"] {
        let guestbook =
            Guestbook::new("wal", Box::leak(Box::new([control, "set-cookie: own=1"]))).await;
        let node = guestbook.launch().proxy("consistency: monotonic").start();
        let mut client = node.client().await;
        for answer in [write(&mut client).await, client.ask("GET /", &[]).await] {
            assert_eq!(answer.all("set-cookie"), ["own=1"], "{control}");
            assert!(token(&answer) > (0, 0), "the header is for the client that asked");
        }
    }
}

#[tokio::test]
async fn a_private_response_keeps_its_own_cookies_beside_ours() {
    let guestbook =
        Guestbook::new("wal", &["cache-control: private, no-store", "set-cookie: own=1"]).await;
    let node = guestbook.start();
    let answer = write(&mut node.client().await).await;
    let cookies = answer.all("set-cookie");
    assert_eq!((cookies.len(), cookies[0]), (4, "own=1"));
}

#[tokio::test]
async fn monotonic_reads_carry_what_they_saw() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.launch().proxy("consistency: monotonic").start();
    let mut client = node.client().await;
    let written = token(&write(&mut client).await);
    let answer = client.ask("GET /", &[]).await;
    assert!(has_token(&answer));
    assert_eq!(token(&answer), written);
    insert(&database(guestbook.dir.path()));
    let seen = token(&client.ask("GET /", &[&cookie(written)]).await);
    assert!(seen > written, "a commit made past the proxy counts too");
}

#[tokio::test]
async fn a_number_is_never_given_out_twice() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let mut node = guestbook.start();
    let mut last = (0, 0);
    for _ in 0..3 {
        for _ in 0..3 {
            let now = token(&write(&mut node.client().await).await);
            assert!(now > last, "{now:?} after {last:?}");
            last = now;
        }
        node = node.restarted().await;
        let read = node.client().await.ask("GET /", &[&cookie(last)]).await;
        assert!(!has_token(&read), "a token from before a restart is still good");
    }
}

#[tokio::test]
async fn a_write_is_not_acknowledged_where_the_database_cannot_be_read() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.start();
    let mut client = node.client().await;
    assert!(has_token(&client.post("/nothing", &[], "").await));
    // Another file takes its place, and is none.
    let garbage = guestbook.dir.path().join("garbage");
    std::fs::write(&garbage, "this is no database".repeat(100)).unwrap();
    std::fs::rename(&garbage, database(guestbook.dir.path())).unwrap();

    let answer = client.post("/nothing", &[], "").await;
    assert_eq!((answer.status(), answer.problem().as_str()), (502, "write-outcome-unknown"));
    assert!(!answer.retry_is_safe());
    assert_eq!(client.ask("GET /", &[]).await.status(), 200, "reads go on");
}

#[tokio::test]
async fn an_error_of_the_app_is_passed_on_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(database(dir.path()), "this is no database".repeat(100)).unwrap();
    let app = Recorder::answering(|_| response("500 Oops", &[], "own")).await;
    let node = Launch::before(app.target()).mount(dir.path()).start();
    let answer = node.client().await.post("/", &[], "").await;
    assert_eq!((answer.status(), answer.text()), (500, "own"));
}

#[tokio::test]
async fn status_shows_the_position() {
    let guestbook = Guestbook::new("wal", &[]).await;
    let node = guestbook.start();
    let (epoch, txid) = token(&write(&mut node.client().await).await);
    let mut admin = node.admin().await;
    admin.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let status: serde_json::Value = serde_json::from_slice(&admin.response().await.body).unwrap();
    assert_eq!(status["position"]["epoch"], epoch);
    assert_eq!(status["position"]["txid"], format!("{txid:016x}"));
    assert_eq!(status["role"], "primary");
}
