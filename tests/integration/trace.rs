//! The names of a request in everybody's logs: passed on, or made.

use crate::support::node::TestNode;
use crate::support::recorder::{Recorder, response};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[tokio::test]
async fn names_are_passed_on_or_made_and_told_to_the_client() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let parent = format!("Traceparent: {PARENT}");
    let answer = client.ask("GET /", &["X-Request-Id: abc-1", &parent, "Tracestate: v=1"]).await;
    let seen = app.only();
    for (name, value) in [("x-request-id", "abc-1"), ("traceparent", PARENT), ("tracestate", "v=1")]
    {
        assert_eq!(seen.all(name), [value]);
    }
    assert_eq!(answer.all("x-request-id"), ["abc-1"]);

    let mut made = Vec::new();
    for fields in [&[][..], &["X-Request-Id: a b", "Traceparent: 00-0-0-00", "Tracestate: v=1"]] {
        let answer = client.ask("GET /", fields).await;
        let seen = app.only();
        let id = seen.field("x-request-id").unwrap().to_owned();
        let parent = seen.field("traceparent").unwrap();
        assert_eq!((id.len(), parent.split('-').nth(1)), (32, Some(id.as_str())), "{parent}");
        assert_eq!(seen.field("tracestate"), None);
        assert_eq!(answer.field("x-request-id"), Some(id.as_str()));
        made.push(id);
    }
    assert_ne!(made[0], made[1]);
}

#[tokio::test]
async fn errors_have_a_name_too_and_an_applications_own_name_stays() {
    let app = Recorder::answering(|_| response("200 OK", &["X-Request-Id: its-own"], "")).await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let answer = client.ask("GET /", &["X-Request-Id: abc-1"]).await;
    assert_eq!(answer.all("x-request-id"), ["its-own"]);
    let refused = client.ask("GET /%00", &["X-Request-Id: abc-2"]).await;
    assert_eq!((refused.status(), refused.field("x-request-id")), (400, Some("abc-2")));
}
