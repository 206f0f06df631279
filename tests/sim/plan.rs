//! How a cluster is made up, and what befalls it: chosen by the seed.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// See above.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Those that the cluster begins with.
    pub nodes: usize,
    /// The last of them holds no data.
    pub witness: bool,
    /// In ms.
    pub ttl: u64,
    /// The last of those that hold data may never become primary.
    pub reader: bool,
    /// For how long faults happen, in ms.
    pub faults: u64,
    /// Between two faults, on average, in ms.
    pub every: u64,
    pub weather: bool,
    /// Clocks differ by so many millionths, at most.
    pub drift: i64,
    pub operators: bool,
    /// Nodes are lost for good, replaced, removed and added.
    pub members: bool,
    /// `on_promote` fails now and then.
    pub hooks: bool,
    /// Machines stand still and do not know it.
    pub unseen: bool,
    /// Applications create their tables when they start.
    pub writes_at_start: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let chance = &mut SmallRng::seed_from_u64(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let (nodes, witness) = match chance.random_range(0..20) {
            0..11 => (3, false),
            11..16 => (3, true),
            _ => (5, false),
        };
        let (ttl, lasts) = match chance.random_range(0..10) {
            0..7 => (1000, 4_000..11_000),
            7..9 => (2000, 7_000..14_000),
            _ => (5000, 14_000..20_000),
        };
        Self {
            seed,
            nodes,
            witness,
            ttl,
            reader: chance.random_bool(0.25),
            faults: chance.random_range(lasts),
            every: chance.random_range(250..1500) * ttl / 1000,
            weather: chance.random_bool(0.7),
            drift: 24_000,
            operators: chance.random_bool(0.6),
            members: chance.random_bool(0.3),
            hooks: chance.random_bool(0.1),
            unseen: chance.random_bool(0.2),
            writes_at_start: chance.random_bool(0.5),
        }
    }

    /// Of a cluster of `nodes` with data, in which nothing happens that no script asks for.
    pub fn scripted(seed: u64, nodes: usize) -> Self {
        let plan = Self { nodes, witness: false, ttl: 1000, reader: false, ..Self::of(seed) };
        Self { members: false, hooks: false, unseen: false, writes_at_start: false, ..plan }
    }
}
