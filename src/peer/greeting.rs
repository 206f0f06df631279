//! How a plain TCP connection is opened: one line each way.
//!
//! ```text
//! dialer    LITEPILOT/1 litepilot-http/1 node-2 node-1      protocol, who I am, whom I mean to reach
//! listener  OK                                              from here on the protocol's own bytes
//!      or   NO wrong-node this is node-3                    and the connection ends
//! ```
//!
//! With TLS the answer alone: see the `secure` module.
//!
//! The dialer says nothing more before it has its answer, so nothing of the protocol is ever sent to
//! a node that refuses.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::cluster::NodeId;

/// What every greeting begins with.
const MAGIC: &[u8] = b"LITEPILOT/1 ";
/// Bytes of the longest line, either way.
const MAX_LINE: usize = 256;
/// The answer to a greeting that is accepted.
pub(crate) const ACCEPTED: &[u8; 3] = b"OK\n";
/// How a refusal begins; as long as [`ACCEPTED`].
const REFUSED: &[u8; 3] = b"NO ";
/// How TLS answers to what is no TLS: a record of the type alert (RFC 8446, 5.1).
const TLS_ALERT: &[u8] = &[21, 3];

/// What a dialer says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The protocol that it wants to speak.
    pub(crate) protocol: String,
    /// The node that dials.
    pub(crate) from: NodeId,
    /// The node that it believes it reached.
    pub(crate) to: NodeId,
}

/// Why a node does not want a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GreetingRefusal {
    /// No greeting of ours.
    Malformed,
    /// The greeting did not come in time.
    TooSlow,
    /// The dialer's certificate is not accepted.
    BadCertificate,
    /// The dialer is no member of the cluster.
    NotAMember,
    /// The dialer meant another node: addresses are swapped.
    WrongNode,
    /// The dialer bears the listener's own name.
    Itself,
    /// Nobody here speaks the protocol.
    UnknownProtocol,
    Busy,
    /// A reason that only a later version knows.
    Other,
}

impl GreetingRefusal {
    const ALL: [Self; 9] = [
        Self::Malformed,
        Self::TooSlow,
        Self::BadCertificate,
        Self::NotAMember,
        Self::WrongNode,
        Self::Itself,
        Self::UnknownProtocol,
        Self::Busy,
        Self::Other,
    ];

    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooSlow => "too-slow",
            Self::BadCertificate => "bad-certificate",
            Self::NotAMember => "not-a-member",
            Self::WrongNode => "wrong-node",
            Self::Itself => "itself",
            Self::UnknownProtocol => "unknown-protocol",
            Self::Busy => "busy",
            Self::Other => "other",
        }
    }
}

impl Hello {
    /// The line to send.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let mut line = MAGIC.to_vec();
        line.extend_from_slice(format!("{} {} {}\n", self.protocol, self.from, self.to).as_bytes());
        line
    }

    /// Reads a line without its end.
    fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line.strip_prefix(MAGIC)?).ok()?;
        let mut words = text.split(' ');
        let (protocol, from, to) = (words.next()?, words.next()?, words.next()?);
        let printable = !protocol.is_empty() && protocol.bytes().all(|b| b.is_ascii_graphic());
        if words.next().is_some() || !printable {
            return None;
        }
        Some(Self { protocol: protocol.to_owned(), from: from.parse().ok()?, to: to.parse().ok()? })
    }
}

/// Reads the dialer's line: `Ok(None)` for anything that is none. A stranger is found out at its
/// first wrong byte. The caller bounds the time.
pub(crate) async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Hello>> {
    let mut line = [0; MAX_LINE];
    let mut len = 0;
    loop {
        let read = stream.read(&mut line[len..]).await?;
        len += read;
        let seen = &line[..len];
        let begun = len.min(MAGIC.len());
        if read == 0 || seen[..begun] != MAGIC[..begun] {
            return Ok(None);
        }
        if let Some(end) = seen.iter().position(|b| *b == b'\n') {
            // Bytes after the line came before we agreed to anything.
            return Ok(if end + 1 == len { Hello::parse(&seen[..end]) } else { None });
        }
    }
}

/// The line that says no.
pub(crate) fn refusal_line(refusal: GreetingRefusal, detail: &str) -> Vec<u8> {
    let mut line = REFUSED.to_vec();
    line.extend_from_slice(format!("{} {detail}", refusal.as_str()).as_bytes());
    line.truncate(MAX_LINE - 1);
    line.push(b'\n');
    line
}

/// Reads the listener's answer, and of an acceptance not one byte more.
///
/// # Errors
///
/// When the connection breaks, or the other side does not speak this protocol (`InvalidData`).
pub(crate) async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<(), (GreetingRefusal, String)>> {
    let mut answer = [0; ACCEPTED.len()];
    stream.read_exact(&mut answer).await?;
    if &answer == ACCEPTED {
        return Ok(Ok(()));
    }
    if &answer != REFUSED {
        let why = if answer.starts_with(TLS_ALERT) {
            "TLS is spoken there: has this node no cluster.tls?"
        } else {
            "whoever listens there is no Litepilot"
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut reason = Vec::new();
    stream.take(MAX_LINE as u64).read_to_end(&mut reason).await?;
    let reason = String::from_utf8_lossy(&reason);
    let (word, detail) = reason.trim_end().split_once(' ').unwrap_or((reason.trim_end(), ""));
    let refusal = GreetingRefusal::ALL
        .into_iter()
        .find(|r| r.as_str() == word)
        .unwrap_or(GreetingRefusal::Other);
    // It goes into our log: nothing there may look like a line of its own.
    let detail = detail.chars().filter(|c| !c.is_control()).collect();
    Ok(Err((refusal, detail)))
}

impl fmt::Display for GreetingRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: "litepilot-http/1".to_owned(),
            from: "node-2".parse().unwrap(),
            to: "node-1".parse().unwrap(),
        }
    }

    async fn read(bytes: &[u8]) -> Option<Hello> {
        read_hello(&mut &bytes[..]).await.unwrap()
    }

    #[tokio::test]
    async fn a_greeting_is_read_as_it_was_written() {
        assert_eq!(read(&hello().to_line()).await, Some(hello()));
    }

    #[tokio::test]
    async fn the_longest_names_fit() {
        let name: NodeId = "n".repeat(63).parse().unwrap();
        let long = Hello { from: name.clone(), to: name, ..hello() };
        assert_eq!(read(&long.to_line()).await, Some(long));
    }

    #[tokio::test]
    async fn anything_else_is_none() {
        for bad in [
            &b""[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"LITEPILOT/2 p a b\n",
            b"LITEPILOT/1 p a\n",
            b"LITEPILOT/1 p a b c\n",
            b"LITEPILOT/1  a b\n",
            b"LITEPILOT/1 p a b\r\n",
            b"LITEPILOT/1 p a/ b\n",
            b"LITEPILOT/1 p\x1b[0m a b\n",
            b"LITEPILOT/1 p a b\nearly",
            b"LITEPILOT/1 p a b",
            &[MAGIC, &[b'p'; 4096]].concat(),
        ] {
            assert_eq!(read(bad).await, None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[tokio::test]
    async fn reasons_travel() {
        for refusal in GreetingRefusal::ALL {
            let line = refusal_line(refusal, "this is node-3");
            let answer = read_answer(&mut &line[..]).await.unwrap();
            assert_eq!(answer, Err((refusal, "this is node-3".to_owned())));
        }
        let later = read_answer(&mut &b"NO too-tall and\x1b[2Jmore\n"[..]).await.unwrap();
        assert_eq!(later, Err((GreetingRefusal::Other, "and[2Jmore".to_owned())));
    }

    #[tokio::test]
    async fn an_answer_leaves_the_protocols_bytes_alone() {
        let mut stream = &b"OK\nhello"[..];
        assert_eq!(read_answer(&mut stream).await.unwrap(), Ok(()));
        assert_eq!(stream, b"hello");
    }

    #[tokio::test]
    async fn a_stranger_who_answers_is_recognized() {
        let error = read_answer(&mut &b"HTTP/1.1 400 Bad Request"[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let endless = [&b"NO "[..], &[b'x'; 1 << 20]].concat();
        let (_, detail) = read_answer(&mut &endless[..]).await.unwrap().unwrap_err();
        assert!(detail.len() <= MAX_LINE);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            let _ = Hello::parse(&bytes);
            let _ = Hello::parse(&[MAGIC, &bytes].concat());
        }
    }
}
