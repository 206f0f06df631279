//! Asking a running node through its admin port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{AdminArgs, EXIT_CONFIG};
use crate::config;
use crate::status::Status;

/// For one whole exchange.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer; a status of a hundred nodes has some 20 KB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A node's admin port.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// `host:port`, as it is dialed and as `Host` says it.
    authority: String,
}

/// Why a node could not be asked, or what was wrong with its answer.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// With exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    fn usage(message: String) -> Self {
        Self { message, code: 2 }
    }

    /// Says it on stderr, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("{}", self.message);
        ExitCode::from(self.code)
    }
}

impl Node {
    /// The node that the arguments name: by URL, or by its configuration.
    ///
    /// # Errors
    ///
    /// A URL that is none (exit code 2), or a configuration with problems (78).
    pub fn from_args(args: &AdminArgs) -> Result<Self, Failure> {
        match &args.admin {
            Some(url) => Self::from_url(url),
            None => {
                let config = config::load(args.config.config.as_deref()).map_err(|problems| {
                    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    Failure { message: lines.join("\n"), code: EXIT_CONFIG }
                })?;
                Ok(Self::listening_at(config.admin.listen))
            }
        }
    }

    fn from_url(url: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(format!(
                "--admin {url}: this is no admin URL: write it like http://127.0.0.1:9180"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let plain = uri.scheme_str() == Some("http")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        if !plain {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()) })
    }

    /// A node that listens everywhere is asked on loopback.
    fn listening_at(listen: SocketAddr) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { authority: SocketAddr::new(ip, listen.port()).to_string() }
    }

    /// The node's status: as it came, and read.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers something else.
    pub async fn status(&self) -> Result<(String, Status), Failure> {
        let json = self.get("/status").await?;
        let status = serde_json::from_str(&json).map_err(|error| {
            let at = &self.authority;
            Failure::new(format!("{at} sent a status that this version cannot read: {error}"))
        })?;
        Ok((json, status))
    }

    async fn get(&self, path: &str) -> Result<String, Failure> {
        let exchange = timeout(PATIENCE, self.exchange(path)).await;
        let (code, body) = exchange.unwrap_or_else(|_| {
            Err(Failure::new(format!(
                "{} did not answer within {PATIENCE:?}: is it the admin port of a node, and is that node well?",
                self.authority
            )))
        })?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if code == StatusCode::OK {
            return Ok(body);
        }
        Err(Failure::new(format!("{} answered {code}: {}", self.authority, detail(&body))))
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let at = &self.authority;
        let stream = TcpStream::connect(at).await.map_err(|error| {
            Failure::new(format!(
                "cannot reach a node at {at}: {error}. Is `litepilot run` running, and is this its admin.listen?"
            ))
        })?;
        let broken = |why: &dyn std::fmt::Display| {
            Failure::new(format!("{at} does not answer as an admin port does: {why}"))
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // It ends with the sender; what goes wrong with it, the request is told.
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(HOST, at)
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((code, body.map_err(|error| broken(&error))?.to_bytes()))
    }
}

/// The part of an error answer that is for people.
fn detail(body: &str) -> String {
    let problem = serde_json::from_str::<serde_json::Value>(body).unwrap_or_default();
    match problem["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None => "is this the admin port of a node?".to_owned(),
    }
}

/// Runs a command that asks a node.
pub fn run(command: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(Failure::new(format!("cannot start: {error}"))),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_and_port() {
        for (url, authority) in [
            ("http://127.0.0.1:9180", "127.0.0.1:9180"),
            ("http://127.0.0.1:9180/", "127.0.0.1:9180"),
            ("http://[::1]:9180", "[::1]:9180"),
            ("http://node-1", "node-1:80"),
        ] {
            assert_eq!(Node::from_url(url).unwrap().authority, authority);
        }
        for bad in [
            "",
            "127.0.0.1:9180",
            "https://127.0.0.1:9180",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
        ] {
            assert_eq!(Node::from_url(bad).unwrap_err().code, 2, "{bad}");
        }
    }

    #[test]
    fn a_node_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9180", "127.0.0.1:9180"),
            ("[::]:9180", "[::1]:9180"),
            ("10.0.0.7:9180", "10.0.0.7:9180"),
        ] {
            assert_eq!(Node::listening_at(listen.parse().unwrap()).authority, asked);
        }
    }
}
