//! Hosts on a network of their own, whose cables can be cut: network namespaces on a bridge.

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use super::need::{need, permitted};

/// Set in the process that has a network of its own.
const INSIDE: &str = "LITEPILOT_TEST_OWN_NETWORK";

/// Whether this process has a network of its own, which [`once_more`] gives it.
pub fn is_own() -> bool {
    let own = env::var_os(INSIDE).is_some();
    if own {
        // Where `ip netns` keeps its names. A view of this process alone.
        command("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        ip("link set lo up");
    }
    own
}

/// This program once more, where it has a network of its own that ends with it: a test that is killed leaves
/// nothing behind.
pub fn once_more() -> Command {
    let mut again = Command::new("unshare");
    again.args(namespaces()).arg(env::current_exe().unwrap()).env(INSIDE, "1");
    again
}

/// Whether a network of one's own can be had here; if not, that is said.
pub fn is_possible() -> bool {
    let try_it = [&["unshare"], namespaces(), &["true"]].concat();
    need("ip", "iproute2") && permitted("network namespaces need root or user namespaces", &try_it)
}

fn namespaces() -> &'static [&'static str] {
    match rustix::process::getuid().is_root() {
        true => &["--net", "--mount"],
        false => &["--net", "--mount", "--user", "--map-root-user"],
    }
}

/// The hosts, each with its address. This process reaches all of them, whatever is cut.
pub struct Network {
    pub hosts: Vec<(String, IpAddr)>,
}

impl Network {
    /// So many hosts, each of which reaches each other one.
    pub fn new(hosts: u8) -> Self {
        ip("link add bridge type bridge");
        ip("address add 10.77.0.254/24 dev bridge");
        ip("link set bridge up");
        let hosts = (1..=hosts).map(|i| {
            let name = format!("host{i}");
            let address = Ipv4Addr::new(10, 77, 0, i);
            ip(&format!("netns add {name}"));
            ip(&format!("link add port{i} master bridge type veth peer name eth0 netns {name}"));
            // Packets of hosts pass it, none is for it.
            ip(&format!("link set port{i} arp off"));
            ip(&format!("link set port{i} up"));
            ip(&format!("-n {name} address add {address}/24 dev eth0"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth0 up"));
            (name, address.into())
        });
        Self { hosts: hosts.collect() }
    }

    /// From now on nothing that `from` sends arrives at `to`.
    pub fn cut(&self, from: usize, to: usize) {
        ip(&self.route("add", from, to));
    }

    pub fn mend(&self, from: usize, to: usize) {
        ip(&self.route("delete", from, to));
    }

    fn route(&self, change: &str, from: usize, to: usize) -> String {
        format!("-n {} route {change} blackhole {}/32", self.hosts[from].0, self.hosts[to].1)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (i, (name, _)) in self.hosts.iter().enumerate() {
            // A namespace that is deleted takes its cables along only some time later.
            ip(&format!("link delete port{}", i + 1));
            ip(&format!("netns delete {name}"));
        }
        ip("link delete bridge");
    }
}

pub fn ip(words: &str) {
    command("ip", &words.split(' ').collect::<Vec<_>>());
}

fn command(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
