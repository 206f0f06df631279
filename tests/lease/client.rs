//! A lease server with a source of the test's, and a connection to it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use litepilot::lease::LeaseSource;
use litepilot::lease::server::LeaseServer;
use litepilot::secret::Secret;
use tokio::net::{TcpListener, TcpStream};

pub const SECRET: &str = "0123456789abcdef-lease";

/// Serves until the runtime of the test ends.
pub async fn serve(source: Arc<dyn LeaseSource>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let secret: Secret = SECRET.parse().unwrap();
    tokio::spawn(LeaseServer::new(source, secret).serve(listener));
    address
}

/// A connection that is kept open, as LiteFS keeps its own.
pub struct Client(http1::SendRequest<Full<Bytes>>);

impl Client {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Asks with the password.
    pub async fn ask(&mut self, line: &str, body: &str) -> (StatusCode, String) {
        self.ask_with(Some(SECRET), line, body).await
    }

    pub async fn ask_with(
        &mut self,
        secret: Option<&str>,
        line: &str,
        body: &str,
    ) -> (StatusCode, String) {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        request = request.header("Host", "localhost").header("Accept-Encoding", "gzip");
        if let Some(secret) = secret {
            request = request.header("X-Consul-Token", secret);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}
