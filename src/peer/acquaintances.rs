//! From where this node's peers have come, and where they were found: strangers do not displace whoever
//! comes from there.

use std::net::IpAddr;

use parking_lot::Mutex;

/// Addresses that are remembered; the one that was longest unused goes.
const MOST: usize = 64;

/// The last one used stands last.
#[derive(Default)]
pub(super) struct Acquaintances(Mutex<Vec<IpAddr>>);

impl Acquaintances {
    /// A peer is there.
    pub(super) fn met(&self, at: IpAddr) {
        let mut known = self.0.lock();
        let at = at.to_canonical();
        known.retain(|known| *known != at);
        if known.len() == MOST {
            known.remove(0);
        }
        known.push(at);
    }

    pub(super) fn has(&self, from: IpAddr) -> bool {
        self.0.lock().contains(&from.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ones_used_last_are_remembered() {
        let known = Acquaintances::default();
        let ip = |n: usize| IpAddr::from([10, 0, 0, n as u8]);
        known.met("::ffff:10.0.0.0".parse().unwrap());
        (1..MOST).for_each(|n| known.met(ip(n)));
        known.met(ip(0));
        known.met(ip(MOST));
        assert!(known.has(ip(0)) && known.has(ip(2)) && known.has(ip(MOST)));
        assert!(!known.has(ip(1)));
    }
}
