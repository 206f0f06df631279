//! One look at whether the application answers: a connection, or a GET of its health path.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Target;
use crate::net::{DialError, Remote};

/// For everything up to the head of the answer.
const LIMIT: Duration = Duration::from_secs(5);

/// For the rest of the answer, which is read only so that the application does not see us hang up.
const REST_LIMIT: Duration = Duration::from_millis(200);

/// Bytes of head, and of body, that are read.
const MAX_ANSWER: usize = 16 * 1024;

/// Why the application counts as down.
#[derive(Debug)]
pub(crate) enum ProbeError {
    /// It takes no connection over TCP, or its name does not resolve.
    Dial(DialError),
    /// It takes no connection over its Unix socket.
    Connect(io::Error),
    /// The configured path makes no request.
    Request(http::Error),
    /// It hung up, or answered something that is not HTTP.
    Http(hyper::Error),
    /// It answered with a failure.
    Status(StatusCode, String, String),
    /// It did not answer in time.
    Timeout(Duration),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::Dial(error) => write!(f, "it takes no connection: {error}"),
            ProbeError::Connect(error) => write!(f, "it takes no connection: {error}"),
            ProbeError::Request(error) => write!(f, "app.health makes no request: {error}"),
            ProbeError::Http(error) => write!(f, "no HTTP answer: {error}"),
            ProbeError::Status(status, path, host) => {
                write!(f, "GET {path} with Host {host} was answered {status}, not 2xx or 3xx")
            }
            ProbeError::Timeout(limit) => write!(f, "no answer within {limit:?}"),
        }
    }
}

impl std::error::Error for ProbeError {}

/// Looks at one application, again and again.
#[derive(Debug)]
pub(crate) struct Probe {
    target: Place,
    path: Option<String>,
}

#[derive(Debug)]
enum Place {
    Tcp(Remote),
    Unix(PathBuf),
}

impl Probe {
    /// With a path, a GET of it must be answered 2xx or 3xx; without, a connection is enough.
    pub(crate) fn new(target: Target, path: Option<String>) -> Probe {
        let target = match target {
            Target::Tcp(at) => Place::Tcp(Remote::new(at)),
            Target::Unix(path) => Place::Unix(path),
        };
        Probe { target, path }
    }

    /// What is looked at, as users write it.
    pub(crate) fn place(&self) -> String {
        match &self.target {
            Place::Tcp(remote) => remote.at().to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Takes at most five seconds.
    pub(crate) async fn look(&self) -> Result<(), ProbeError> {
        timeout(LIMIT, self.connect_and_ask()).await.unwrap_or(Err(ProbeError::Timeout(LIMIT)))
    }

    async fn connect_and_ask(&self) -> Result<(), ProbeError> {
        match &self.target {
            Place::Tcp(remote) => {
                let stream = remote.dial(LIMIT).await.map_err(ProbeError::Dial)?;
                // An IPv6 address stands in brackets in a Host, too (RFC 9110, 4.2.1).
                self.ask(stream, &remote.at().to_string()).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(ProbeError::Connect)?;
                self.ask(stream, "localhost").await
            }
        }
    }

    async fn ask<S>(&self, stream: S, host: &str) -> Result<(), ProbeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(path) = &self.path else { return Ok(()) };
        let request = Request::get(path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, concat!("litepilot/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(ProbeError::Request)?;
        let mut http = http1::Builder::new();
        let http = http.max_buf_size(MAX_ANSWER).handshake(TokioIo::new(stream));
        let (mut sender, connection) = http.await.map_err(ProbeError::Http)?;
        // Ends with this function, however that ends.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let answer = sender.send_request(request).await.map_err(ProbeError::Http)?;
        let status = answer.status();
        if !status.is_success() && !status.is_redirection() {
            return Err(ProbeError::Status(status, path.clone(), host.to_owned()));
        }
        let rest = Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let _ = timeout(REST_LIMIT, rest).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPort;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    /// Answers one connection with these bytes and gives back what it was asked.
    async fn answered(
        path: Option<&str>,
        answer: &'static [u8],
    ) -> (Result<(), ProbeError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.unwrap() > 0 {}
            let _ = stream.write_all(answer).await;
            String::from_utf8(asked).unwrap()
        });
        let host = HostPort { host: "127.0.0.1".into(), port: address.port() };
        let found = Probe::new(Target::Tcp(host), path.map(str::to_owned)).look().await;
        (found, server.await.unwrap())
    }

    #[tokio::test]
    async fn a_connection_is_enough_without_a_path() {
        let (found, asked) = answered(None, b"").await;
        assert!(found.is_ok() && asked.is_empty());
    }

    #[tokio::test]
    async fn with_a_path_2xx_and_3xx_are_health() {
        let (found, asked) = answered(Some("/healthz"), b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(found.is_ok(), "{found:?}");
        assert!(asked.starts_with("GET /healthz HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nhost: 127.0.0.1:"), "{asked}");
        let moved = b"HTTP/1.1 301 Moved\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n";
        assert!(answered(Some("/"), moved).await.0.is_ok());
    }

    #[tokio::test]
    async fn a_healthy_head_with_an_endless_body_is_health() {
        let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\nonce upon";
        assert!(answered(Some("/"), endless).await.0.is_ok());
    }

    #[tokio::test]
    async fn any_other_answer_says_why_not() {
        let why = |found: Result<(), ProbeError>| found.unwrap_err().to_string();
        let (refused, _) = answered(Some("/up"), b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let refused = why(refused);
        assert!(refused.contains("GET /up with Host 127.0.0.1:"), "{refused}");
        assert!(refused.contains("400 Bad Request"), "{refused}");
        assert!(why(answered(Some("/"), b"SSH-2.0-hello\r\n").await.0).contains("no HTTP answer"));
        assert!(why(answered(Some("/"), b"").await.0).contains("no HTTP answer"));
        static HUGE: [u8; 8 * MAX_ANSWER] = [b'x'; 8 * MAX_ANSWER];
        assert!(why(answered(Some("/"), &HUGE).await.0).contains("no HTTP answer"));
    }

    #[tokio::test]
    async fn a_unix_socket_is_asked_as_localhost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        let probe = Probe::new(Target::Unix(path), Some("/".into()));
        probe.look().await.unwrap();
        assert!(server.await.unwrap().contains("host: localhost\r\n"));
        assert!(matches!(probe.look().await, Err(ProbeError::Connect(_))), "nobody listens now");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_named() {
        let host = HostPort { host: "litepilot.invalid".into(), port: 1 };
        let probe = Probe::new(Target::Tcp(host), None);
        let why = probe.look().await.unwrap_err().to_string();
        assert!(why.contains("litepilot.invalid cannot be resolved"), "{why}");
    }

    #[test]
    fn an_ipv6_address_is_bracketed_in_the_host() {
        let host = HostPort { host: "::1".into(), port: 80 };
        assert_eq!(host.to_string(), "[::1]:80");
    }
}
