//! What a real LiteFS does with a backup's answers: the table at the head of `backup`, on which it rests that
//! nothing overwrites the primary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::support::program;
use super::whole::{Plan, until};

/// What a backup answers to `GET /pos`, and to `POST /db/tx`. It has no snapshots to give.
struct Answers {
    positions: &'static str,
    tx: &'static str,
}

const LATER: &str =
    r#"{"book.sqlite3": {"TXID": "00000000000000ff", "PostApplyChecksum": "8000000000000001"}}"#;
const OTHER: &str =
    r#"{"never.db": {"TXID": "0000000000000001", "PostApplyChecksum": "8000000000000001"}}"#;
const MISMATCH: &str = r#"{"code": "EPOSMISMATCH", "error": "x", "pos": {"TXID": "0000000000000001", "PostApplyChecksum": "8000000000000001"}}"#;
/// As ours.
const NEW_HISTORY: &str = r#"{"code": "ENEWHISTORY", "error": "x"}"#;

/// Answers one request after the other, and tells which there were.
fn serve(answers: Answers) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off is no concern of a test.
            let _ = answer(stream, &answers, &told);
        }
    });
    (address, asked)
}

fn answer(
    mut stream: TcpStream,
    answers: &Answers,
    told: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    // A body comes in pieces, the last of them empty.
    let whole = |request: &[u8]| match request.starts_with(b"POST") {
        true => request.ends_with(b"0\r\n\r\n"),
        false => request.ends_with(b"\r\n\r\n"),
    };
    while !whole(&request) {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&piece[..length]),
        }
    }
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
    let (status, body) = match line.split_whitespace().nth(1) {
        Some("/pos") => ("200 OK", answers.positions),
        Some(path) if path.starts_with("/db/tx") => ("409 Conflict", answers.tx),
        _ => ("403 Forbidden", NEW_HISTORY),
    };
    told.lock().unwrap().push(line);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What LiteFS asks, until one of its requests begins so.
fn asks(answers: Answers, until_line: &str) -> Vec<String> {
    let (address, asked) = serve(answers);
    let backup =
        format!("litefs\n  extra: {{backup: {{type: litefs-cloud, url: 'http://{address}'}}}}");
    let engine = Box::leak(backup.into_boxed_str());
    let cluster = Plan { nodes: 1, engine, ..Plan::default() }.start();
    cluster.primary();
    cluster.post(0, "entry", "");
    until("LiteFS has asked", || {
        asked.lock().unwrap().iter().filter(|line| line.starts_with(until_line)).count() > 1
    });
    assert_eq!(cluster.entries(0, ""), ["entry"]);
    cluster.stop();
    let asked = asked.lock().unwrap();
    asked.clone()
}

fn is_real() -> bool {
    let real = program().1;
    if !real {
        eprintln!("only a real LiteFS (LITEFS_BIN) backs up");
    }
    real
}

#[test]
fn what_does_not_fit_has_litefs_fetch_a_snapshot_to_overwrite_itself() {
    if !is_real() {
        return;
    }
    asks(Answers { positions: LATER, tx: NEW_HISTORY }, "GET /db/snapshot?db=book.sqlite3");
    asks(Answers { positions: OTHER, tx: NEW_HISTORY }, "GET /db/snapshot?db=never.db");
    asks(Answers { positions: "{}", tx: MISMATCH }, "GET /db/snapshot?db=book.sqlite3");
}

#[test]
fn a_database_that_is_not_named_is_sent_and_any_other_error_is_tried_again() {
    if !is_real() {
        return;
    }
    let asked = asks(Answers { positions: "{}", tx: NEW_HISTORY }, "POST /db/tx?db=book.sqlite3");
    assert!(!asked.iter().any(|line| line.contains("snapshot")), "{asked:?}");
}
