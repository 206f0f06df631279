//! A bad cable in place of a host's good one: what passes it comes late, in another order, or not at all.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::network::ip;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/cable.py");

/// While it is there, all that the host sends and receives passes through `cable.py`.
pub struct Cable {
    /// The host's number, as its interfaces have it.
    host: usize,
    process: Child,
}

impl Cable {
    /// With other troubles in either direction.
    pub fn splice(host: usize, chance: &mut SmallRng) -> Self {
        let host = host + 1;
        let [port, slow, hub] = ["port", "slow", "hub"].map(|name| format!("{name}{host}"));
        ip(&format!("link add {slow} type veth peer name {hub}"));
        for end in [&slow, &hub] {
            ip(&format!("link set {end} arp off"));
            ip(&format!("link set {end} up"));
        }
        let troubles: Vec<_> = (0..2).flat_map(|_| trouble(chance)).collect();
        println!("    delay, jitter in ms, loss in %, from it and to it: {}", troubles.join(" "));
        let mut python = Command::new("python3");
        python.args([PROGRAM, &port, &slow]).args(troubles).stdin(Stdio::null());
        let mut process = python.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines().next();
        assert_eq!(said.unwrap().unwrap(), "ready");
        ip(&format!("link set {port} nomaster"));
        ip(&format!("link set {hub} master bridge"));
        Self { host, process }
    }
}

/// Mostly little, at times much: delay and jitter in milliseconds, loss in percent.
fn trouble(chance: &mut SmallRng) -> [String; 3] {
    let delay = match chance.random_range(0..4) {
        0 => 1,
        1 => chance.random_range(1..20),
        2 => chance.random_range(20..200),
        _ => chance.random_range(200..1200),
    };
    let loss = if chance.random_bool(0.5) { chance.random_range(0..30) } else { 0 };
    [delay, delay / 4, loss].map(|number| number.to_string())
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        ip(&format!("link delete hub{}", self.host));
        ip(&format!("link set port{} master bridge", self.host));
    }
}
