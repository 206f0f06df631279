//! What a real LiteFS asked, asked again: it is understood and answered in the form that it took.

use std::sync::Arc;

use serde_json::Value;

use super::client::{Client, serve};
use super::script::{self, Asked, Exchange, Script};

/// Plays a recording; gives back what the source was asked.
async fn play(recording: &str) -> Vec<Asked> {
    let exchanges = script::read(recording);
    let script = Arc::new(Script::new(&exchanges));
    let mut client = Client::connect(serve(script.clone()).await).await;
    for exchange in &exchanges {
        let (status, answer) = client.ask(&exchange.line, &exchange.body).await;
        if empties_the_primary(exchange) {
            // We say the same by 404.
            assert_eq!(status, 404);
            continue;
        }
        assert_eq!(status.as_u16(), exchange.status, "{}", exchange.line);
        assert_same(&answer, exchange);
    }
    let asked = script.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), exchanges.len());
    asked
}

/// The stub that recorded left an empty value when the lease was released.
fn empties_the_primary(exchange: &Exchange) -> bool {
    exchange.answer.contains("\"Value\": \"\"")
}

/// The same as far as LiteFS looks.
fn assert_same(answer: &str, exchange: &Exchange) {
    let (Ok(answer), Ok(recorded)) =
        (serde_json::from_str::<Value>(answer), serde_json::from_str::<Value>(&exchange.answer))
    else {
        assert_eq!(answer, exchange.answer);
        return;
    };
    let item = |json: &Value| json.get(0).cloned().unwrap_or_else(|| json.clone());
    let (answer, recorded) = (item(&answer), item(&recorded));
    for key in ["ID", "Name", "Node", "Behavior", "TTL", "Key", "Value", "Flags"] {
        assert_eq!(answer[key], recorded[key], "{key}: {}", exchange.line);
    }
    if !recorded["LockDelay"].is_null() {
        assert!(answer["LockDelay"].is_u64(), "Consul's client takes nothing else");
    }
    if answer.is_boolean() {
        assert_eq!(answer, recorded);
    }
}

#[tokio::test]
async fn the_first_start() {
    let asked = play(include_str!("../litefs-contract/lease-start.http")).await;
    assert!(matches!(&asked[..3], [Asked::ClusterId, Asked::Primary, Asked::Create]));
    let Asked::Acquire(session) = &asked[3] else { panic!("{asked:?}") };
    assert_eq!(session, "f0bafdcf-04b5-41ae-b697-6d988c3d6fe1");
    assert!(asked.contains(&Asked::SetClusterId("LFSC46A2B733FF7320D1".to_owned())));
    assert!(asked.contains(&Asked::Renew(session.clone())));
}

#[tokio::test]
async fn a_demotion_by_404() {
    let asked = play(include_str!("../litefs-contract/lease-renew-404.http")).await;
    let session = "f0bafdcf-04b5-41ae-b697-6d988c3d6fe1".to_owned();
    assert_eq!(asked[0], Asked::Renew(session.clone()));
    assert_eq!(asked[1], Asked::Release(session));
}

#[tokio::test]
async fn a_handoff() {
    let asked = play(include_str!("../litefs-contract/lease-handoff.http")).await;
    let session = "e31f3be9-2257-4382-882d-c4acc3d459a0".to_owned();
    assert!(asked.contains(&Asked::Acquire(session)));
}

#[tokio::test]
async fn an_end_by_sigterm() {
    let asked = play(include_str!("../litefs-contract/lease-sigterm.http")).await;
    assert!(matches!(&asked[..2], [Asked::Release(a), Asked::Release(b)] if a == b));
}
