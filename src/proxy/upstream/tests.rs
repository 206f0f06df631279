//! Exchanges with an origin that the test plays, over a pipe in memory.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRAILER};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::round_trip::Connection;
use super::wire::Wire;
use super::{Body, Dial, Failure, Origin, OriginLimits, RawHeaders, Request, RequestLimits};
use crate::proxy::request_body::Outgoing;

const LIMITS: RequestLimits =
    RequestLimits { piece: Duration::from_secs(2), response: Duration::from_secs(3) };

/// Nobody ever dials it: the tests bring connections of their own.
fn origin() -> Rc<Origin> {
    let limits = OriginLimits { connect: Duration::from_secs(1), keep: Duration::from_secs(60) };
    Origin::new(Dial::Unix(PathBuf::from("/nonexistent")), limits)
}

fn request(method: Method, body: Outgoing) -> Request {
    let mut lines = RawHeaders::default();
    lines.add(&HeaderName::from_static("x-added"), &HeaderValue::from_static("1"));
    let mut fields = HeaderMap::new();
    fields.insert(http::header::HOST, HeaderValue::from_static("shop"));
    let target = "/a?b".parse().unwrap();
    let mut request = Request::new(method, target, fields, lines, false, LIMITS);
    request.set_body(body);
    request
}

fn get() -> Request {
    request(Method::GET, Outgoing::Empty)
}

/// A connection, and its other end.
fn connection() -> (Connection, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Connection::new(Wire::new(ours)), theirs)
}

/// The answer to `request` when the origin says `said` and then ends.
async fn ask(
    origin: &Rc<Origin>,
    request: &Request,
    said: &[u8],
) -> Result<Response<Body>, Failure> {
    let (connection, mut theirs) = connection();
    let speak = async {
        theirs.read_u8().await.unwrap();
        theirs.write_all(said).await.unwrap();
        theirs
    };
    let (answer, theirs) = tokio::join!(connection.send(origin, request), async {
        let mut theirs = speak.await;
        theirs.shutdown().await.unwrap();
        theirs
    });
    drop(theirs);
    answer
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().into()).unwrap()
}

/// Runs a test with a clock that goes on by itself when nothing else is left to happen.
fn run<R>(test: impl Future<Output = R>) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// What the origin gets of a request, and how the round trip ends when it then says nothing.
async fn sent(request: &Request, length: usize) -> String {
    let (connection, mut theirs) = connection();
    let hear = async {
        let mut heard = vec![0; length];
        theirs.read_exact(&mut heard).await.unwrap();
        drop(theirs);
        String::from_utf8(heard).unwrap()
    };
    let origin = origin();
    let (answer, heard) = tokio::join!(connection.send(&origin, request), hear);
    assert!(matches!(answer, Err(Failure::Broken(_))));
    heard
}

#[test]
fn a_head_has_the_fields_that_came_those_that_were_added_and_those_that_are_told() {
    let mut request = request(Method::POST, Outgoing::Whole(Some("abc".into()), None));
    let mut told = RawHeaders::default();
    told.add(&HeaderName::from_static("x-told"), &HeaderValue::from_static("1"));
    request.tell(Rc::new(told));
    let expected = "POST /a?b HTTP/1.1\r\nhost: shop\r\nx-added: 1\r\nx-told: 1\r\n\
                    content-length: 3\r\n\r\nabc";
    assert_eq!(run(sent(&request, expected.len())), expected);
}

#[test]
fn trailers_go_behind_the_chunks_if_they_were_announced_and_are_harmless() {
    let trailers: HeaderMap = [
        (HeaderName::from_static("x-sum"), HeaderValue::from_static("6")),
        (HeaderName::from_static("x-other"), HeaderValue::from_static("7")),
        (CONTENT_LENGTH, HeaderValue::from_static("0")),
    ]
    .into_iter()
    .collect();
    let mut request = request(Method::PUT, Outgoing::Whole(Some("abc".into()), Some(trailers)));
    let announced = HeaderValue::from_static("X-Sum, Content-Length");
    request.headers_mut().insert(TRAILER, announced);
    let expected = "PUT /a?b HTTP/1.1\r\nhost: shop\r\ntrailer: X-Sum, Content-Length\r\n\
                    x-added: 1\r\ntransfer-encoding: chunked\r\n\r\n\
                    3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n";
    assert_eq!(run(sent(&request, expected.len())), expected);
}

#[test]
fn a_large_body_goes_out_whole() {
    let body = "0123456789".repeat(500_000);
    let request = request(Method::POST, Outgoing::Whole(Some(body.clone().into()), None));
    let head = "POST /a?b HTTP/1.1\r\nhost: shop\r\nx-added: 1\r\ncontent-length: 5000000\r\n\r\n";
    let heard = run(sent(&request, head.len() + body.len()));
    assert!(heard.strip_prefix(head) == Some(&body));
}

#[test]
fn a_connection_is_kept_once_its_response_has_come_whole() {
    run(async {
        for (said, kept) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nok", false),
            // What is left over would be taken for the answer to the next request.
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!", false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200", false),
            // Somebody on the way may have gone by the length.
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
                 0\r\n\r\n",
                false,
            ),
        ] {
            let origin = origin();
            let response = ask(&origin, &get(), said.as_bytes()).await.ok().unwrap();
            text(response).await;
            assert_eq!(origin.pool.take().is_some(), kept, "{said}");
        }
    });
}

#[test]
fn a_body_that_nobody_reads_to_its_end_closes_its_connection() {
    run(async {
        let said = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\no";
        let origin = origin();
        drop(ask(&origin, &get(), said).await.ok().unwrap());
        assert!(origin.pool.take().is_none());
    });
}

#[test]
fn a_connection_that_ended_or_spoke_while_idle_gets_no_request() {
    run(async {
        for said in ["", "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"] {
            let (connection, mut theirs) = connection();
            theirs.write_all(said.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let answer = connection.send(&origin(), &get()).await;
            assert!(matches!(answer, Err(Failure::Unreached(_))), "{said:?}");
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.unwrap();
            assert!(heard.is_empty());
        }
    });
}

#[test]
fn a_silent_origin_is_not_waited_for_longer_than_said() {
    run(async {
        let (connection, _theirs) = connection();
        let begun = Instant::now();
        let answer = connection.send(&origin(), &get()).await;
        assert!(matches!(answer, Err(Failure::Timeout)));
        assert_eq!(begun.elapsed().as_secs(), LIMITS.response.as_secs());
    });
}

#[test]
fn an_answer_to_a_request_that_was_not_taken_whole_is_passed_on() {
    run(async {
        let (connection, mut theirs) = connection();
        let body = Bytes::from(vec![b'x'; 4 << 20]);
        let request = request(Method::POST, Outgoing::Whole(Some(body), None));
        let refuse = async {
            theirs.read_u8().await.unwrap();
            let said = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
            theirs.write_all(said).await.unwrap();
            theirs
        };
        let origin = origin();
        let (answer, theirs) = tokio::join!(connection.send(&origin, &request), refuse);
        assert_eq!(text(answer.ok().unwrap()).await, "no");
        assert!(origin.pool.take().is_none(), "the rest would be taken for a request");
        drop(theirs);
    });
}

#[test]
fn the_rest_of_a_request_is_sent_while_its_response_comes() {
    run(async {
        let (connection, mut theirs) = connection();
        let body = Bytes::from(vec![b'x'; 4 << 20]);
        let request = request(Method::POST, Outgoing::Whole(Some(body), None));
        let play = async {
            theirs.read_u8().await.unwrap();
            theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut taken = 0;
            while taken < 4 << 20 {
                taken += theirs.read(&mut vec![0; 1 << 16]).await.unwrap();
            }
            theirs.write_all(b"all").await.unwrap();
            drop(theirs);
        };
        let origin = origin();
        let read = async {
            // Nobody reads the response meanwhile.
            let response = connection.send(&origin, &request).await.ok().unwrap();
            tokio::time::sleep(LIMITS.piece / 2).await;
            text(response).await
        };
        assert_eq!(tokio::join!(play, read).1, "all");
    });
}

#[test]
fn a_body_that_breaks_off_is_not_taken_for_whole() {
    run(async {
        for said in ["content-length: 3\r\n\r\nab", "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n"]
        {
            let said = format!("HTTP/1.1 200 OK\r\n{said}");
            let response = ask(&origin(), &get(), said.as_bytes()).await.ok().unwrap();
            assert!(response.into_body().collect().await.is_err(), "{said}");
        }
    });
}

/// What the origin may say, and what is heard of it.
fn conversation() -> impl Strategy<Value = (String, String)> {
    let pieces = proptest::collection::vec("[a-z]{1,40}", 0..5);
    (any::<bool>(), any::<bool>(), pieces).prop_map(|(chunked, interim, pieces)| {
        let body = pieces.concat();
        let framed = if chunked {
            let chunk = |piece: &String| format!("{:x};x=y\r\n{piece}\r\n", piece.len());
            let chunks: String = pieces.iter().map(chunk).collect();
            format!("transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        } else {
            format!("content-length: {}\r\n\r\n{body}", body.len())
        };
        let hints = if interim { "HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" } else { "" };
        (format!("{hints}HTTP/1.1 200 Fine\r\nx-a: b\r\n{framed}"), body)
    })
}

proptest! {
    #[test]
    fn a_response_is_the_same_however_it_is_cut(
        (said, body) in conversation(),
        cuts in proptest::collection::vec(1..20usize, 1..8),
    ) {
        run(async {
            let (connection, mut theirs) = connection();
            let speak = async {
                theirs.read_u8().await.unwrap();
                let mut rest = said.as_bytes();
                for cut in cuts.iter().cycle() {
                    let (now, later) = rest.split_at((*cut).min(rest.len()));
                    theirs.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                theirs
            };
            let origin = origin();
            let request = get();
            let hear = async {
                let response = connection.send(&origin, &request).await.ok().unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                assert_eq!(response.headers()["x-a"], "b");
                assert!(!response.headers().contains_key("link"));
                text(response).await
            };
            let (_theirs, heard) = tokio::join!(speak, hear);
            assert_eq!(heard, body);
            assert!(origin.pool.take().is_some());
        });
    }

    #[test]
    fn whatever_an_origin_says_comes_to_an_end(
        (said, _) in conversation(),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
        at in any::<proptest::sample::Index>(),
    ) {
        // Noise in the midst of sense comes further than noise alone.
        let mut said = said.into_bytes();
        let at = at.index(said.len());
        said.splice(at.., noise);
        run(async {
            if let Ok(response) = ask(&origin(), &get(), &said).await {
                let body = response.into_body().collect().await.map(|body| body.to_bytes());
                assert!(body.is_err() || body.is_ok_and(|body| body.len() < said.len()));
            }
        });
    }
}
