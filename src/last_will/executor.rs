//! The process beside a node that outlives it: `litepilot last-will`.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::LastWill;
use super::estate::Estate;
use crate::cluster::NodeId;
use crate::election::rpc::{Request, Transport};
use crate::election::transport::PeerTransport;
use crate::peer::{Dialer, Times, outside};
use crate::process::guard::program::be_deaf;

/// For one node to answer; it only takes note.
const ANSWER: Duration = Duration::from_millis(500);
/// Before a node is told again that has not answered.
const AGAIN: Duration = Duration::from_millis(20);

/// Reads standard input, a pipe, to its end; then tells the others if nothing is left of the node.
pub(crate) fn main() -> ExitCode {
    // How it is listed; else it would be `exe`.
    let _ = rustix::thread::set_name(c"litepilot-will");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("litepilot last-will: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<()> {
    let _deaf = be_deaf()?;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let mut pipe = pipe::Receiver::from_owned_fd(stdin).map_err(|why| {
        io::Error::other(format!("{why}: it is litepilot run that starts this, with a pipe"))
    })?;
    let (mut estate, mut dialer) = (Estate::default(), None);
    let mut piece = [0; 8192];
    loop {
        let length = pipe.read(&mut piece).await?;
        if length == 0 {
            break;
        }
        if let Some(will) = estate.read(&piece[..length]) {
            match dialer_of(&will) {
                Ok(new) => dialer = Some(new),
                // The certificates that it has already may do.
                Err(why) => eprintln!("litepilot last-will: {why:#}"),
            }
        }
    }
    if let (Some(will), Some(dialer)) = (estate.settle(), dialer) {
        // After its ttl the lease is over anyway.
        let _ = timeout(Duration::from_millis(will.ttl_ms), tell(&will, dialer)).await;
    }
    Ok(())
}

fn dialer_of(will: &LastWill) -> anyhow::Result<Dialer> {
    let peers: Vec<_> = will
        .members
        .iter()
        .filter_map(|member| Some((member.name.clone(), member.address()?)))
        .collect();
    let times = Times { connect: ANSWER, greeting: ANSWER, unacknowledged: Duration::from_secs(5) };
    outside::dialer(&will.node, &peers, times, will.tls.as_ref())
}

/// Tells everybody, all at once, until they have heard it.
async fn tell(will: &LastWill, dialer: Dialer) {
    let transport = Arc::new(PeerTransport::new(Arc::new(dialer)));
    let request = Request::Ended { life: will.life.clone(), term: will.term };
    let others = will.members.iter().map(|member| member.name.clone());
    let telling: JoinSet<()> = others
        .filter(|node| *node != will.node)
        .map(|node| tell_one(transport.clone(), node, request.clone()))
        .collect();
    telling.join_all().await;
}

/// Whatever the answer: an older node, for one, does not understand.
async fn tell_one(transport: Arc<PeerTransport>, node: NodeId, request: Request) {
    while transport.call(node.clone(), request.clone(), ANSWER).await.is_err() {
        sleep(AGAIN).await;
    }
}
