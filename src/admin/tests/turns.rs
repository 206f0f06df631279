//! `POST /on-primary`.

use super::*;
use crate::claim::Claim;
use crate::control::ControlError;

/// A client that wants its turn, or has it.
struct Turn {
    stream: TcpStream,
    /// What came of the answer.
    seen: String,
}

impl Port {
    async fn turn(&self, query: &str) -> Turn {
        let mut stream = self.connect().await;
        let request = format!(
            "POST /on-primary{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Turn { stream, seen: String::new() }
    }

    fn change_view(&self, change: impl FnOnce(&mut ClusterView)) {
        self.view.send_modify(change);
    }

    /// Has it be done under a key, in the usual way.
    async fn does(&self, query: &str) {
        let mut turn = self.turn(query).await;
        turn.hears(GRANTED).await;
        turn.ends("done").await;
        turn.hears(r#"{"state":"finished"}"#).await;
        turn.rest().await;
    }
}

const GRANTED: &str = r#"{"state":"granted","epoch":3}"#;
const QUEUED: &str = r#"{"state":"queued"}"#;
const NO_PRIMARY: &str = r#"{"state":"no-primary"}"#;
const ALREADY_DONE: &str = r#"{"state":"already-done"}"#;

impl Turn {
    /// Returns once it is told so.
    async fn hears(&mut self, notice: &str) {
        let heard = async {
            while !self.seen.contains(notice) {
                let mut piece = [0; 1024];
                let read = self.stream.read(&mut piece).await.unwrap();
                assert_ne!(read, 0, "it ended without {notice}: {}", self.seen);
                self.seen.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
        };
        timeout(HANG, heard).await.expect(notice);
    }

    /// What it was told until now.
    async fn heard(&mut self) -> &str {
        let mut piece = [0; 1024];
        let moment = Duration::from_millis(20);
        while let Ok(Ok(read @ 1..)) = timeout(moment, self.stream.read(&mut piece)).await {
            self.seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        &self.seen
    }

    /// The whole body of the request.
    async fn ends(&mut self, outcome: &str) {
        let body = format!("{:x}\r\n{outcome}\r\n0\r\n\r\n", outcome.len());
        self.stream.write_all(body.as_bytes()).await.unwrap();
    }

    /// The answer is whole, and all of it.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        let read = timeout(HANG, self.stream.read_to_string(&mut rest)).await;
        // The rest of a request that nobody reads may reset the connection.
        let _ = read.expect("an end");
        self.seen + &rest
    }
}

#[tokio::test]
async fn what_was_done_once_is_not_done_again_and_what_failed_is() {
    let port = Port::new().await;
    let mut failing = port.turn("?once=v1").await;
    failing.hears(GRANTED).await;
    failing.ends("failed").await;
    failing.hears(r#"{"state":"finished"}"#).await;
    assert!(!port.control.remembers("v1"));

    port.does("?once=v1").await;
    assert_eq!(port.control.asked(), ["remember v1 of 3"]);
    let again = port.turn("?once=v1").await.rest().await;
    assert!(again.contains(ALREADY_DONE) && !again.contains("granted"), "{again}");
    port.does("?once=v2").await;
    for _ in 0..2 {
        port.does("").await;
    }
    assert_eq!(port.control.asked().len(), 2, "without a key nothing is remembered");
}

#[tokio::test]
async fn whoever_goes_away_or_speaks_out_of_turn_has_done_nothing() {
    let port = Port::new().await;
    let mut gone = port.turn("?once=v1").await;
    gone.hears(GRANTED).await;
    let mut next = port.turn("?once=v1").await;
    next.hears(QUEUED).await;
    drop(gone);
    next.hears(GRANTED).await;
    next.ends("done, more or less").await;
    let seen = next.rest().await;
    assert!(!seen.contains("finished"), "{seen}");
    let mut early = port.turn("?once=v1").await;
    early.hears(GRANTED).await;
    let mut hasty = port.turn("?once=v1").await;
    hasty.hears(QUEUED).await;
    hasty.ends("done").await;
    assert!(!hasty.rest().await.contains("granted"));
    early.ends("failed").await;
    early.hears("finished").await;
    assert!(!port.control.remembers("v1"));
}

#[tokio::test]
async fn turns_come_in_the_order_in_which_they_were_asked_for() {
    let port = Port::new().await;
    let mut first = port.turn("").await;
    first.hears(GRANTED).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut turn = port.turn("").await;
        turn.hears(QUEUED).await;
        waiting.push(turn);
    }
    for mut next in waiting {
        assert!(!next.heard().await.contains("granted"));
        first.ends("done").await;
        first.rest().await;
        next.hears(GRANTED).await;
        first = next;
    }
}

#[tokio::test]
async fn only_so_many_wait() {
    let port = Port::new().await;
    let mut waiting = Vec::new();
    for _ in 0..32 {
        let mut turn = port.turn("").await;
        turn.hears("{").await;
        waiting.push(turn);
    }
    let refused = port.turn("").await.rest().await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too-many-waiting"));
    drop(waiting);
    while port.turn("").await.hears_something().await.contains("too-many-waiting") {}
}

impl Turn {
    async fn hears_something(&mut self) -> &str {
        self.hears("}").await;
        &self.seen
    }
}

#[tokio::test]
async fn it_is_for_the_primary_to_do_once_there_is_one() {
    let port = Port::new().await;
    let primary = port.view.borrow().primary.clone();
    port.change_view(|view| (view.primary, view.writable) = (None, false));
    let mut first = port.turn("").await;
    first.hears(NO_PRIMARY).await;
    // It has the lease, and `app.on_promote` still runs.
    port.change_view(|view| view.primary.clone_from(&primary));
    let mut second = port.turn("").await;
    second.hears(NO_PRIMARY).await;
    assert!(!first.heard().await.contains("granted"));
    port.change_view(|view| view.writable = true);
    // Whichever comes first: the other one waits for its turn.
    for turn in [&mut first, &mut second] {
        turn.seen.clear();
        let seen = turn.hears_something().await;
        assert!(seen.contains(GRANTED) || seen.contains(QUEUED), "{seen}");
    }
}

#[tokio::test]
async fn elsewhere_there_is_nothing_to_do() {
    let port = Port::new().await;
    port.change_view(|view| {
        view.writable = false;
        view.primary.as_mut().unwrap().node = "node-2".parse().unwrap();
    });
    let seen = port.turn("?once=v1").await.rest().await;
    assert!(seen.contains(r#"{"state":"elsewhere","node":"node-2"}"#), "{seen}");
    assert!(seen.contains("content-type: application/x-ndjson"), "{seen}");
}

#[tokio::test]
async fn an_epoch_that_ends_is_told_and_keeps_others_waiting_until_the_command_has_ended() {
    let port = Port::new().await;
    let mut first = port.turn("?once=v1").await;
    first.hears(GRANTED).await;
    let mut second = port.turn("?once=v1").await;
    second.hears(QUEUED).await;
    let begin = |view: &mut ClusterView, epoch| {
        *view = ClusterView::single(view.node.clone(), Epoch(epoch));
    };
    port.change_view(|view| begin(view, 4));
    first.hears(r#"{"state":"over"}"#).await;
    // The new epoch is this node's too, and the command of the old one still runs here.
    let mut third = port.turn("?once=v1").await;
    third.hears(QUEUED).await;
    assert!(!second.heard().await.contains("granted"));
    first.ends("done").await;
    assert!(!first.rest().await.contains("finished"));
    second.hears(r#"{"state":"granted","epoch":4}"#).await;
    second.ends("done").await;
    second.hears("finished").await;
    assert_eq!(port.control.asked(), ["remember v1 of 4"]);
    third.hears(ALREADY_DONE).await;
}

#[tokio::test]
async fn whoever_waits_for_a_turn_hears_of_another_primary() {
    let port = Port::new().await;
    let mut first = port.turn("").await;
    first.hears(GRANTED).await;
    let mut second = port.turn("").await;
    second.hears(QUEUED).await;
    port.change_view(|view| {
        view.writable = false;
        view.primary.as_mut().unwrap().node = "node-2".parse().unwrap();
    });
    second.hears("elsewhere").await;
    first.hears("over").await;
}

#[tokio::test]
async fn a_claim_that_has_lapsed_or_an_outcome_that_cannot_be_noted_is_told() {
    let port = Port::new().await;
    let claim = Claim::unlimited();
    port.change_view(|view| view.claim = claim.clone());
    let mut turn = port.turn("?once=v1").await;
    turn.hears(GRANTED).await;
    // The view does not change when time ends a claim.
    claim.end();
    turn.ends("done").await;
    turn.hears(r#"{"state":"over"}"#).await;
    assert_eq!(port.control.asked(), [""; 0]);

    port.change_view(|view| view.claim = Claim::unlimited());
    port.control.refuse(Some(ControlError::NoQuorum));
    let mut turn = port.turn("?once=v1").await;
    turn.hears(GRANTED).await;
    turn.ends("done").await;
    turn.hears(r#"{"state":"failed","detail":"this node is not in contact"#).await;
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let port = Port::new().await;
    for query in ["?once=", "?once=a%20b", "?key=v1"] {
        let seen = port.turn(query).await.rest().await;
        assert!(seen.starts_with("HTTP/1.1 400 "), "{query}: {seen}");
    }
}

#[tokio::test]
async fn stopping_ends_conversations() {
    let port = Port::new().await;
    let mut turn = port.turn("?once=v1").await;
    turn.hears(GRANTED).await;
    let mut waiting = port.turn("?once=v1").await;
    waiting.hears(QUEUED).await;
    port.stop.send(()).unwrap();
    timeout(HANG, port.served).await.expect("it stops").unwrap();
    assert!(!turn.rest().await.contains("over"));
    assert!(!waiting.rest().await.contains("granted"));
}
