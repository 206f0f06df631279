//! `POST /promote`, `POST /members`, `GET /members`.

use super::*;
use crate::control::ControlError;

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

impl Port {
    async fn promote(&self, query: &str) -> Answer {
        self.ask("POST", &format!("/promote{query}"), &bearer()).await
    }

    async fn change_members(&self, body: &str) -> Answer {
        let length = body.len();
        let head = format!(
            "POST /members HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}Content-Length: {length}\r\n\r\n",
            bearer()
        );
        self.raw(head + body).await
    }

    /// Returns once something has happened.
    async fn happens(&self, text: &str) {
        let (kept, mut feed) = self.events.follow();
        if kept.iter().any(|event| event.text.contains(text)) {
            return;
        }
        let found = async { while !feed.recv().await.unwrap().text.contains(text) {} };
        timeout(HANG, found).await.expect(text);
    }
}

fn json(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert!(answer.has("content-type: application/json"), "{}", answer.head);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_promotion_is_passed_on_as_it_was_meant() {
    let port = Port::new().await;
    for (query, asked, node) in [
        ("", "promote None false", "node-1"),
        ("?node=node-2", "promote Some(node-2) false", "node-2"),
        ("?node=node-2&force=true", "promote Some(node-2) true", "node-2"),
    ] {
        let promoted = json(&port.promote(query).await);
        assert_eq!(promoted, serde_json::json!({"node": node, "epoch": 4}));
        assert_eq!(port.control.asked().last().unwrap(), asked);
    }
    port.happens("promote node-2, by force: done").await;
    let problem = port.promote("?nod=node-2").await.problem(400, "bad-request");
    assert!(problem["detail"].as_str().unwrap().contains("?node=NODE"), "{problem}");
    port.promote("?node=a%20b").await.problem(400, "bad-request");
    assert_eq!(port.control.asked().len(), 3);
}

#[tokio::test]
async fn what_is_refused_says_why_and_what_to_do() {
    let port = Port::new().await;
    let node = || "node-2".parse().unwrap();
    let cases = [
        (ControlError::NotElected { alone: true }, 409, "not-elected", "on its own"),
        (ControlError::NotElected { alone: false }, 409, "not-elected", "cluster.primary"),
        (ControlError::UnknownNode(node()), 404, "unknown-node", "litepilot members"),
        (ControlError::NotCandidate(node()), 409, "not-candidate", "name another node"),
        (
            ControlError::NotFit { node: node(), why: "it lags".into() },
            409,
            "not-fit",
            "now: it lags; wait",
        ),
        (ControlError::NoPrimary, 409, "no-primary", "--force"),
        (ControlError::Refused("node-4 is a member".into()), 409, "refused", "is a member"),
        (ControlError::NoQuorum, 503, "no-quorum", "start more of them"),
        (
            ControlError::Unreachable { node: node(), why: "it is silent".into() },
            503,
            "peer-unreachable",
            "it is silent; try again",
        ),
        (ControlError::NotInTime, 504, "not-in-time", "may still come about"),
        (ControlError::Failed("the disk is full".into()), 500, "internal", "disk is full"),
    ];
    for (refusal, code, name, words) in cases {
        port.control.refuse(Some(refusal));
        let promotion = port.promote("").await.problem(code, name);
        let change = port.change_members(r#"{"remove": {"node": "n4"}}"#).await;
        let change = change.problem(code, name);
        assert!(promotion["detail"].as_str().unwrap().contains(words), "{promotion}");
        assert_eq!(promotion["detail"], change["detail"]);
    }
}

#[tokio::test]
async fn members_are_listed_for_everybody_and_changed_with_the_token() {
    let port = Port::new().await;
    let listed = json(&port.get("/members").await);
    let expected = serde_json::json!({"members": [{
        "node": "node-1",
        "address": "127.0.0.1:4321",
        "witness": false,
        "voter": true,
        "generation": 0,
    }]});
    assert_eq!(listed, expected);
    let add = r#"{"add": {"node": "n4", "address": "10.0.0.4:4321"}}"#;
    assert_eq!(json(&port.change_members(add).await), expected);
    assert!(port.control.asked()[0].starts_with("Add { node: n4"), "{:?}", port.control.asked());
    port.happens("add member n4 at 10.0.0.4:4321: done").await;
    let problem = port.change_members("add n4").await.problem(400, "bad-request");
    assert!(problem["detail"].as_str().unwrap().contains("HOST:PORT"), "{problem}");
    assert_eq!(port.control.asked().len(), 1);
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time() {
    let limits = AdminLimits { body_timeout: Duration::from_millis(50), ..AdminLimits::default() };
    let port = Port::with(limits).await;
    let begin = |rest: &str| {
        let head = format!("POST /members HTTP/1.1\r\nHost: localhost\r\n{}{rest}", bearer());
        async { port.raw(head).await }
    };
    begin("Content-Length: 4097\r\n\r\n").await.problem(413, "body-too-large");
    begin("Content-Length: 99999999999999\r\n\r\n").await.problem(413, "body-too-large");
    let piece = format!("801\r\n{}\r\n", " ".repeat(0x801));
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{piece}{piece}");
    begin(&chunked).await.problem(413, "body-too-large");
    begin("Content-Length: 10\r\n\r\n{").await.problem(408, "request-timeout");
    assert_eq!(port.control.asked(), [""; 0]);
}

#[tokio::test]
async fn changes_are_made_one_at_a_time_and_to_their_end() {
    let port = Port::new().await;
    port.control.hold();
    let mut client = port.connect().await;
    let request =
        format!("POST /promote?node=node-2 HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer());
    client.write_all(request.as_bytes()).await.unwrap();
    port.happens("an operator asks: promote node-2").await;
    port.promote("").await.problem(409, "busy");
    // Its client goes away; it is done all the same.
    drop(client);
    port.control.permits.add_permits(2);
    port.happens("promote node-2: done").await;
    while port.promote("").await.code != 200 {}
}

#[tokio::test]
async fn a_change_that_takes_too_long_is_said_to_do_so() {
    let limits =
        AdminLimits { change_timeout: Duration::from_millis(50), ..AdminLimits::default() };
    let port = Port::with(limits).await;
    port.control.hold();
    port.promote("").await.problem(504, "not-in-time");
    port.control.permits.add_permits(1);
    port.happens("promote this node: done").await;
}
