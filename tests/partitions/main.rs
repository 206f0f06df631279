//! Nodes that do not reach each other any more: real processes, each on a host of its own, whose
//! packets get lost. A program of its own rather than a set of tests, as it needs a network of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cluster::{Cluster, Node, Plan};
use harness::{exchange, until};
use network::Network;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[path = "../election/cluster.rs"]
#[expect(dead_code, reason = "the tests of the election use the rest")]
mod cluster;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
#[path = "../support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;
#[path = "../support/network.rs"]
mod network;

/// What is cut, as pairs of who sends and who does not hear it. 0 is the primary when it begins.
type Cuts = &'static [(usize, usize)];

const PARTITIONS: [(&str, usize, Cuts); 4] = [
    ("the primary is alone", 3, &[(0, 1), (1, 0), (0, 2), (2, 0)]),
    ("the primary is unreachable", 3, &[(0, 1), (0, 2)]),
    ("the primary hears nobody", 3, &[(1, 0), (2, 0)]),
    (
        "the primary is with the fewer",
        5,
        &[
            (0, 2),
            (2, 0),
            (0, 3),
            (3, 0),
            (0, 4),
            (4, 0),
            (1, 2),
            (2, 1),
            (1, 3),
            (3, 1),
            (1, 4),
            (4, 1),
        ],
    ),
];

/// They wait more than they compute.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    // Other test programs are asked for their tests by tools, too.
    if std::env::args().any(|argument| argument == "--list") {
        println!("partitions: test");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |what: &str| wanted.is_empty() || wanted.iter().any(|word| what.contains(word));
    let mut chosen = PARTITIONS.into_iter().filter(|(what, ..)| chosen(what));
    if network::enter() {
        let (_, nodes, cuts) = chosen.next().unwrap();
        majority_goes_on(nodes, cuts);
        return ExitCode::SUCCESS;
    }
    match network::is_possible() {
        true => each_on_its_own_network(chosen.map(|(what, ..)| what).collect()),
        false => ExitCode::SUCCESS,
    }
}

/// In a process of its own: a failure leaves nothing behind that the next one would meet.
fn each_on_its_own_network(chosen: Vec<&str>) -> ExitCode {
    println!("\nrunning {} tests", chosen.len());
    let (left, failed) = (Mutex::new(chosen.iter()), AtomicUsize::new(0));
    let next = || left.lock().unwrap().next();
    let run_them = || {
        while let Some(what) = next() {
            let output = network::once_more().arg(what).output().unwrap();
            let how = if output.status.success() { "ok" } else { "FAILED" };
            println!("test {what} ... {how}");
            if !output.status.success() {
                failed.fetch_add(1, Ordering::Relaxed);
                let said = [output.stdout, output.stderr].concat();
                println!("{}", String::from_utf8_lossy(&said));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(run_them);
        }
    });
    let failed = failed.into_inner();
    let (how, code) = match failed {
        0 => ("ok", ExitCode::SUCCESS),
        _ => ("FAILED", ExitCode::FAILURE),
    };
    println!("\ntest result: {how}. {} passed; {failed} failed", chosen.len() - failed);
    code
}

/// Whoever is with a majority takes writes; the former primary takes none, serves reads, and when
/// the network is whole again it follows, and nothing that was acknowledged is missing.
fn majority_goes_on(nodes: usize, cuts: Cuts) {
    let network = Network::new(nodes as u8);
    let plan = Plan {
        nodes,
        cluster: "  ack: majority\n",
        hosts: network.hosts.clone(),
        ..Plan::default()
    };
    let cluster = plan.start();
    let first = cluster.primary();
    // The pairs are written for a primary that is the first one.
    let place = |node: usize| (node + first) % nodes;
    let fewer = (nodes - 1) / 2;
    let more: Vec<_> = (fewer..nodes).map(place).collect();
    assert_eq!(cluster.nodes[first].it.post("before").code, 201);
    for node in cluster.others(first) {
        cluster.until_level(node);
    }
    for (i, node) in cluster.nodes.iter().enumerate() {
        let [host, other] = [i, (i + 1) % nodes].map(|i| &network.hosts[i]);
        let open = ports_open_to(&other.0, node, host);
        assert_eq!(open, ports_meant_for_others(node), "of {}", node.it.name);
    }
    let writers: Vec<_> = (0..nodes).map(|node| Writer::start(&cluster, node)).collect();

    for (from, to) in cuts {
        network.cut(place(*from), place(*to));
    }
    until("the others elect one of them", || more.iter().any(|node| is_writable(&cluster, *node)));
    assert!(!is_writable(&cluster, first), "two primaries");
    let second = *more.iter().find(|node| is_writable(&cluster, **node)).unwrap();
    let writes = writers[second].done();
    until("writes are taken there", || writers[second].done() > writes);
    assert_eq!(cluster.nodes[first].it.get("/api/entries").code, 200, "reads go on");
    let cut_off = cluster.nodes[first].it.post("in vain");
    assert_eq!(cut_off.code, 503, "{cut_off:?}");

    for (from, to) in cuts {
        network.mend(place(*from), place(*to));
    }
    (0..fewer).for_each(|node| cluster.until_level(place(node)));
    let done: BTreeSet<_> = writers.into_iter().flat_map(Writer::stop).collect();
    for node in 0..nodes {
        until("every node holds all that was acknowledged", || {
            done.is_subset(&entries(&cluster, node))
        });
    }
}

/// Those that its configuration opens to others: public, peer, and in these tests the admin port.
fn ports_meant_for_others(node: &Node) -> BTreeSet<u16> {
    let config = std::fs::read_to_string(node.it.config()).unwrap();
    let listen = config.split("listen: \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let others = listen.filter(|address| !address.starts_with("127."));
    others.map(|address| address.rsplit(':').next().unwrap().parse().unwrap()).collect()
}

/// The ports of a node's host at which a program on the host `from` can connect. All are tried where
/// somebody listens, at whatever address.
fn ports_open_to(from: &str, node: &Node, (host, at): &(String, IpAddr)) -> BTreeSet<u16> {
    // At least this one is to be found, and cannot be reached.
    let inner = on_host(host, || TcpListener::bind("127.0.0.1:0").unwrap());
    let listening = listening_ports(node.it.pid);
    assert!(listening.contains(&inner.local_addr().unwrap().port()), "{listening:?}");
    let at = *at;
    on_host(from, move || listening.into_iter().filter(|port| connects(at, *port)).collect())
}

/// Nothing is cut: whoever cannot connect is refused.
fn connects(at: IpAddr, port: u16) -> bool {
    match TcpStream::connect((at, port)) {
        Ok(_) => true,
        Err(why) if why.kind() == ErrorKind::ConnectionRefused => false,
        Err(why) => panic!("{at}:{port}: {why}"),
    }
}

/// Does `work` as a program on that host would.
fn on_host<T: Send + 'static>(host: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let network = File::open(format!("/run/netns/{host}")).unwrap();
    // In a thread of its own, which never comes back from there.
    let there = thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    there.join().unwrap()
}

/// The TCP ports at which somebody listens on a process' host: proc_net_tcp(5).
fn listening_ports(pid: u32) -> BTreeSet<u16> {
    const LISTEN: &str = "0A";
    let mut ports = BTreeSet::new();
    for file in ["tcp", "tcp6"] {
        let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap();
        for socket in sockets.lines().skip(1) {
            let fields: Vec<_> = socket.split_whitespace().collect();
            if fields[3] == LISTEN {
                let (_, port) = fields[1].split_once(':').unwrap();
                ports.insert(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports
}

fn is_writable(cluster: &Cluster, node: usize) -> bool {
    cluster.nodes[node].status().is_some_and(|status| status["writable"] == true)
}

/// All that a node's copy holds; the guestbook itself shows the newest only.
fn entries(cluster: &Cluster, node: usize) -> BTreeSet<String> {
    let copy = rusqlite::Connection::open(cluster.nodes[node].database()).unwrap();
    copy.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut query = copy.prepare("SELECT text FROM entries").unwrap();
    query.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A client of one node that writes all the time, and remembers what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(cluster: &Cluster, node: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<_>>>::default());
        let (stopped, noted, at) =
            (Arc::clone(&stop), Arc::clone(&done), cluster.nodes[node].it.url);
        let thread = thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let text = format!("{number} through {at}");
                let body = serde_json::json!({ "text": text }).to_string();
                if exchange(at, "POST", "/api/entries", "", body.as_bytes()).code == 201 {
                    noted.lock().unwrap().push(text);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, done, thread }
    }

    fn done(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.done.lock().unwrap())
    }
}
