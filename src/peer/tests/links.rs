//! Peers that go away, and links that fail.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::*;
use crate::net;
use crate::peer::{DialError, Stream};
use crate::relay::{Link, Relay, Way};

#[tokio::test]
async fn a_peer_that_is_away_is_not_dialed_again_at_once_and_found_when_it_is_back() {
    let mut tasks = JoinSet::new();
    let target = echo(&mut tasks, "n1", MANY, TIMES).await;
    let relay = Relay::to(target).await;
    let n1 = node("n1");
    let dialer = dialer("n2", &[("n1", relay.addr())]);
    dialer.dial(&n1, ECHO).await.unwrap();

    relay.set(Link::Cut);
    let error = dialer.dial(&n1, ECHO).await.unwrap_err();
    assert!(matches!(error, DialError::Greeting(_)), "{error:?}");
    // The pause grows, so that the next call surely falls into it.
    for _ in 0..6 {
        dialer.dial_now(&n1, ECHO).await.unwrap_err();
    }
    let dialed = relay.connections();
    let error = dialer.dial(&n1, ECHO).await.unwrap_err();
    assert!(matches!(error, DialError::BackOff { .. }), "{error:?}");
    assert_eq!(relay.connections(), dialed);

    relay.set(Link::Whole);
    dialer.dial_now(&n1, ECHO).await.unwrap();
    dialer.dial(&n1, ECHO).await.unwrap();
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_apart() {
    let at = bind("n1", TIMES).await.local_addr().unwrap();
    let error = dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap_err();
    assert!(matches!(error, DialError::Net(net::DialError::Refused(_))), "{error:?}");
    let error = dialer("n2", &[]).dial(&node("n1"), ECHO).await.unwrap_err();
    assert!(matches!(error, DialError::Unknown(_)), "{error:?}");
}

#[tokio::test]
async fn a_refusal_of_one_protocol_is_no_trouble_of_the_peer() {
    let mut tasks = JoinSet::new();
    let at = echo(&mut tasks, "n1", MANY, TIMES).await;
    let n1 = node("n1");
    let dialer = dialer("n2", &[("n1", at)]);
    dialer.dial(&n1, "no/1").await.unwrap_err();
    dialer.dial(&n1, ECHO).await.unwrap();
}

#[tokio::test]
async fn a_greeting_cut_at_any_byte_is_an_error_and_nothing_else() {
    let mut tasks = JoinSet::new();
    let target = echo(&mut tasks, "n1", MANY, TIMES).await;
    let relay = Relay::to(target).await;
    let dialer = dialer("n2", &[("n1", relay.addr())]);
    let n1 = node("n1");
    let hello = "LITEPILOT/1 test-echo/1 n2 n1\n".len() as u64;
    let stages = [(Way::There, hello), (Way::Back, 2)];
    for (way, last) in stages {
        for bytes in 0..last {
            relay.set(Link::Whole);
            relay.set_after(way, bytes, Link::Cut);
            let error = dialer.dial_now(&n1, ECHO).await.unwrap_err();
            assert!(matches!(error, DialError::Greeting(_)), "{way:?} {bytes}: {error:?}");
        }
    }
    relay.set(Link::Whole);
    dialer.dial_now(&n1, ECHO).await.unwrap();
}

/// An open connection through a relay.
async fn connected(tasks: &mut JoinSet<()>) -> (Relay, Stream) {
    let target = echo(tasks, "n1", MANY, TIMES).await;
    let relay = Relay::to(target).await;
    let dialer = dialer("n2", &[("n1", relay.addr())]);
    let stream = dialer.dial(&node("n1"), ECHO).await.unwrap();
    (relay, stream)
}

#[tokio::test]
async fn a_cut_link_ends_the_connection() {
    let mut tasks = JoinSet::new();
    let (relay, mut stream) = connected(&mut tasks).await;
    relay.set_after(Way::There, 3, Link::Cut);
    let _ = stream.write_all(b"hello").await;
    relay.becomes(Link::Cut).await;
    let mut back = Vec::new();
    assert!(stream.read_to_end(&mut back).await.is_err());
    assert!(back.len() <= 3, "{back:?}");
}

#[tokio::test]
async fn a_stalled_link_loses_nothing_once_it_moves_again() {
    let mut tasks = JoinSet::new();
    let (relay, mut stream) = connected(&mut tasks).await;
    relay.set_after(Way::Back, 2, Link::Stalled);
    stream.write_all(b"hello").await.unwrap();
    relay.becomes(Link::Stalled).await;
    let mut back = [0; 5];
    stream.read_exact(&mut back[..2]).await.unwrap();
    assert_eq!(relay.passed(Way::Back), 3 + 2, "the greeting's answer, and two bytes");
    relay.set(Link::Slow(Duration::from_millis(1)));
    stream.read_exact(&mut back[2..]).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn a_half_closed_link_still_works_the_other_way() {
    let mut tasks = JoinSet::new();
    let (relay, mut stream) = connected(&mut tasks).await;
    stream.write_all(b"hello").await.unwrap();
    relay.set_after(Way::There, 0, Link::HalfClosed(Way::There));
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert!(b"hello".starts_with(&back[..]), "{back:?}");
}
