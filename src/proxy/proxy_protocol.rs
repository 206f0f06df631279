//! The header of HAProxy's PROXY protocol, versions 1 and 2, with which a proxy that passes bytes on says
//! who connected to it. `proxy.proxy_protocol` demands it of `proxy.trusted`, and nobody else may send it:
//! guessing would let clients forge it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// As the shortest header of version 1 (`PROXY UNKNOWN` and its line end); version 2 has one byte more.
const BEGINNING: usize = 15;
/// The longest line of version 1.
const MAX_LINE: usize = 107;
/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses and what else a proxy may add of version 2, in bytes.
const MAX_REST: usize = 4096;

/// Who connected, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// Reads the header and not one byte more. `None`: the proxy speaks for itself.
///
/// # Errors
///
/// When there is none, or it does not come in time.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> io::Result<Option<Said>> {
    let header = async {
        let mut begins = [0; BEGINNING];
        stream.read_exact(&mut begins).await?;
        if begins.starts_with(SIGNATURE) {
            return version_2(&begins, stream).await;
        }
        if !begins.starts_with(b"PROXY ") {
            return Err(invalid("the connection begins otherwise"));
        }
        let mut line = begins.to_vec();
        while !line.ends_with(b"\r\n") {
            if line.len() == MAX_LINE {
                return Err(invalid("its line is too long"));
            }
            line.push(stream.read_u8().await?);
        }
        version_1(&line)
    };
    timeout(limit, header).await?
}

fn version_1(line: &[u8]) -> io::Result<Option<Said>> {
    let line = str::from_utf8(line).map_err(|_| invalid("its line is no text"))?;
    let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
    let [_, "TCP4" | "TCP6", client, server, client_port, server_port] = words[..] else {
        return match words.get(1) {
            Some(&"UNKNOWN") => Ok(None),
            _ => Err(invalid("its line is malformed")),
        };
    };
    let address =
        |ip: &str, port: &str| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?));
    match address(client, client_port).zip(address(server, server_port)) {
        Some((client, server)) => Ok(Some(Said { client, server })),
        None => Err(invalid("its addresses are malformed")),
    }
}

async fn version_2(
    begins: &[u8; BEGINNING],
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Said>> {
    let [.., command, family, high] = *begins;
    let length = usize::from(u16::from_be_bytes([high, stream.read_u8().await?]));
    if length > MAX_REST {
        return Err(invalid("it is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        (0x20, _) => Ok(None),
        (0x21, 0x11) => addresses::<4>(&rest).map(Some),
        (0x21, 0x21) => addresses::<16>(&rest).map(Some),
        // Of another kind, such as a Unix socket.
        (0x21, _) => Ok(None),
        _ => Err(invalid("its version or its command is unknown")),
    }
}

/// Two addresses of `N` bytes, then two ports.
fn addresses<const N: usize>(rest: &[u8]) -> io::Result<Said> {
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => Some(IpAddr::V4(Ipv4Addr::from(v4))),
        Err(_) => <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6))),
    };
    let part = |from: usize, length: usize| rest.get(from..from + length);
    let port = |from| part(from, 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let address = |from, port_from| Some(SocketAddr::new(ip(part(from, N)?)?, port(port_from)?));
    match address(0, 2 * N).zip(address(N, 2 * N + 2)) {
        Some((client, server)) => Ok(Said { client, server }),
        None => Err(invalid("its addresses are cut off")),
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(mut header: &[u8]) -> Result<Option<(String, String)>, String> {
        let said =
            read(&mut header, Duration::from_secs(1)).await.map_err(|why| why.to_string())?;
        assert!(header.is_empty() || header == b"GET", "{header:?} is left");
        Ok(said.map(|said| (said.client.to_string(), said.server.to_string())))
    }

    fn two(client: &str, server: &str) -> Result<Option<(String, String)>, String> {
        Ok(Some((client.to_owned(), server.to_owned())))
    }

    #[tokio::test]
    async fn version_1_is_a_line() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\nGET";
        assert_eq!(said(line).await, two("192.0.2.7:1234", "198.51.100.1:443"));
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(said(line).await, two("[2001:db8::1]:1", "[::1]:2"));
        assert_eq!(said(b"PROXY UNKNOWN\r\nGET").await, Ok(None));
        assert_eq!(said(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n").await, Ok(None));
        for bad in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 1.1.1.1 1\r\n",
            b"PROXY TCP4 192.0.2.7 1.1.1.1 1 70000\r\n",
            b"PROXY TCP4 a b 1 2\r\n......",
            b"PROXY TCP4 192.0.2.7",
        ] {
            assert!(said(bad).await.is_err(), "{bad:?}");
        }
        let endless = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        assert!(read(&mut &endless[..], Duration::from_secs(1)).await.is_err());
    }

    #[tokio::test]
    async fn version_2_is_binary() {
        let header = |command: u8, family: u8, rest: &[u8]| {
            let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
            [SIGNATURE, &[command, family], &length, rest, b"GET"].concat()
        };
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 4, 210, 1, 187];
        let more = [&four[..], &[1, 0, 1, 0]].concat();
        for rest in [&four[..], &more] {
            let said = said(&header(0x21, 0x11, rest)).await;
            assert_eq!(said, two("192.0.2.7:1234", "198.51.100.1:443"));
        }
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        assert_eq!(said(&header(0x21, 0x21, &six)).await, two("[::1]:3", "[::2]:4"));
        assert_eq!(said(&header(0x20, 0, &[])).await, Ok(None));
        assert_eq!(said(&header(0x21, 0x31, &[0; 216])).await, Ok(None));
        assert!(
            read(&mut &header(0x21, 0x11, &four[..4])[..], Duration::from_secs(1)).await.is_err()
        );
        assert!(read(&mut &header(0x31, 0x11, &four)[..], Duration::from_secs(1)).await.is_err());
    }
}
