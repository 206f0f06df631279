//! Sockets through a replica.

use crate::support::cluster::{NAMES, PRIMARY, Plan};

const REPLICA: usize = 1;
const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
const RULES: &str = "rules:\n  - match: {upgrade: websocket, path: /ws/other}\n    as: read\n";
/// A masked text frame with `Hello`, and the server's echo of it: RFC 6455, 5.7.
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const ECHO: &[u8] = b"\x81\x05Hello";

#[tokio::test]
async fn a_socket_that_writes_ends_at_the_primary_and_with_it_others_stay() {
    a_socket_that_writes_ends(Plan::ws_echo()).await;
}

#[tokio::test]
async fn over_tls_too_a_socket_that_writes_ends_at_the_primary_and_with_it_others_stay() {
    a_socket_that_writes_ends(Plan::ws_echo().tls()).await;
}

async fn a_socket_that_writes_ends(plan: Plan) {
    let mut cluster = plan.rules(RULES).start().await;
    let mut sockets = Vec::new();
    for (path, node) in [("/ws/live/1", NAMES[PRIMARY]), ("/ws/other", NAMES[REPLICA])] {
        let mut socket = cluster.client(REPLICA).await;
        socket.begin(&format!("GET {path}"), &HANDSHAKE).await;
        let answer = socket.head().await.unwrap();
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(answer.field("litepilot-node"), Some(node));
        assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        // The first message, JSON of more than 125 bytes, says what the application was asked.
        let head = socket.bytes(4).await;
        assert_eq!(&head[..2], b"\x81\x7e");
        let length = u16::from_be_bytes([head[2], head[3]]);
        let asked = socket.bytes(length.into()).await;
        let asked: serde_json::Value = serde_json::from_slice(&asked).unwrap();
        assert_eq!(asked["path"], path);
        for _ in 0..3 {
            socket.send(HELLO).await;
            assert_eq!(socket.bytes(ECHO.len()).await, ECHO);
        }
        sockets.push(socket);
    }
    let (mut other, mut live) = (sockets.pop().unwrap(), sockets.pop().unwrap());
    cluster.stop(PRIMARY).await;
    live.closed().await;
    cluster.without_primary(REPLICA).await;
    other.send(HELLO).await;
    assert_eq!(other.bytes(ECHO.len()).await, ECHO);
}
