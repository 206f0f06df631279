//! A dialer for a process that stands in for a node which does not run.

use std::sync::Arc;

use anyhow::anyhow;

use super::{Credentials, Dialer, Times};
use crate::cluster::NodeId;
use crate::config::{HostPort, PeerTls};
use crate::tls::Identity;

/// Dials as `own`, with its certificate if it has one; reads the files now.
///
/// # Errors
///
/// What is wrong with the files.
pub(crate) fn dialer(
    own: &NodeId,
    peers: &[(NodeId, HostPort)],
    times: Times,
    tls: Option<&PeerTls>,
) -> anyhow::Result<Dialer> {
    let mut dialer = Dialer::new(own.clone(), peers, times);
    if let Some(files) = tls {
        let identity = Identity::read(files, own).map_err(|faults| {
            let faults: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
            anyhow!("cluster.tls: {}", faults.join("; "))
        })?;
        let credentials = Credentials::new(own.clone(), &identity);
        dialer.secure(Arc::new(credentials?));
    }
    Ok(dialer)
}
