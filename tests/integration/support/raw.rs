//! A client that sends exactly what a test says.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use tokio::net::TcpStream;

use super::wire::{Message, Wire};

/// A connection to a node.
pub struct Client(Wire);

impl Client {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(Wire::new(stream))
    }

    /// One that resets its connection when it is dropped. Ending it would mean only that nothing more
    /// will be sent.
    pub async fn abrupt(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_zero_linger().unwrap();
        Self(Wire::new(stream))
    }

    /// Sends `GET /path` (or another method) with the given field lines.
    pub async fn begin(&mut self, request: &str, fields: &[&str]) {
        let mut head = format!("{request} HTTP/1.1\r\nHost: shop\r\n");
        for field in fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        self.send(head + "\r\n").await;
    }

    /// A request without a body, and its response.
    pub async fn ask(&mut self, request: &str, fields: &[&str]) -> Message {
        self.begin(request, fields).await;
        self.response_to(request.split(' ').next().unwrap()).await
    }

    /// `POST /path` with a body, and its response.
    pub async fn post(&mut self, path: &str, fields: &[&str], body: &str) -> Message {
        let length = format!("Content-Length: {}", body.len());
        let fields: Vec<_> = fields.iter().copied().chain([length.as_str()]).collect();
        self.begin(&format!("POST {path}"), &fields).await;
        self.send(body).await;
        self.response().await
    }
}

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
