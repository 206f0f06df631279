//! Promises, reigns, and what becomes of copies that a new primary knows nothing of.

use super::cluster_tests::{Link, MODES, Node, PATIENCE, REIGN, insert, replica_is_level, until};
use super::image::{Image, Update};
use super::tenure::Tenure;
use super::wire::{Frames, Message, VERSION};
use super::*;
use crate::cluster::EpochStart;
use crate::txid::Txid;
use rusqlite::Connection;
use std::io::{BufRead, BufReader, Write};
use std::pin::Pin;
use std::process::{Command as Process, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::task::JoinHandle as Task;
use tokio::time::timeout;

async fn promise(node: &Node, epoch: u64) -> Held {
    node.engine.promise(Epoch(epoch)).await.unwrap()
}

async fn reign(node: &Node, epoch: u64) -> Position {
    node.engine.become_primary(Epoch(epoch)).await.unwrap()
}

fn rows(path: &PathBuf) -> i64 {
    let saved = Connection::open(path).unwrap();
    saved.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap()
}

/// Three nodes that hold the same, the first of which reigns in epoch 1.
async fn cluster(mode: &str) -> (Node, Node, Node) {
    let nodes = (Node::new(REIGN), Node::new(Duty::Replica), Node::new(Duty::Replica));
    insert(&nodes.0.app(mode));
    for replica in [&nodes.1, &nodes.2] {
        let _link = Link::new(&nodes.0, replica);
        replica_is_level(&nodes.0, replica).await;
    }
    nodes
}

/// What a replica may not do any more.
#[derive(Default)]
struct Promise {
    made: AtomicBool,
    broken: AtomicBool,
}

/// A link's end that sees what is acknowledged.
struct Watched {
    io: DuplexStream,
    promise: Arc<Promise>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        frame: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Behind its length, its kind: see `wire`.
        if frame.get(4) == Some(&b'A') && self.promise.made.load(Ordering::SeqCst) {
            self.promise.broken.store(true, Ordering::SeqCst);
        }
        Pin::new(&mut self.io).poll_write(context, frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The other end of a replica's link, in the hand of a test.
struct Hand {
    frames: Frames<ReadHalf<DuplexStream>>,
    io: WriteHalf<DuplexStream>,
    following: Task<io::Result<()>>,
    epoch: Epoch,
}

impl Hand {
    async fn new(replica: &Node, epoch: u64, promise: &Arc<Promise>) -> Self {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (engine, promise) = (replica.engine.clone(), promise.clone());
        let far = Watched { io: far, promise };
        let following = tokio::spawn(async move { engine.follow(far).await });
        let (read, io) = tokio::io::split(near);
        let mut hand = Self { frames: Frames::new(read), io, following, epoch: Epoch(epoch) };
        let greeting = hand.frames.next().await.unwrap();
        assert!(matches!(greeting, Message::Hello { version: VERSION, .. }));
        let starts = vec![EpochStart { epoch: Epoch(epoch), held: Position::default() }];
        hand.say(&Message::Tenure(Tenure::new(starts).unwrap())).await;
        hand
    }

    async fn say(&mut self, message: &Message) {
        // It may have gone.
        let _ = wire::send(&mut self.io, message).await;
    }

    /// Sends all of an image, as the primary's state at `txid`.
    async fn update(&mut self, image: &Image, txid: u64) {
        let position = EpochTxid { epoch: self.epoch, txid: Txid(txid) };
        let Update { position, page_size, count, pages, .. } = image.update(None, position);
        let changed = u32::try_from(pages.len()).unwrap();
        self.say(&Message::Update { base: None, position, page_size, count, changed }).await;
        for (number, page) in pages {
            let mut whole = number.to_be_bytes().to_vec();
            whole.extend_from_slice(&page);
            self.say(&Message::Pages(whole.into())).await;
        }
    }

    /// What it was acknowledged, until the link ended.
    async fn ended(mut self) -> (Vec<Position>, io::Error) {
        let mut acknowledged = Vec::new();
        while let Ok(message) = self.frames.next().await {
            if let Message::Applied(position) = message {
                acknowledged.push(position);
            }
        }
        (acknowledged, timeout(PATIENCE, self.following).await.unwrap().unwrap().unwrap_err())
    }
}

/// As many states of a database.
fn images(count: usize) -> Vec<Image> {
    let source = Node::new(Duty::Replica);
    source.engine.stop();
    let path = source.mount().join("source");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, x)").unwrap();
    let mut images: Vec<Image> = Vec::new();
    for _ in 0..count {
        insert(&app);
        let last = images.last().cloned().unwrap_or_default();
        images.push(Image::read(&app, &path, &last).unwrap());
    }
    images
}

#[tokio::test]
async fn a_promise_outlives_everything() {
    for mode in MODES {
        let (primary, mut replica, _) = cluster(mode).await;
        let before = primary.held().await;
        assert_eq!(replica.held().await, before);
        let link = Link::new(&primary, &replica);
        for epoch in [2, 2, 1, 2] {
            assert_eq!(promise(&replica, epoch).await, before, "{mode}: epoch {epoch}");
        }
        let error = link.failure().await;
        assert!(error.to_string().contains("let go"), "{error}");
        insert(&primary.app(mode));
        for restart in [false, true] {
            if restart {
                replica.restart(Duty::Replica);
            }
            let error = Link::new(&primary, &replica).failure().await;
            assert!(error.to_string().contains("let go of all before 2"), "{error}");
            assert_eq!(replica.held().await, before);
            let error = replica.engine.become_primary(Epoch(1)).await.unwrap_err();
            assert!(error.to_string().contains("epoch 2"), "{error}");
        }
        // The next is not affected.
        reign(&primary, 2).await;
        let _link = Link::new(&primary, &replica);
        replica_is_level(&primary, &replica).await;
        assert_eq!(promise(&replica, 2).await, primary.held().await);
    }
}

#[tokio::test]
async fn a_primary_lets_go_of_itself() {
    for mode in MODES {
        let mut node = Node::new(REIGN);
        let app = node.app(mode);
        insert(&app);
        let before = node.held().await;
        assert_eq!(promise(&node, 1).await, before, "its own epoch is not before itself");
        insert(&app);
        let now = promise(&node, 2).await;
        assert!(now.position.at > before.position.at && now.position != before.position);
        assert!(app.execute("DELETE FROM t", ()).is_err(), "{mode}");
        for _ in 0..2 {
            assert_eq!(node.held().await, now);
            assert_eq!(promise(&node, 1).await, now);
            assert!(node.engine.become_primary(Epoch(1)).await.is_err());
            node.restart(Duty::Replica);
        }
        assert_eq!(reign(&node, 2).await, now.position);
        insert(&node.app(mode));
    }
}

#[tokio::test]
async fn a_primary_that_a_writer_keeps_from_letting_go_serves_nobody_any_more() {
    let (primary, replica, _) = cluster("wal").await;
    let app = primary.connect();
    let link = Link::new(&primary, &replica);
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (x) VALUES (1)").unwrap();
    let error = primary.engine.promise(Epoch(2)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
    link.failure().await;
    app.execute_batch("COMMIT").unwrap();
    primary.now().await;
    Link::new(&primary, &replica).failure().await;
    assert_eq!(replica.count(), 1);
    assert!(primary.engine.become_primary(Epoch(1)).await.is_err(), "its epoch is over");
    promise(&primary, 2).await;
    assert_eq!(primary.count(), 2);
}

#[tokio::test]
async fn after_a_promise_nothing_is_applied_and_nothing_acknowledged() {
    let images = images(12);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..36_u64 {
        let replica = Node::new(Duty::Replica);
        let promise = Arc::new(Promise::default());
        let mut hand = Hand::new(&replica, 1, &promise).await;
        for (txid, image) in (1..).zip(&images) {
            hand.update(image, txid).await;
        }
        // Somewhere in the middle.
        let reached = EpochTxid { epoch: Epoch(1), txid: Txid(round % 12) };
        replica.reaches(reached).await;
        let then = replica.engine.promise(Epoch(2)).await.unwrap();
        promise.made.store(true, Ordering::SeqCst);
        let (acknowledged, _) = hand.ended().await;
        assert!(!promise.broken.load(Ordering::SeqCst), "round {round}");
        let last = acknowledged.last().copied().unwrap_or_default();
        assert!(last.at <= then.position.at, "round {round}: {last:?} beyond {then:?}");
        let at = usize::try_from(then.position.at.txid.0).unwrap();
        match at.checked_sub(1).map(|at| &images[at]) {
            Some(image) => assert_eq!(image.checksum(), then.position.checksum),
            None => assert!(then.empty),
        }
        assert_eq!(replica.held().await, then, "round {round}");
        seen.insert(at);
    }
    assert!(seen.len() > 2, "always at the same place: {seen:?}");
}

#[tokio::test]
async fn what_a_replica_holds_is_told_once_it_is_there() {
    for mode in MODES {
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = {
            let told = told.clone();
            move |position| lock(&told).push(position)
        };
        let _link = Link::telling(&primary, &replica, telling.clone());
        let app = primary.app(mode);
        for _ in 0..10 {
            insert(&app);
            let written = primary.now().await;
            until("acknowledged", || {
                lock(&told).last().is_some_and(|last: &Position| last.at >= written)
            })
            .await;
            assert!(replica.engine.position().get() >= written);
        }
        let last = *lock(&told).last().unwrap();
        assert_eq!((last, last), (primary.held().await.position, replica.held().await.position));
        // What is level already is told too, in the terms of the reign.
        reign(&primary, 2).await;
        let now = primary.now().await;
        let before = lock(&told).len();
        let _link = Link::telling(&primary, &replica, telling);
        until("acknowledged", || lock(&told).len() > before).await;
        let first = lock(&told)[before];
        assert_eq!((first.at, first.checksum), (now, last.checksum), "{mode}");
        assert_eq!(now.epoch, Epoch(2));
    }
}

#[tokio::test]
async fn what_a_reign_began_with_is_the_same_whenever_it_is_asked() {
    for mode in MODES {
        let (primary, mut node, _) = cluster(mode).await;
        let before = node.held().await.position;
        assert_eq!(before, primary.held().await.position);
        assert_eq!(before.at.epoch, Epoch(1));
        for round in 0..4 {
            assert_eq!(reign(&node, 3).await, before, "{mode}, round {round}");
            insert(&node.app(mode));
            let now = node.now().await;
            assert!(now > before.at && now.epoch == Epoch(3));
            assert_eq!(reign(&node, 3).await, before, "{mode}, round {round}");
            node.restart(if round % 2 == 0 { Duty::Replica } else { Duty::Primary(Epoch(3)) });
        }
        promise(&node, 4).await;
        let now = node.held().await.position;
        assert_eq!(reign(&node, 4).await, now);
    }
}

/// How an old primary ends up as a replica.
#[derive(Clone, Copy, Debug)]
enum End {
    Demoted,
    LetGo,
    Killed,
}

#[tokio::test]
async fn what_the_new_primary_lacks_is_saved_before_it_is_replaced() {
    for mode in MODES {
        for end in [End::Demoted, End::LetGo, End::Killed] {
            let (mut old, new, _) = cluster(mode).await;
            // Nobody else gets these. The last one is not even noticed.
            insert(&old.app(mode));
            old.now().await;
            insert(&old.connect());
            match end {
                End::Demoted => old.engine.become_replica(None).await.unwrap(),
                End::LetGo => drop(promise(&old, 2).await),
                End::Killed => old.restart(Duty::Replica),
            }
            let before = old.held().await;
            reign(&new, 2).await;
            insert(&new.app(mode));
            let _link = Link::new(&new, &old);
            replica_is_level(&new, &old).await;
            assert_eq!(old.count(), 2, "{mode} {end:?}");
            let [saved] = &old.archived()[..] else { panic!("{mode} {end:?}: not saved") };
            assert_eq!(rows(saved), 3, "{mode} {end:?}");
            assert!(saved.to_string_lossy().contains(&before.position.checksum.to_string()));
            assert_eq!(old.engine.diverged().borrow().as_ref(), Some(saved));
            assert!(new.archived().is_empty());
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_behind_or_level_is_not_saved() {
    for mode in MODES {
        for killed in [false, true] {
            let (mut first, mut second, third) = cluster(mode).await;
            // Two reigns go by; the last, of which nobody knew all the time, follows the second.
            for (epoch, rows) in [(2, 2), (3, 3)] {
                match killed {
                    true => first.restart(Duty::Replica),
                    false => first.engine.become_replica(None).await.unwrap(),
                }
                let began = reign(&second, epoch).await;
                assert_eq!(began, first.held().await.position, "{mode}: level");
                let _link = Link::new(&second, &first);
                replica_is_level(&second, &first).await;
                insert(&second.app(mode));
                replica_is_level(&second, &first).await;
                assert_eq!(first.count(), rows);
                std::mem::swap(&mut first, &mut second);
            }
            assert_eq!(third.held().await.position.at.epoch, Epoch(1));
            let _link = Link::new(&first, &third);
            replica_is_level(&first, &third).await;
            assert_eq!(third.count(), 3, "{mode}");
            for node in [&first, &second, &third] {
                assert!(node.archived().is_empty(), "{mode}, killed: {killed}");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_is_of_a_new_reign_once_its_content_is_found_there() {
    for mode in MODES {
        let (old, new, mut behind) = cluster(mode).await;
        {
            let _link = Link::new(&old, &new);
            insert(&old.app(mode));
            replica_is_level(&old, &new).await;
        }
        // In the journal mode that the first copy brought.
        behind.restart(Duty::Replica);
        let before = behind.held().await;
        reign(&new, 2).await;
        // Readers keep the update from being applied; in WAL mode nothing does.
        let reader = behind.connect();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        let link = Link::new(&new, &behind);
        if mode == "delete" {
            let asked = timeout(Duration::from_millis(600), link.failure());
            assert!(asked.await.is_err(), "it is still being tried");
            assert_eq!(behind.held().await, before);
            behind.restart(Duty::Replica);
            assert_eq!(behind.held().await, before, "nothing was applied");
        }
        drop(reader);
        let _link = Link::new(&new, &behind);
        replica_is_level(&new, &behind).await;
        let now = behind.held().await;
        assert_eq!((now, now.position.at.epoch), (new.held().await, Epoch(2)));
        behind.restart(Duty::Replica);
        assert_eq!(behind.held().await, now, "{mode}");
    }
}

#[tokio::test]
async fn saved_copies_are_kept_once_and_not_without_end() {
    let mut old = Node::new(REIGN);
    let app = old.app("wal");
    for round in 0..6 {
        insert(&app);
        let saved = {
            let connection = old.connect();
            let position = old.held().await.position;
            let data = old.data();
            let saved = archive::save(&connection, position, &data).unwrap();
            assert_eq!(archive::save(&connection, position, &data).unwrap(), saved, "once");
            saved
        };
        assert_eq!(rows(&saved), round + 1);
        assert_eq!(old.archived().len(), usize::try_from(round + 1).unwrap().min(3));
    }
    old.restart(Duty::Replica);
}

/// Reads a replica, and says what becomes of its writes with the connection that it has and with a
/// new one, whenever it is asked.
const STAYS: &str = r#"
import sqlite3, sys
def write(db):
    try:
        with db:
            db.execute("INSERT INTO t (x) VALUES (1)")
        return "written"
    except sqlite3.OperationalError as e:
        return str(e)
stay = sqlite3.connect(sys.argv[1], timeout=60)
print(stay.execute("SELECT count(*) FROM t").fetchone()[0], flush=True)
for line in sys.stdin:
    if line == "close\n":
        stay.close()
        print("closed", flush=True)
    else:
        new = sqlite3.connect(sys.argv[1], timeout=60)
        print(write(stay), "/", write(new), flush=True)
        new.close()
"#;

#[tokio::test]
async fn a_connection_of_before_the_promotion_has_to_be_closed() {
    const READONLY: &str = "attempt to write a readonly database";
    for mode in MODES {
        let (_, mut node, _) = cluster(mode).await;
        node.restart(Duty::Replica);
        let mut app = Process::new("python3")
            .args(["-c", STAYS])
            .arg(node.database())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, output) = (app.stdin.take().unwrap(), app.stdout.take().unwrap());
        let mut answers = BufReader::new(output).lines().map(Result::unwrap);
        let mut ask = move |question: &str| {
            if !question.is_empty() {
                writeln!(input, "{question}").unwrap();
            }
            answers.next().unwrap()
        };
        let open = || openers::openers(&node.database()).unwrap();
        assert_eq!(ask(""), "1");
        assert_eq!(ask("write"), format!("{READONLY} / {READONLY}"), "{mode}");
        reign(&node, 2).await;
        assert_eq!(ask("write"), format!("{READONLY} / written"), "{mode}");
        let open_then = open();
        assert!(!open_then.is_empty() && open_then.iter().all(|opener| opener.pid == app.id()));
        assert_eq!(open_then, open());
        assert_eq!(ask("close"), "closed");
        assert_eq!(open(), [], "{mode}");
        drop(ask);
        assert!(app.wait().unwrap().success());
        assert_eq!(node.count(), 2, "{mode}");
    }
}

/// `cargo test --lib embedded::roles_tests::acknowledgements -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn acknowledgements() {
    for (mode, pages) in [("delete", 2), ("wal", 2), ("wal", 250), ("wal", 2_500)] {
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let app = primary.app(mode);
        app.execute_batch("BEGIN").unwrap();
        for _ in 0..pages {
            app.execute("INSERT INTO t (x) VALUES (zeroblob(3900))", ()).unwrap();
        }
        app.execute_batch("COMMIT").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let applied = Arc::new(PositionCell::default());
        let (engine, told) = (primary.engine.clone(), applied.clone());
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let serving = tokio::spawn(async move {
            engine.serve(near, move |position| told.advance(position.at)).await
        });
        let engine = replica.engine.clone();
        let following = tokio::spawn(async move { engine.follow(far).await });
        applied.wait(primary.now().await).await;
        let mut taken = Vec::new();
        for _ in 0..200 {
            insert(&app);
            let began = Instant::now();
            let written = primary.now().await;
            applied.wait(written).await;
            taken.push(began.elapsed());
        }
        taken.sort();
        println!("{mode}, {pages} pages: p50 {:?}, p95 {:?}", taken[100], taken[190]);
        serving.abort();
        following.abort();
    }
}
