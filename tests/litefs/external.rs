//! A LiteFS that somebody else starts and stops.

use std::fs;
use std::process::{Child, Command, Stdio};

use litepilot::config::Config;
use litepilot::litefs::mount;
use rustix::process::Signal;

use super::harness::{exchange, free_ports, run, send};
use super::support::program;
use super::whole::{Plan, place, until};

/// The LiteFS of somebody else, from what `render-litefs` has printed. Dropping it kills it.
struct Other {
    process: Child,
    mount: std::path::PathBuf,
}

impl Other {
    /// With `more` at the end of its configuration.
    fn start(config: &Config, dir: &std::path::Path, more: &str) -> Self {
        let rendered = run(&["render-litefs", "-c", dir.join("litepilot.yml").to_str().unwrap()]);
        assert!(rendered.status.success(), "{rendered:?}");
        let file = dir.join("litefs.yml");
        fs::write(&file, [rendered.stdout, more.as_bytes().to_vec()].concat()).unwrap();
        let mut litefs = Command::new(program().0);
        litefs.args(["mount", "-config"]).arg(file).stdin(Stdio::null());
        litefs.stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: litefs.spawn().unwrap(), mount: config.litefs.mount.clone() }
    }

    fn stop(mut self) {
        send(Signal::TERM, self.process.id());
        self.process.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = mount::clear_dead(&self.mount);
    }
}

#[test]
fn it_is_served_its_lease_and_watched_and_left_alone() {
    let mut cluster = Plan { engine: "external", ..Plan::default() }.start();
    let start = |i: usize| Other::start(&cluster.configs[i], &place(&cluster.dir, i), "");
    let mut others: Vec<_> = (0..3).map(|i| Some(start(i))).collect();
    let first = cluster.primary();
    for i in 0..3 {
        assert_eq!(cluster.post(i, &format!("through {i}"), "").code, 201);
    }
    for i in 0..3 {
        until("it is replicated", || cluster.entries(i, "").len() == 3);
        cluster.until_level(i);
        let litefs = &cluster.status(i)["litefs"];
        assert_eq!((&litefs["engine"], &litefs["pid"]), (&"external".into(), &().into()));
    }
    let second = (first + 1) % 3;
    let promoted = cluster.admin(first, "POST", &format!("/promote?node=n{second}"));
    assert_eq!(promoted.code, 200, "{promoted:?}");
    assert_eq!(cluster.post(first, "after the handoff", "").code, 201);

    // Somebody stops it: its epoch is over, and the node goes on without it.
    others[second].take().unwrap().stop();
    until("another one takes writes", || cluster.post(first, "without it", "").code == 201);
    assert_ne!(cluster.primary(), second);
    others[second] = Some(start(second));
    until("it is replicated", || {
        let answer = exchange(cluster.proxy(second), "GET", "/api/entries", "", b"");
        answer.code == 200 && answer.body.contains("without it")
    });
    cluster.halt();
    for other in &mut others {
        let process = &mut other.as_mut().unwrap().process;
        assert!(process.try_wait().unwrap().is_none(), "a node's end is not LiteFS'");
    }
    others.into_iter().flatten().for_each(Other::stop);
}

#[test]
fn it_may_start_litepilot() {
    if !program().1 {
        eprintln!("skipped: a stand-in starts nothing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (own, admin) = (free_ports(), free_ports());
    let file = dir.path().join("litepilot.yml");
    let litepilot = env!("CARGO_BIN_EXE_litepilot");
    let text = format!(
        "data_dir: {place}/state
proxy: {{listen: 127.0.0.1:{own}, target: 'unix:{place}/s', db: book.sqlite3}}
cluster: {{lease: {{ttl: 3s}}}}
litefs:
  engine: external
  mount: {place}/mount
  data: {place}/litefs
  http: 127.0.0.1:{http}
  lease_listen: 127.0.0.1:{lease}
app:
  command: [{litepilot}, demo-app, --socket, {place}/s, --db, {place}/mount/book.sqlite3]
  health: /health
admin: {{listen: 127.0.0.1:{admin}}}
",
        place = dir.path().display(),
        http = own + 1,
        lease = own + 2,
    );
    fs::write(&file, &text).unwrap();
    fs::create_dir(dir.path().join("mount")).unwrap();
    let config = Config::from_yaml("litepilot.yml", text.as_bytes(), &|_| None).unwrap();
    let exec = format!("exec:\n  - cmd: \"{litepilot} run -c {}\"\n", file.display());
    let mut other = Other::start(&config, dir.path(), &exec);
    let ask = |method: &str, body: &str| {
        exchange(([127, 0, 0, 1], own).into(), method, "/api/entries", "", body.as_bytes())
    };
    until("it listens", || std::net::TcpStream::connect(("127.0.0.1", own)).is_ok());
    assert_eq!(ask("POST", "{\"text\": \"hello\"}").code, 201);
    assert!(ask("GET", "").body.contains("hello"));
    // Whoever started it stops it, and nothing of it is left.
    send(Signal::TERM, other.process.id());
    other.process.wait().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", own)).is_err());
    assert!(!mount::is_mounted(&other.mount).unwrap());
}
