//! Whose forwarding headers count.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::yaml::Node;
use crate::yaml::value::ValueError;

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// RFC 1918 and RFC 4193.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// Whose forwarding headers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted(pub Vec<IpNet>);

impl Trusted {
    /// Whether a peer with this address is trusted. IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|net| net.contains(&peer))
    }
}

impl Trusted {
    pub(crate) fn loopback() -> Self {
        Self(named(&LOOPBACK))
    }
}

/// The networks that one word stands for: `loopback`, `private`, an address, or a CIDR.
pub(crate) fn networks(node: &Node) -> Result<Vec<IpNet>, ValueError> {
    let word = node.word().unwrap_or_default();
    match word {
        "loopback" => return Ok(named(&LOOPBACK)),
        "private" => return Ok(named(&PRIVATE)),
        _ => {}
    }
    let one = |address: IpAddr| IpNet::from(address.to_canonical());
    match word.parse::<IpNet>().or_else(|_| word.parse().map(one)) {
        Ok(network) => Ok(vec![network.trunc()]),
        Err(_) => Err(format!(
            "{} is no network: write loopback, private, or a CIDR like 10.0.0.0/8",
            node.describe()
        )
        .into()),
    }
}

fn named(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().filter_map(|network| network.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Place, Value};

    fn trusts(word: &str, peer: &str) -> bool {
        let value = Value::Text(word.to_owned());
        let node = Node { place: Place::START, value, plain: None };
        Trusted(networks(&node).unwrap()).contains(peer.parse().unwrap())
    }

    #[test]
    fn names_stand_for_networks() {
        assert!(trusts("loopback", "127.1.2.3") && trusts("loopback", "::1"));
        assert!(trusts("loopback", "::ffff:127.0.0.1"));
        assert!(!trusts("loopback", "10.0.0.1"));
        assert!(trusts("private", "172.31.0.1") && trusts("private", "fd00::1"));
        assert!(!trusts("private", "172.32.0.1") && !trusts("private", "127.0.0.1"));
        assert!(trusts("10.1.2.3/8", "10.9.9.9") && trusts("1.2.3.4", "1.2.3.4"));
        assert!(!trusts("1.2.3.4", "1.2.3.5"));
    }

    #[test]
    fn no_network_is_left_out_for_a_slip_of_ours() {
        assert_eq!(named(&LOOPBACK).len() + named(&PRIVATE).len(), 6);
    }
}
