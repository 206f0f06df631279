//! A port on loopback that leads to another node's LiteFS, through its peer port.
//!
//! Of the primary's `advertise-url` LiteFS uses only host and port, and speaks HTTP/2 without TLS. So it
//! is told the address of a tunnel: its own port stays on loopback everywhere, what crosses hosts is
//! encrypted and authenticated, and a tunnel can be cut: LiteFS' stream has no time limit of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::accept::{self, Guest};
use crate::cluster::NodeId;
use crate::crowd::Standing;
use crate::engine::replication::Dial;
use crate::peer;

/// Connections at once. LiteFS needs one for its stream, and now and then one for a request.
const CONNECTIONS: usize = 16;

/// An open tunnel. Dropping it cuts it, and every connection through it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    address: SocketAddr,
    task: AbortHandle,
}

impl Tunnel {
    /// Opens one to the LiteFS of `node`. Nothing is dialed before somebody connects.
    ///
    /// # Errors
    ///
    /// When no port is to be had.
    pub(crate) async fn open(dial: Arc<dyn Dial>, node: NodeId) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, dial, node)).abort_handle();
        Ok(Self { address, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, dial: Arc<dyn Dial>, node: NodeId) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    let serve = |stream, _, guest: Guest| {
        let (dial, node) = (dial.clone(), node.clone());
        // Nobody here says who it is, and LiteFS' stream must not give way.
        guest.is(Standing::Proven);
        async move {
            let _guest = guest;
            let dialed = dial.dial(&node, peer::LITEFS);
            if let Err(error) = pass(stream, dialed).await {
                tracing::debug!(%error, "the tunnel to the primary's LiteFS");
            }
        }
    };
    accept::serve_each(&listener, "a tunnel to LiteFS", CONNECTIONS, &mut connections, serve).await;
}

async fn pass<S: AsyncRead + AsyncWrite + Unpin>(
    mut from: TcpStream,
    dialed: impl Future<Output = io::Result<S>>,
) -> io::Result<()> {
    from.set_nodelay(true)?;
    let mut to = dialed.await?;
    copy_bidirectional(&mut from, &mut to).await.map(drop)
}

/// The other end: passes a peer's connection on to this node's LiteFS, until either end ends it.
///
/// # Errors
///
/// When LiteFS takes no connection, or the connection breaks.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut from: S,
    litefs: SocketAddr,
) -> io::Result<()> {
    let mut to = TcpStream::connect(litefs).await?;
    to.set_nodelay(true)?;
    copy_bidirectional(&mut from, &mut to).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BoxFuture;
    use crate::engine::replication::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Every node's LiteFS is this one.
    struct To(SocketAddr);

    impl Dial for To {
        fn dial<'a>(
            &'a self,
            _: &'a NodeId,
            protocol: &'static str,
        ) -> BoxFuture<'a, io::Result<Stream>> {
            assert_eq!(protocol, peer::LITEFS);
            let (ours, theirs) = tokio::io::duplex(1024);
            tokio::spawn(serve(theirs, self.0));
            Box::pin(async move { Ok(Box::new(ours) as Stream) })
        }
    }

    /// Answers each byte with the next.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        stream.write_u8(byte + 1).await.unwrap();
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn it_leads_to_litefs_until_it_is_cut() {
        let dial = Arc::new(To(echo().await));
        let tunnel = Tunnel::open(dial, "node-2".parse().unwrap()).await.unwrap();
        assert!(tunnel.address().ip().is_loopback());
        let mut a = TcpStream::connect(tunnel.address()).await.unwrap();
        let mut b = TcpStream::connect(tunnel.address()).await.unwrap();
        for stream in [&mut a, &mut b] {
            for byte in [1, 5] {
                stream.write_u8(byte).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), byte + 1);
            }
        }
        let address = tunnel.address();
        drop(tunnel);
        assert!(a.read_u8().await.is_err() && b.read_u8().await.is_err());
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_litefs_that_is_not_there_ends_the_connection() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let tunnel = Tunnel::open(Arc::new(To(nobody)), "node-2".parse().unwrap()).await.unwrap();
        let mut stream = TcpStream::connect(tunnel.address()).await.unwrap();
        assert!(stream.read_u8().await.is_err());
    }
}
