//! HTTP/1 on a connection, byte by byte. What a test sends is sent exactly so; what comes is read
//! by a parser of our own that forgives nothing, and kept as it came.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What has not happened by then never will.
const DEADLINE: Duration = Duration::from_secs(30);

/// Awaits something that is sure to happen, so that a test that is wrong fails instead of hanging.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A TCP or Unix connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One end of a connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    /// Every field line, names as they came.
    pub fields: Vec<(String, String)>,
    /// The content, without its framing.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// All of it as it came.
    pub raw: Vec<u8>,
}

/// How a body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    /// To the end of the connection.
    Close,
}

impl Message {
    /// The values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// A field that may be there once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} more than once: {self:?}");
        all.first().copied()
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    /// The response's status.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The kind of a problem that Litepilot reports, which must have its full form.
    pub fn problem(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"));
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status());
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        assert_eq!(problem["node"], self.field("litepilot-node").unwrap());
        let kind = problem["type"].as_str().unwrap();
        kind.strip_prefix("urn:litepilot:problem:").unwrap().to_owned()
    }

    /// Whether a problem says that a retry is safe.
    pub fn retry_is_safe(&self) -> bool {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        match problem["retry"].as_str().unwrap() {
            "safe" => true,
            "unsafe" => false,
            other => panic!("retry: {other}"),
        }
    }

    /// The one framing that a well-formed message of ours has.
    fn framing(&self, without: Framing) -> Framing {
        match (self.field("transfer-encoding"), self.field("content-length")) {
            (None, None) => without,
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(n)) if n.bytes().all(|b| b.is_ascii_digit()) => {
                Framing::Length(n.parse().unwrap())
            }
            other => panic!("ambiguous framing {other:?} in {self:?}"),
        }
    }
}

impl Wire {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Likewise, where the other side may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        soon("room to send", sending).await
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn end(&mut self) {
        soon("the end of our side", self.stream.shutdown()).await.unwrap();
    }

    /// Sends up to `most` bytes `x`, until the other side takes none for so long; says how many it
    /// took.
    pub async fn flood(&mut self, quiet: Duration, most: usize) -> usize {
        let mut sent = 0;
        while sent < most {
            match tokio::time::timeout(quiet, self.write_some(most - sent)).await {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        sent
    }

    /// Sends some bytes `x`, at most so many; says how many.
    pub async fn send_some(&mut self, most: usize) -> usize {
        soon("room to send", self.write_some(most)).await
    }

    async fn write_some(&mut self, most: usize) -> usize {
        static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
        self.stream.write(&PIECE[..most.min(PIECE.len())]).await.unwrap()
    }

    /// Waits for at least one byte; false at the end of the connection.
    pub async fn more(&mut self) -> bool {
        let read = soon("bytes", self.stream.read_buf(&mut self.buffer)).await;
        // A reset is an end too: the other side has gone.
        read.unwrap_or(0) > 0
    }

    /// Exactly so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more().await, "ended early after {:?}", self.text());
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        let found = |buffer: &[u8]| buffer.windows(end.len()).position(|w| w == end.as_bytes());
        loop {
            if let Some(at) = found(&self.buffer) {
                let taken = self.bytes(at + end.len()).await;
                return String::from_utf8_lossy(&taken).into_owned();
            }
            assert!(self.more().await, "no {end:?} in {:?}", self.text());
        }
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Asserts that the other side ends the connection without another byte.
    pub async fn closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// A head; `None` if the connection ends before one.
    pub async fn head(&mut self) -> Option<Message> {
        while self.buffer.is_empty() {
            if !self.more().await {
                return None;
            }
        }
        let raw = self.until("\r\n\r\n").await;
        let mut lines = raw.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let fields = lines.map(field_line).collect();
        assert!(!start.contains(['\r', '\n', '\0']), "{start:?}");
        Some(Message { start, fields, raw: raw.into_bytes(), ..Message::default() })
    }

    /// A whole request; `None` if the connection ends before one.
    pub async fn request(&mut self) -> Option<Message> {
        let mut request = self.head().await?;
        self.body(&mut request, Framing::None).await;
        Some(request)
    }

    /// A whole response to a request with that method.
    pub async fn response_to(&mut self, method: &str) -> Message {
        let response = self.head().await.expect("a response, not the end of the connection");
        self.rest_of_response(response, method).await
    }

    /// The rest of a response of which the head was read.
    pub async fn rest_of_response(&mut self, mut response: Message, method: &str) -> Message {
        let status = response.status();
        if method != "HEAD" && status >= 200 && status != 204 && status != 304 {
            self.body(&mut response, Framing::Close).await;
        }
        response
    }

    /// A whole response to anything but HEAD.
    pub async fn response(&mut self) -> Message {
        self.response_to("GET").await
    }

    async fn body(&mut self, message: &mut Message, without: Framing) {
        match message.framing(without) {
            Framing::None => {}
            Framing::Length(length) => message.body = self.bytes(length).await,
            Framing::Close => message.body = self.rest().await,
            Framing::Chunked => return self.chunks(message).await,
        }
        message.raw.extend_from_slice(&message.body);
    }

    async fn chunks(&mut self, message: &mut Message) {
        loop {
            let size = self.until("\r\n").await;
            message.raw.extend_from_slice(size.as_bytes());
            let size = size.strip_suffix("\r\n").unwrap();
            assert!(size.bytes().all(|b| b.is_ascii_hexdigit()), "chunk size {size:?}");
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            let data = self.bytes(size).await;
            message.body.extend_from_slice(&data);
            message.raw.extend_from_slice(&data);
            assert_eq!(self.bytes(2).await, b"\r\n", "after a chunk");
            message.raw.extend_from_slice(b"\r\n");
        }
        loop {
            let line = self.until("\r\n").await;
            message.raw.extend_from_slice(line.as_bytes());
            match line.strip_suffix("\r\n").unwrap() {
                "" => return,
                trailer => message.trailers.push(field_line(trailer)),
            }
        }
    }

    /// The content of the next chunk.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let data = self.bytes(size).await;
        assert_eq!(self.bytes(2).await, b"\r\n", "after a chunk");
        data
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

fn field_line(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    assert!(!name.is_empty() && name.bytes().all(is_token), "field name {name:?}");
    assert!(!value.contains(['\r', '\n', '\0']), "field value {value:?}");
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}
