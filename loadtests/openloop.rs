//! An open loop: requests leave by a timetable, whatever the answers do, and each answer's time
//! counts from the moment when its request should have left. A server that stands still for a
//! second is so charged for all that clients would have sent in that second, which a closed loop,
//! as wrk is, leaves out ("coordinated omission").
//!
//! `openloop ADDRESS CONNECTIONS RATE SECONDS REQUEST…`: each REQUEST is a file with the bytes of a
//! whole HTTP/1.1 request; all connections together send RATE of them a second, in turns. Prints one
//! line of JSON, its times in microseconds, as `load.lua` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::exit;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// At both ends of the timetable requests leave that do not count: threads that start and end take the
/// cores from all that is measured.
const EDGE: Duration = Duration::from_millis(500);
/// Enough for a connection's thread, of which there may be thousands.
const STACK: usize = 64 * 1024;

struct Plan {
    address: SocketAddr,
    connections: u32,
    rate: f64,
    length: Duration,
    requests: Vec<Vec<u8>>,
}

impl Plan {
    fn from_arguments() -> Option<Self> {
        let mut arguments = env::args().skip(1);
        let mut next = || arguments.next();
        let plan = Self {
            address: next()?.parse().ok()?,
            connections: next()?.parse().ok()?,
            rate: next()?.parse().ok()?,
            length: Duration::from_secs_f64(next()?.parse().ok()?),
            requests: arguments.map(fs::read).collect::<Result<_, _>>().ok()?,
        };
        (plan.connections > 0 && plan.rate > 0.0 && !plan.requests.is_empty()).then_some(plan)
    }

    /// When connection number `connection` sends its request number `number`: those of all
    /// connections are evenly spread.
    fn due(&self, connection: u32, number: u32) -> Duration {
        let turn = f64::from(connection) + f64::from(number) * f64::from(self.connections);
        Duration::from_secs_f64(turn / self.rate)
    }
}

#[derive(Default)]
struct Outcome {
    times: Vec<Duration>,
    failed: usize,
}

fn main() {
    let Some(plan) = Plan::from_arguments().map(Arc::new) else {
        eprintln!("usage: openloop ADDRESS CONNECTIONS RATE SECONDS REQUEST…");
        exit(2);
    };
    // All are connected before the first one is due.
    let start = Instant::now() + Duration::from_millis(500);
    let threads: Vec<_> = (0..plan.connections)
        .map(|connection| {
            let plan = Arc::clone(&plan);
            let builder = thread::Builder::new().stack_size(STACK);
            builder.spawn(move || follow(&plan, connection, start)).expect("a thread")
        })
        .collect();
    let mut whole = Outcome::default();
    for thread in threads {
        let outcome = thread.join().expect("no connection panics");
        whole.times.extend(outcome.times);
        whole.failed += outcome.failed;
    }
    whole.times.sort_unstable();
    println!(
        r#"{{"requests": {}, "duration": {}, "p50": {}, "p99": {}, "failed": {}}}"#,
        whole.times.len(),
        plan.length.as_micros(),
        percentile(&whole.times, 50).as_micros(),
        percentile(&whole.times, 99).as_micros(),
        whole.failed,
    );
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

/// One connection's part of the timetable. One that breaks is opened anew for the next request.
fn follow(plan: &Plan, connection: u32, start: Instant) -> Outcome {
    let (mut outcome, mut stream) = (Outcome::default(), connect(plan.address).ok());
    for number in 0.. {
        let due = plan.due(connection, number);
        if due >= EDGE + plan.length + EDGE {
            break;
        }
        let counts = due >= EDGE && due < EDGE + plan.length;
        let due = start + due;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let request = &plan.requests[(connection + number) as usize % plan.requests.len()];
        match exchange(plan.address, &mut stream, request) {
            Ok(()) if counts => outcome.times.push(due.elapsed()),
            Ok(()) => {}
            Err(_) => {
                outcome.failed += 1;
                stream = None;
            }
        }
    }
    outcome
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::with_capacity(16 * 1024, stream))
}

/// Sends a request and reads its whole answer.
fn exchange(
    address: SocketAddr,
    kept: &mut Option<BufReader<TcpStream>>,
    request: &[u8],
) -> io::Result<()> {
    if kept.is_none() {
        *kept = Some(connect(address)?);
    }
    let stream = kept.as_mut().expect("just connected");
    stream.get_mut().write_all(request)?;
    let length = head(stream)?;
    let read = io::copy(&mut stream.take(length), &mut io::sink())?;
    if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads the head of a 2xx with a Content-Length, and returns that.
fn head(stream: &mut impl BufRead) -> io::Result<u64> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (mut line, mut length) = (String::new(), None);
    stream.read_line(&mut line)?;
    if line.split(' ').nth(1).is_none_or(|status| !status.starts_with('2')) {
        return Err(invalid());
    }
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok();
            }
            Some(_) => {}
            None => return length.ok_or_else(invalid),
        }
    }
}
