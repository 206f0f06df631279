//! Who may not become primary does not, whoever asks for it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use litepilot::config::Config;
use litepilot::node::{Node, Tuning};
use serde_json::Value;

use crate::harness::{Answer, exchange, free_ports, until};

/// Three nodes of this process, in front of something that takes connections and says nothing. What
/// replicas receive they would apply in an hour.
fn lagging_nodes(dir: &Path) -> Vec<Node> {
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = app.local_addr().unwrap();
    std::thread::spawn(move || app.incoming().for_each(drop));
    let first = free_ports();
    let peers =
        (0..3).map(|i| format!("n{i}: 127.0.0.1:{}", first + i)).collect::<Vec<_>>().join(", ");
    let node = |i: u16| {
        let own = dir.join(format!("n{i}"));
        fs::create_dir_all(own.join("db")).unwrap();
        let yaml = format!(
            "node: n{i}\ndata_dir: data\nshutdown_timeout: 1s\nadmin: {{listen: 127.0.0.1:0}}\n\
             proxy: {{listen: 127.0.0.1:0, target: {target}, db: db.sqlite3}}\n\
             cluster: {{listen: 127.0.0.1:{}, peers: {{{peers}}}, lease: {{ttl: 10s}}}}\n\
             litefs: {{engine: embedded, mount: db}}\n",
            first + i
        );
        let file = own.join("litepilot.yml");
        let config =
            Config::from_yaml(&file.to_string_lossy(), yaml.as_bytes(), &|_| None).unwrap();
        let apply_delay = Duration::from_secs(3600);
        Node::start_with(config, Tuning { apply_delay, ..Tuning::default() }).unwrap()
    };
    (0..3).map(node).collect()
}

fn ask(node: &Node, method: &str, path: &str, headers: &str) -> Answer {
    exchange(node.admin_address(), method, path, headers, b"")
}

fn status(node: &Node) -> Value {
    ask(node, "GET", "/status", "").json()
}

#[test]
fn who_may_not_is_not_promoted_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = lagging_nodes(dir.path());
    let mut primary = 0;
    until("a node takes writes", || {
        let found = nodes.iter().position(|node| status(node)["writable"] == true);
        primary = found.unwrap_or(primary);
        found.is_some()
    });
    let [asked, behind] = [(primary + 1) % 3, (primary + 2) % 3];
    let database = dir.path().join(format!("n{primary}/db/db.sqlite3"));
    let database = rusqlite::Connection::open(database).unwrap();
    database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    until("the primary has seen it", || {
        status(&nodes[primary])["position"]["txid"] != "0000000000000000"
    });
    let bearer = |i: usize| {
        let file = dir.path().join(format!("n{i}/data/admin.token"));
        format!("Authorization: Bearer {}\r\n", fs::read_to_string(file).unwrap().trim())
    };
    let (own, of_another) = (bearer(asked), bearer(behind));
    let lagging = format!("/promote?node=n{behind}");
    for (path, headers, code, name) in [
        (lagging.as_str(), "", 401, "unauthorized"),
        (&lagging, &of_another, 401, "unauthorized"),
        ("/promote?node=nobody", &own, 404, "unknown-node"),
        ("/promote?node=n%202", &own, 400, "bad-request"),
        (&lagging, &own, 409, "not-fit"),
    ] {
        let mut answer = None;
        until("it hears a majority", || {
            let told = ask(&nodes[asked], "POST", path, headers);
            let heard = told.code != 503;
            answer = Some(told);
            heard
        });
        let answer = answer.unwrap();
        assert_eq!(answer.code, code, "{path}: {answer:?}");
        assert!(answer.json()["type"].as_str().unwrap().ends_with(name), "{answer:?}");
    }
    until("the primary takes writes", || status(&nodes[primary])["writable"] == true);
    database.execute_batch("INSERT INTO t VALUES (2)").unwrap();
}
