//! What no section can know alone: ports and directories that two of them want.

use std::net::SocketAddr;

use super::{Config, EngineKind, Target};

/// Each conflict: the key to change, and what is wrong with it.
pub(crate) fn find(config: &Config) -> Vec<(&'static str, String)> {
    let mut conflicts = shared_ports(config);
    conflicts.extend(loops(config));
    conflicts.extend(shared_directories(config));
    conflicts.extend(untracked_main(config));
    conflicts.extend(two_backups(config));
    conflicts
}

/// LiteFS knows one backup.
fn two_backups(config: &Config) -> Option<(&'static str, String)> {
    let both = config.backup.is_some() && config.litefs.extra.backup != Default::default();
    both.then(|| ("litefs.extra", "backup is written by Litepilot here: remove it".to_owned()))
}

/// Without the main database nothing would count where there is no other.
fn untracked_main(config: &Config) -> Option<(&'static str, String)> {
    let db = config.proxy.db.to_str().filter(|db| config.proxy.untracked.contains(*db))?;
    Some(("proxy.untracked", format!("{db} is proxy.db: leave it out")))
}

/// Two listeners on one port would fail only at the start, with a message that names neither key.
fn shared_ports(config: &Config) -> Vec<(&'static str, String)> {
    let mut listeners = vec![("admin.listen", config.admin.listen)];
    if !config.is_witness() {
        listeners.insert(0, ("proxy.listen", config.proxy.listen));
    }
    if !config.cluster.peers.is_empty() {
        listeners.push(("cluster.listen", config.cluster.listen));
    }
    if config.litefs.engine != EngineKind::Embedded {
        listeners.push(("litefs.http", config.litefs.http));
        listeners.push(("litefs.lease_listen", config.litefs.lease_listen));
        listeners.extend(config.backup.as_ref().map(|backup| ("backup.listen", backup.listen)));
    }
    let mut conflicts = Vec::new();
    for (i, (key, address)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners[..i].iter().find(|(_, other)| overlap(address, other)) {
            let message = format!("{address} is taken by {other}: write another port");
            conflicts.push((*key, message));
        }
    }
    conflicts
}

fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let hosts = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    hosts && a.port() == b.port() && a.port() != 0
}

/// A target that is our own port would have us forward each request to ourselves.
fn loops(config: &Config) -> Option<(&'static str, String)> {
    let Target::Tcp(target) = &config.proxy.target else { return None };
    let listen = config.proxy.listen;
    let ours = match target.host.parse() {
        Ok(address) => overlap(&SocketAddr::new(address, target.port), &listen),
        Err(_) => target.is_loopback() && target.port == listen.port(),
    };
    let message =
        format!("{target} is where Litepilot itself listens: write where the application listens");
    (ours && (!listen.ip().is_unspecified() || target.is_loopback()))
        .then_some(("proxy.target", message))
}

/// What lies in the mount, the engine would hide or replicate.
fn shared_directories(config: &Config) -> Vec<(&'static str, String)> {
    let mount = &config.litefs.mount;
    if config.litefs.engine == EngineKind::Embedded {
        return Vec::new();
    }
    [("litefs.data", &config.litefs.data), ("data_dir", &config.data_dir)]
        .into_iter()
        .filter(|(_, path)| path.starts_with(mount))
        .map(|(key, path)| {
            let (path, mount) = (path.display(), mount.display());
            (key, format!("{path} lies in litefs.mount, {mount}: write a directory beside it"))
        })
        .collect()
}
