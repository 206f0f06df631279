//! Requests that may come to nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::Answer;

/// Longer than any node holds a request, or is stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a request.
#[derive(Debug)]
pub enum Reply {
    /// Nobody took the connection: it was not done.
    Refused,
    /// It broke off, or took too long: it may have been done.
    Lost,
    Whole(Answer),
}

impl Reply {
    /// The answer, if it says that all is well.
    pub fn success(self) -> Option<Answer> {
        match self {
            Self::Whole(answer) if answer.code < 300 => Some(answer),
            _ => None,
        }
    }
}

/// A request of a client that keeps no connection. With a body it is a POST.
pub fn ask(at: SocketAddr, path: &str, headers: &str, body: Option<&str>) -> Reply {
    let Ok(stream) = TcpStream::connect_timeout(&at, PATIENCE) else { return Reply::Refused };
    exchange(stream, path, headers, body).map_or(Reply::Lost, Reply::Whole)
}

/// The whole answer, if there is one.
fn exchange(
    mut stream: TcpStream,
    path: &str,
    headers: &str,
    body: Option<&str>,
) -> Option<Answer> {
    let at = stream.peer_addr().ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let (method, body) = body.map_or(("GET", ""), |body| ("POST", body));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer { code, head: head.to_owned(), body: body.to_owned() };
    let whole = answer.header("content-length").is_some_and(|it| it.parse() == Ok(body.len()));
    whole.then_some(answer)
}
