//! Asking a running node through its admin port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::AdminArgs;
use crate::status::Status;

/// For one whole exchange.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer; a status of a hundred nodes has some 20 KB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A node's admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `host:port`, as it is dialed and as `Host` says it.
    authority: String,
}

impl Node {
    /// The node that the arguments name: by URL, or by its configuration.
    ///
    /// # Errors
    ///
    /// The exit code for a configuration with problems, which are already printed.
    fn from_args(args: &AdminArgs) -> Result<Self, ExitCode> {
        match &args.admin {
            Some(node) => Ok(node.clone()),
            None => Ok(Self::listening_at(args.config.load()?.admin.listen)),
        }
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

    /// The node's status.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers something else.
    pub async fn status(&self) -> Result<Status, String> {
        serde_json::from_str(&self.status_json().await?).map_err(|error| {
            let at = &self.authority;
            format!("{at} sent a status that this version cannot read (--json may help): {error}")
        })
    }

    /// The node's status as it came, whatever its version.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers with an error.
    pub async fn status_json(&self) -> Result<String, String> {
        self.get("/status").await
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let exchange = timeout(PATIENCE, self.exchange(path)).await;
        let (code, body) = exchange.unwrap_or_else(|_| {
            Err(format!(
                "{} did not answer within {PATIENCE:?}: is it the admin port of a node, and is that node well?",
                self.authority
            ))
        })?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if code == StatusCode::OK {
            return Ok(body);
        }
        Err(format!("{} answered {code}: {}", self.authority, detail(&body)))
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        let at = &self.authority;
        let stream = TcpStream::connect(at).await.map_err(|error| {
            format!(
                "cannot reach a node at {at}: {error}. Is `litepilot run` running, and is this its admin.listen?"
            )
        })?;
        let broken = |why: &dyn std::fmt::Display| {
            format!("{at} does not answer as an admin port does: {why}")
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

impl FromStr for Node {
    type Err = &'static str;

    /// From an admin URL.
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "this is no admin URL: write it like http://127.0.0.1:9180";
        let uri: Uri = url.parse().map_err(|_| WRONG)?;
        let authority = uri.authority().ok_or(WRONG)?;
        let plain = uri.scheme_str() == Some("http")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        if !plain {
            return Err(WRONG);
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()) })
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

/// Runs a command that asks a node; what goes wrong with that is printed.
pub fn run(args: &AdminArgs, command: impl AsyncFnOnce(&Node) -> Result<(), String>) -> ExitCode {
    let node = match Node::from_args(args) {
        Ok(node) => node,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command(&node)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
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
            assert_eq!(url.parse::<Node>().unwrap().authority, authority);
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
            assert!(bad.parse::<Node>().is_err(), "{bad}");
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
