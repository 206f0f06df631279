//! What LiteFS' own HTTP port is asked. Each question has a connection and a time limit of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::readers::Vars;

/// For everything but a handoff.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// LiteFS' HTTP port.
#[derive(Clone, Copy, Debug)]
pub struct Api(pub SocketAddr);

/// What LiteFS says about itself, `GET /info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Info {
    /// Empty until it was primary or has met one.
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    /// It is the primary.
    pub(crate) is_primary: bool,
    /// It may become that.
    pub(crate) candidate: bool,
    pub(crate) path: String,
    /// Whom it follows, or itself.
    pub(crate) primary: Named,
}

/// A node in [`Info`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    /// Its name; empty if there is none.
    pub(crate) hostname: String,
}

/// Why LiteFS did not do what it was asked.
#[derive(Debug)]
pub enum ApiError {
    /// Nobody answers, or not in time, or not in LiteFS' way.
    Io(io::Error),
    Refused(StatusCode, String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "LiteFS does not answer: {error}"),
            Self::Refused(status, why) => write!(f, "LiteFS answered {status}: {why}"),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Api {
    /// What it says about itself.
    pub(crate) async fn info(self) -> Result<Info, ApiError> {
        let body = self.ask(Method::GET, "/info", LIMIT).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::Io(error.into()))
    }

    /// How its databases are locked.
    pub(super) async fn vars(self) -> Result<Vars, ApiError> {
        let body = self.ask(Method::GET, "/debug/vars", LIMIT).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::Io(error.into()))
    }

    /// Asks for a handoff from the primary that it follows. Done once that has stepped down; this one then
    /// still has to take over.
    ///
    /// # Errors
    ///
    /// 409 if it is no candidate, 500 if it follows nobody, or the primary refused.
    pub async fn promote(self, limit: Duration) -> Result<(), ApiError> {
        self.ask(Method::POST, "/promote", limit).await.map(drop)
    }

    /// Writes a consistent copy of a database into a new file. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// When LiteFS does not send it all, or it cannot be written.
    pub(crate) async fn export(self, database: &str, to: &Path) -> Result<(), ApiError> {
        let (status, mut body, _connection) =
            self.open(Method::GET, &export_path(database)).await?;
        if !status.is_success() {
            return Err(ApiError::Refused(status, "the database was not exported".to_owned()));
        }
        let mut file = tokio::fs::File::create_new(to).await?;
        // However large it is: only a LiteFS that says nothing is given up.
        while let Some(frame) = timeout(LIMIT, body.frame()).await.map_err(io::Error::from)? {
            let frame = frame.map_err(io::Error::other)?;
            if let Ok(data) = frame.into_data() {
                file.write_all(&data).await?;
            }
        }
        file.sync_all().await?;
        Ok(())
    }

    async fn ask(self, method: Method, path: &str, limit: Duration) -> Result<Bytes, ApiError> {
        let asked = async {
            let (status, body, _connection) = self.open(method, path).await?;
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(io::Error::other)?;
            let body = body.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let why = String::from_utf8_lossy(&body).trim().to_owned();
            Err(ApiError::Refused(status, crate::yaml::shorten(&why)))
        };
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
        timeout(limit, asked).await.unwrap_or_else(late)
    }

    /// Sends a request. The connection ends with the set.
    pub(super) async fn open(
        self,
        method: Method,
        path: &str,
    ) -> io::Result<(StatusCode, Incoming, JoinSet<hyper::Result<()>>)> {
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.0.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok((answer.status(), answer.into_body(), driver))
    }
}

/// A database's name may be any file name.
fn export_path(database: &str) -> String {
    let mut path = "/export?name=".to_owned();
    for byte in database.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_makes_a_path() {
        assert_eq!(export_path("db.sqlite3"), "/export?name=db.sqlite3");
        assert_eq!(export_path("a b&é"), "/export?name=a%20b%26%C3%A9");
    }

    #[test]
    fn what_a_real_one_says_is_understood() {
        let primary = include_str!("../../tests/litefs-contract/info-primary.json");
        let info: Info = serde_json::from_str(primary).unwrap();
        assert!(info.is_primary && info.candidate);
        assert_eq!(info.cluster_id, "LFSC46A2B733FF7320D1");
        let replica = include_str!("../../tests/litefs-contract/info-replica.json");
        let info: Info = serde_json::from_str(replica).unwrap();
        assert!(!info.is_primary && !info.primary.hostname.is_empty());
        assert_eq!(info.primary.hostname, "node1");
        let alone: Info = serde_json::from_str(r#"{"isPrimary":false,"primary":{}}"#).unwrap();
        assert!(!alone.is_primary && alone.primary.hostname.is_empty());
    }
}
