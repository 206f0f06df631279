//! Asking a running node through its admin port: the other end of what [`super::routes`] answers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use http::request::Builder;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::feed::Feed;
use super::token::{self, Token};
use crate::config::Config;
use crate::status::Status;

/// For one whole exchange in which the node need not wait for anybody.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer; a status of a hundred nodes has some 20 KB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A node's admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// `host:port`, as it is dialed and as `Host` says it.
    authority: String,
    token: TokenAt,
}

/// Where its token is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenAt {
    Unknown,
    Configuration(String),
    File(PathBuf),
}

/// Why a node did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct AskError {
    /// For people.
    pub(crate) message: String,
    /// It may be otherwise in a moment: a node that is starting is like that.
    pub(crate) passing: bool,
}

impl AskError {
    /// It will not be otherwise.
    pub(crate) fn lasting(message: String) -> Self {
        Self { message, passing: false }
    }

    /// It may be otherwise in a moment.
    pub(crate) fn passing(message: String) -> Self {
        Self { message, passing: true }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AskError {}

impl Node {
    /// The node that a configuration describes, as seen from its own machine.
    pub(crate) fn configured(config: &Config) -> Self {
        let token = match &config.admin.token {
            Some(token) => TokenAt::Configuration(token.clone()),
            None => TokenAt::File(config.data_dir.join(token::FILE)),
        };
        Self { token, ..Self::listening_at(config.admin.listen) }
    }

    /// The same, with its token in a file.
    pub(crate) fn with_token_file(self, file: PathBuf) -> Self {
        Self { token: TokenAt::File(file), ..self }
    }

    /// A node that listens everywhere is asked on loopback.
    fn listening_at(listen: SocketAddr) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let authority = SocketAddr::new(ip, listen.port()).to_string();
        Self { authority, token: TokenAt::Unknown }
    }

    /// The node's status.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers something else.
    pub(crate) async fn status(&self) -> Result<Status, AskError> {
        self.read(&self.status_json().await?)
    }

    /// The node's status as it came, whatever its version.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers with an error.
    pub(crate) async fn status_json(&self) -> Result<String, AskError> {
        self.get("/status").await
    }

    /// The answer to a GET.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers with an error.
    pub(crate) async fn get(&self, path: &str) -> Result<String, AskError> {
        self.exchange(Request::get(path), String::new(), PATIENCE).await
    }

    /// Has something done, within `limit`; the answer.
    ///
    /// # Errors
    ///
    /// When there is no token, the node cannot be reached, or answers with an error.
    pub(crate) async fn post(
        &self,
        target: &str,
        body: String,
        limit: Duration,
    ) -> Result<String, AskError> {
        let request = Request::post(target).header(AUTHORIZATION, self.authorization()?);
        self.exchange(request, body, limit).await
    }

    /// What the node tells from now on.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached, or answers with an error.
    pub(crate) async fn listen(&self, path: &str) -> Result<Feed, AskError> {
        let request = self.send(Request::get(path), Full::<Bytes>::default());
        let (response, _connection) = self.within(PATIENCE, request).await?;
        match response.status() {
            StatusCode::OK => Ok(Feed::new(response.into_body())),
            code => {
                let answer = self.within(PATIENCE, self.whole(response)).await?;
                Err(self.refused(code, &answer))
            }
        }
    }

    /// Begins a conversation: a POST whose body goes on while its answer comes. Also the connection
    /// itself.
    ///
    /// # Errors
    ///
    /// As for [`Node::post`].
    pub(crate) async fn converse<B>(
        &self,
        target: &str,
        body: B,
    ) -> Result<(Response<Incoming>, OwnedFd), AskError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        let request = Request::post(target).header(AUTHORIZATION, self.authorization()?);
        let (response, connection) = self.within(PATIENCE, self.send(request, body)).await?;
        match response.status() {
            StatusCode::OK => Ok((response, connection)),
            code => {
                let answer = self.within(PATIENCE, self.whole(response)).await?;
                Err(self.refused(code, &answer))
            }
        }
    }

    /// A value that the node sent as JSON.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub(crate) fn read<'a, T: serde::Deserialize<'a>>(&self, json: &'a str) -> Result<T, AskError> {
        serde_json::from_str(json).map_err(|error| {
            let at = &self.authority;
            AskError::lasting(format!(
                "{at} sent an answer that this version cannot read (--json may help): {error}"
            ))
        })
    }

    fn authorization(&self) -> Result<HeaderValue, AskError> {
        let token = match &self.token {
            TokenAt::Unknown => {
                let what =
                    "this needs the node's token: give --token-file FILE too, or -c FILE instead";
                return Err(AskError::lasting(what.to_owned()));
            }
            TokenAt::Configuration(token) => token
                .parse::<Token>()
                .map_err(|why| AskError::lasting(format!("admin.token: {why}")))?,
            TokenAt::File(file) => token::load(file).map_err(|error| AskError {
                message: format!("no token of the node: {error}{}", remedy(&error)),
                // It is made when the node starts for the first time.
                passing: error.kind() == io::ErrorKind::NotFound,
            })?,
        };
        Ok(token.bearer())
    }

    async fn exchange(
        &self,
        request: Builder,
        body: String,
        limit: Duration,
    ) -> Result<String, AskError> {
        let exchange = async {
            let (response, _connection) = self.send(request, Full::new(Bytes::from(body))).await?;
            Ok((response.status(), self.whole(response).await?))
        };
        match self.within(limit, exchange).await? {
            (StatusCode::OK, answer) => Ok(answer),
            (code, answer) => Err(self.refused(code, &answer)),
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        exchange: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, AskError> {
        timeout(limit, exchange).await.unwrap_or_else(|_| {
            Err(AskError::passing(format!(
                "{} did not answer within {limit:?}: is it the admin port of a node, and is that node well?",
                self.authority
            )))
        })
    }

    async fn send<B>(
        &self,
        request: Builder,
        body: B,
    ) -> Result<(Response<Incoming>, OwnedFd), AskError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        let at = &self.authority;
        let unreachable = |error: io::Error| {
            AskError::passing(format!(
                "cannot reach a node at {at}: {error}. Is `litepilot run` running, and is this its admin.listen?"
            ))
        };
        let stream = TcpStream::connect(at).await.map_err(unreachable)?;
        let socket = stream.as_fd().try_clone_to_owned().map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // It ends with the exchange; what goes wrong with it, the request is told.
        tokio::spawn(connection);
        let request = request
            .header(HOST, at)
            .header(CONNECTION, "close")
            .body(body)
            .map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        Ok((response, socket))
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<String, AskError> {
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.broken(&error))?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn broken(&self, why: &dyn fmt::Display) -> AskError {
        let at = &self.authority;
        AskError::passing(format!("{at} does not answer as an admin port does: {why}"))
    }

    fn refused(&self, code: StatusCode, answer: &str) -> AskError {
        AskError {
            message: format!("{} answered {code}: {}", self.authority, detail(answer)),
            passing: [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&code),
        }
    }
}

/// What helps against a token that cannot be had, as far as the error does not say so itself.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            ". `litepilot run` makes it at its first start; is this its data_dir?"
        }
        io::ErrorKind::PermissionDenied => {
            ". Run this as the user that `litepilot run` runs as, or give --admin URL and --token-file FILE with a copy"
        }
        _ => "",
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
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { authority, token: TokenAt::Unknown })
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
