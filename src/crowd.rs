//! Who gives way when a port has no place left. Pure.
//!
//! Places that are given to whoever comes first are held by whoever comes often. So a newcomer always gets
//! one: of those who count least, and no more than itself, the oldest of the source that holds the most
//! gives way. A crowd of strangers so displaces itself, and never somebody who is known.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// How much is known of somebody. The later, the more it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Stranger,
    /// It comes from where somebody is who has proved who it is.
    Familiar,
    /// It has proved who it is, or is being served.
    Proven,
}

/// A place, by the order in which they were taken.
pub(crate) type Place = u64;

/// What a newcomer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Free(Place),
    /// A place, and whose must be given up for it.
    InsteadOf(Place, Place),
    /// All that are there count for more.
    Full,
}

/// Those who are there.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    next: Place,
    present: BTreeMap<Place, (IpAddr, Standing)>,
}

impl Crowd {
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self { most, next: 0, present: BTreeMap::new() }
    }

    /// Somebody comes.
    pub(crate) fn arrive(&mut self, from: IpAddr, standing: Standing) -> Arrival {
        let leaves = match self.present.len() < self.most {
            true => None,
            false => match self.least(standing) {
                Some(place) => Some(place),
                None => return Arrival::Full,
            },
        };
        let place = self.next;
        self.next += 1;
        self.present.insert(place, (source(from), standing));
        match leaves {
            None => Arrival::Free(place),
            Some(leaves) => {
                self.present.remove(&leaves);
                Arrival::InsteadOf(place, leaves)
            }
        }
    }

    /// More is known of it, or less.
    pub(crate) fn set(&mut self, place: Place, to: Standing) {
        if let Some((_, standing)) = self.present.get_mut(&place) {
            *standing = to;
        }
    }

    /// Whether it is there still.
    pub(crate) fn has(&self, place: Place) -> bool {
        self.present.contains_key(&place)
    }

    /// It has gone, perhaps long since.
    pub(crate) fn leave(&mut self, place: Place) {
        self.present.remove(&place);
    }

    /// Who gives way to a newcomer of that standing. Those who are proven do to nobody.
    fn least(&self, newcomer: Standing) -> Option<Place> {
        let lowest = self.present.values().map(|(_, standing)| *standing).min()?;
        if lowest > newcomer || lowest == Standing::Proven {
            return None;
        }
        let mut sources: HashMap<IpAddr, (usize, Place)> = HashMap::new();
        for (place, (from, _)) in self.present.iter().filter(|(_, (_, at))| *at == lowest) {
            sources.entry(*from).or_insert((0, *place)).0 += 1;
        }
        // Of sources that hold as many the oldest.
        let most = sources.into_values().max_by_key(|(held, oldest)| (*held, u64::MAX - oldest));
        most.map(|(_, oldest)| oldest)
    }
}

/// What one machine may have at its disposal: an address, or a network of IPv6.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Arrival::{Free, Full, InsteadOf};
    use Standing::{Familiar, Proven, Stranger};

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn a_crowd_of_strangers_displaces_itself_oldest_first() {
        let mut crowd = Crowd::of_at_most(3);
        for place in 0..3 {
            assert_eq!(crowd.arrive(ip(1), Stranger), Free(place));
        }
        assert_eq!(crowd.arrive(ip(1), Stranger), InsteadOf(3, 0));
        assert_eq!(crowd.arrive(ip(2), Stranger), InsteadOf(4, 1));
        assert_eq!(
            crowd.arrive(ip(1), Stranger),
            InsteadOf(5, 2),
            "not the other source's only one"
        );
        crowd.leave(4);
        crowd.leave(0);
        assert_eq!(crowd.arrive(ip(2), Stranger), Free(6));
    }

    #[test]
    fn whoever_is_known_gives_way_to_no_stranger() {
        let mut crowd = Crowd::of_at_most(3);
        for _ in 0..3 {
            crowd.arrive(ip(1), Stranger);
        }
        assert_eq!(crowd.arrive(ip(2), Familiar), InsteadOf(3, 0));
        assert_eq!(crowd.arrive(ip(2), Familiar), InsteadOf(4, 1));
        assert_eq!(crowd.arrive(ip(1), Stranger), InsteadOf(5, 2), "the last stranger goes");
        assert_eq!(crowd.arrive(ip(2), Familiar), InsteadOf(6, 5));
        assert_eq!(crowd.arrive(ip(1), Stranger), Full);
        crowd.set(3, Proven);
        assert_eq!(crowd.arrive(ip(2), Familiar), InsteadOf(7, 4), "not who has proved it");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let mut crowd = Crowd::of_at_most(3);
        for from in ["2001:db8::1", "2001:db8:0:1::1", "2001:db8::2"] {
            crowd.arrive(from.parse().unwrap(), Stranger);
        }
        assert_eq!(crowd.arrive("2001:db8:0:1::2".parse().unwrap(), Stranger), InsteadOf(3, 0));
        assert_eq!(crowd.arrive("::ffff:10.0.0.1".parse().unwrap(), Stranger), InsteadOf(4, 1));
        assert_eq!(crowd.arrive(ip(1), Stranger), InsteadOf(5, 2));
        assert_eq!(crowd.arrive(ip(2), Stranger), InsteadOf(6, 4), "one source, however written");
    }

    #[test]
    fn nobody_who_is_proven_ever_gives_way() {
        let mut crowd = Crowd::of_at_most(2);
        for place in 0..2 {
            crowd.arrive(ip(1), Stranger);
            crowd.set(place, Proven);
        }
        for standing in [Stranger, Familiar, Proven] {
            assert_eq!(crowd.arrive(ip(2), standing), Full);
        }
    }
}
