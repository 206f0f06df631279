//! Bad files: every problem is reported, with its place and a remedy.

use proptest::prelude::*;

use super::{minimal, parse};

/// Bad files, and for each of their problems `line:column` and a piece of the message.
type Table = &'static [(&'static str, &'static [(&'static str, &'static str)])];

#[track_caller]
fn expect(text: &[u8], expected: &[(&str, &str)]) {
    let problems: Vec<String> =
        parse(text).expect_err("this is bad").iter().map(ToString::to_string).collect();
    let context =
        || format!("{}\n{problems:#?}", String::from_utf8_lossy(&text[..text.len().min(400)]));
    assert_eq!(problems.len(), expected.len(), "{}", context());
    for (problem, (place, message)) in problems.iter().zip(expected) {
        assert!(problem.starts_with(&format!("litepilot.yml:{place}: ")), "{place}: {}", context());
        assert!(problem.contains(message), "{message}: {}", context());
    }
}

/// Files of their own.
const WHOLE: Table = &[
    ("", &[("1:1", "the file is empty")]),
    ("# nothing\n", &[("1:1", "the file is empty")]),
    (
        "proxy:\n",
        &[
            ("1:1", "proxy.db: missing"),
            ("1:1", "proxy.target: missing, but required: where the application listens"),
        ],
    ),
    ("node: a\n", &[("1:1", "proxy.db"), ("1:1", "proxy.target")]),
    (
        "proxy: {target: ':1'}\n",
        &[("1:1", "proxy.db: missing, but required: the name of the database")],
    ),
    (
        "proxy: {target: , db: }\n",
        &[("1:9", "proxy.target: missing"), ("1:19", "proxy.db: missing")],
    ),
    ("[1, 2]\n", &[("1:1", "a list where a mapping is expected")]),
    ("proxy: 5\n", &[("1:8", "proxy: the number 5 where a mapping is expected")]),
    ("proxy:\n\ttarget: ':1'\n", &[("2:1", "a tab in the indentation")]),
    ("proxy:\n  target: ':1'\n  \tdb: x\n", &[("3:3", "a tab in the indentation")]),
    ("a: 1\n---\nb: 2\n", &[("2:1", "a second document")]),
    ("proxy: {target: ':1'\nnode: a\n", &[("2:1", "close the bracket")]),
];

/// What follows the required keys, which are line 1.
const MORE: Table = &[
    // Keys
    ("prox: 1", &[("2:1", "prox: unknown key: did you mean proxy?")]),
    ("banana: 1", &[("2:1", "banana: unknown key: known here: node, data_dir")]),
    ("log: {levle: info}", &[("2:7", "log.levle: unknown key: did you mean level?")]),
    (
        "cluster: {lease: {tll: 2s}}",
        &[("2:19", "cluster.lease.tll: unknown key: did you mean ttl?")],
    ),
    ("node: a\nlog: {}\nnode: b", &[("4:1", "the key \"node\" was already given at 2:1")]),
    ("proxy: {}", &[("2:1", "the key \"proxy\" was already given at 1:1")]),
    // Types
    (
        "shutdown_timeout: 45",
        &[(
            "2:19",
            "shutdown_timeout: the number 45 is no duration: write a whole number and a unit",
        )],
    ),
    ("shutdown_timeout: 0s", &[("2:19", "makes no sense")]),
    ("shutdown_timeout: 9999999h", &[("2:19", "too long")]),
    ("shutdown_timeout: [5s]", &[("2:19", "a list is no duration")]),
    ("data_dir: 5", &[("2:11", "the number 5 where text is expected: put it in quotes")]),
    ("data_dir: {a: 1}", &[("2:11", "a mapping where text is expected")]),
    ("litefs: {allow_other: yes}", &[("2:23", "the text \"yes\" where true or false is expected")]),
    ("log: [a]", &[("2:6", "a list where a mapping is expected")]),
    (
        "log: {level: loud, format: jsn}",
        &[("2:14", "not one of error, warn"), ("2:28", "did you mean json?")],
    ),
    (
        "app: {command: gunicorn app:app}",
        &[("2:16", "app.command: the text \"gunicorn app:app\" where a list is expected")],
    ),
    ("app: {command: ['', x]}", &[("2:16", "the program's name is empty")]),
    ("app: {command: [a, [b]]}", &[("2:20", "a list where text is expected")]),
    ("app: {health: healthz}", &[("2:15", "begin it with '/'")]),
    ("app: {user: ''}", &[("2:13", "an empty text")]),
    // Addresses
    (
        "admin: {listen: ':70000'}",
        &[("2:17", "admin.listen: port 70000 is out of range: 1 to 65535")],
    ),
    ("admin: {listen: 9180}", &[("2:17", "the number 9180 is no address: write HOST:PORT")]),
    ("admin: {listen: 'example.org:80'}", &[("2:17", "no address of this machine")]),
    ("admin: {hosts: ['a b']}", &[("2:17", "no host name")]),
    ("admin: {token: 'a b'}", &[("2:16", "admin.token: a token has letters")]),
    ("admin: {listen: ':8080'}", &[("2:17", "taken by proxy.listen")]),
    ("litefs: {http: ':0'}", &[("2:16", "port 0 is out of range")]),
    ("litefs: {lease_listen: '0.0.0.0:1'}", &[("2:24", "not on loopback: write 127.0.0.1:1")]),
    ("litefs: {lease_listen: '127.0.0.1:20202'}", &[("2:24", "taken by litefs.http")]),
    // Backups
    ("backup: {}", &[("2:1", "backup.url: missing, but required: write where backups are kept")]),
    ("backup: {url: /srv/b}", &[("2:15", "no URL: write s3://bucket/prefix")]),
    ("backup: {url: 's3://key:secret@b/x'}", &[("2:15", "credentials come from the environment")]),
    ("backup: {url: 'file:///b', retention: 7d}", &[("2:39", "no duration")]),
    ("backup: {url: 'file:///b', listen: '0.0.0.0:1'}", &[("2:36", "not on loopback")]),
    (
        "backup: {url: 'file:///b', listen: '127.0.0.1:20203'}",
        &[("2:36", "taken by litefs.lease_listen")],
    ),
    (
        "litefs: {engine: embedded, extra: {}}\nbackup: {url: 'file:///b'}",
        &[("3:15", "only LiteFS backs up: remove the section")],
    ),
    (
        "litefs: {extra: {backup: {type: file}}}\nbackup: {url: 'file:///b'}",
        &[("2:17", "backup is written by Litepilot here")],
    ),
    // Directories
    ("litefs: {data: /litefs/data}", &[("2:16", "litefs.data: /litefs/data lies in litefs.mount")]),
    ("data_dir: /litefs", &[("2:11", "lies in litefs.mount")]),
    ("litefs: {extra: {lease: {}}}", &[("2:25", "litefs.extra.lease: written by Litepilot")]),
    ("litefs: {extra: {tracing: {paht: /t}}}", &[("2:28", "did you mean path?")]),
    ("litefs: {extra: {backups: {}}}", &[("2:18", "unknown key: did you mean backup?")]),
    ("litefs: {extra: {skip-sync: 1}}", &[("2:29", "where true or false is expected")]),
    ("litefs: {extra: [a]}", &[("2:17", "a list where a mapping is expected")]),
    ("litefs: {engine: consul}", &[("2:18", "not one of litefs, external, embedded")]),
    // The cluster
    ("node: 'a b'", &[("2:7", "no node name")]),
    (
        "cluster: {election: static, peers: {node-1: 'localhost:1'}}",
        &[("2:1", "cluster.primary: missing, but required with election static")],
    ),
    (
        "cluster: {election: static, primary: x, peers: {node-1: 'localhost:1'}}",
        &[("2:38", "x is not among the peers: write one of node-1")],
    ),
    ("cluster: {election: static, primary: x}", &[("2:38", "x is another node")]),
    (
        "cluster: {election: static, primary: node-1, candidate: false, peers: {node-1: 'localhost:1'}}",
        &[("2:38", "node-1 is no candidate")],
    ),
    (
        "cluster: {election: single, peers: {node-1: 'localhost:1', b: 'localhost:2'}}",
        &[("2:21", "single is for one node")],
    ),
    ("cluster: {election: rafft}", &[("2:21", "did you mean raft?")]),
    (
        "cluster:\n  peers: {a: 'localhost:1', b: 'localhost:2'}",
        &[(
            "3:10",
            "this node, node-1, is not among them: add node-1: HOST:PORT, or set node to one of a, b",
        )],
    ),
    ("cluster: {peers: [node-1]}", &[("2:18", "a list where a mapping is expected")]),
    (
        "cluster: {peers: {node-1: 'localhost:1', 'b c': 'localhost:2'}}",
        &[("2:42", "no node name")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1', b: ':2'}}",
        &[("2:45", "cluster.peers.b: the text \":2\" names no host")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1', b: 'localhost:0'}}",
        &[("2:45", "port 0 is out of range")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1', b: 'localhost:1'}}",
        &[("2:18", "have the same address localhost:1")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1'}, witnesses: [x]}",
        &[("2:54", "x is not among the peers")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1', b: 'localhost:2'}, witnesses: [node-1], candidate: true}",
        &[("2:93", "this node is a witness")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1'}, witnesses: [node-1]}",
        &[("2:54", "no peer is left that holds the data")],
    ),
    (
        "cluster: {peers: {node-1: 'a:1', b: 'b:1'}}",
        &[("2:1", "cluster.tls: missing, but required")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1', b: 'localhost:2'}, listen: ':1'}",
        &[("2:69", "0.0.0.0:1 is open to other machines, and without tls")],
    ),
    (
        "cluster: {peers: {node-1: 'localhost:1', b: 'localhost:2'}, advertise: 'a:1'}",
        &[("2:1", "cluster.tls: missing, but required")],
    ),
    ("cluster: {tls: {ca: /a, cert: /b}}", &[("2:11", "cluster.tls.key: missing")]),
    ("cluster: {lease: {ttl: 500ms}}", &[("2:24", "500ms is too short: write at least 1s")]),
    (
        "cluster: {lease: {ttl: 2s}}\nlitefs: {engine: external}",
        &[("2:24", "2s is too short with litefs.engine external: write at least 3s")],
    ),
    ("cluster: {ack: all}", &[("2:16", "not one of primary, one, majority")]),
    (
        "cluster: {peers: {node-1: ':1', b: ':2'}, witnesses: [b]}",
        &[("2:27", "cluster.peers.node-1"), ("2:36", "cluster.peers.b")],
    ),
    // Variables
    ("node: ${NOPE}", &[("2:7", "the variable NOPE is not set")]),
    ("node: ${1}", &[("2:7", "names no variable")]),
    ("node: a-${N", &[("2:9", "is not closed")]),
    ("cluster: {insecure: '${YES}'}", &[("2:21", "where true or false is expected")]),
    // Several at once
    (
        "data_dir: 5\nlgo: 1\nadmin: {listen: ':99999'}\napp: {grace: 3}\nlog: {level: x}",
        &[
            ("2:11", "data_dir"),
            ("3:1", "did you mean log?"),
            ("4:17", "99999"),
            ("5:14", "app.grace"),
            ("6:14", "log.level"),
        ],
    ),
    (
        "node: ${A}\ndata_dir: ${B}\nlog: {}\nlog: {}",
        &[("2:7", "A is not set"), ("3:11", "B is not set"), ("5:1", "already given at 4:1")],
    ),
];

/// What follows `proxy:` with its required keys, which are lines 1 to 3; all in line 4.
const PROXY: Table = &[
    ("listen: '1.2.3.4'", &[("4:11", "proxy.listen: the text \"1.2.3.4\" is no address")]),
    ("listen: '::1:80'", &[("4:11", "write [IPV6]:PORT")]),
    ("target: ':1'", &[("4:3", "the key \"target\" was already given at 2:3")]),
    ("untracked: [a/b]", &[("4:15", "\"a/b\" is a path: write the name of a database")]),
    ("untracked: [cache, db]", &[("4:14", "db is proxy.db: leave it out")]),
    ("untracked: cache", &[("4:14", "where a list is expected")]),
    ("rules: [djang]", &[("4:11", "djang")]),
    ("rules: django", &[("4:10", "where a list is expected: write [a, b]")]),
    ("consistency: read-your-write", &[("4:16", "did you mean read-your-writes?")]),
    ("read_wait: 250", &[("4:14", "the number 250 is no duration")]),
    ("header_timeout: 0s", &[("4:19", "write more than zero")]),
    ("held_writes: -1", &[("4:16", "a whole number from 0")]),
    ("held_writes: many", &[("4:16", "the text \"many\" where a whole number")]),
    ("max_connections: 0", &[("4:20", "a whole number from 1")]),
    ("max_connections: 1.5", &[("4:20", "the number 1.5 where a whole number")]),
    ("max_connections: '8'", &[("4:20", "the text \"8\" where a whole number")]),
    ("buffer_body: 64KB", &[("4:16", "64KB\" is no size: write bytes, or 64KiB")]),
    ("trusted: [loopback, home]", &[("4:23", "the text \"home\" is no network")]),
    ("trusted: [10.0.0.0/33]", &[("4:13", "no network")]),
    ("cookie: {same_site: none, secure: false}", &[("4:37", "browsers drop")]),
    ("cookie: {domain: 'a;b'}", &[("4:20", "no host name")]),
    ("tls: {cert: /a}", &[("4:8", "proxy.tls.key: missing, but required: the PEM file")]),
    ("tls: [{cert: /a, key: /b}, {key: /c}]", &[("4:30", "proxy.tls.cert: missing")]),
    ("tls: []", &[("4:8", "no certificate")]),
    ("tls: /a.pem", &[("4:8", "where a mapping is expected")]),
    ("tll: 1", &[("4:3", "did you mean tls?")]),
];

/// Targets and databases, in line 2 and line 3.
const REQUIRED: &[(&str, &str, &str, &str)] = &[
    ("http://127.0.0.1:8000", "db", "2:11", "is a URL: write only HOST:PORT"),
    ("8000", "db", "2:11", "the number 8000 is no address"),
    ("localhost:65536", "db", "2:11", "port 65536 is out of range"),
    ("localhost:0", "db", "2:11", "port 0 is out of range"),
    ("localhost:8080", "db", "2:11", "where Litepilot itself listens"),
    ("unix:app.sock", "db", "2:11", "write the whole path"),
    ("':1'", "/db", "3:7", "leads out of its directory"),
    ("':1'", "a/../../db", "3:7", "leads out of its directory"),
    ("':1'", "true", "3:7", "the boolean true where text is expected"),
];

#[test]
fn whole_files() {
    for (text, expected) in WHOLE {
        expect(text.as_bytes(), expected);
    }
}

#[test]
fn sections() {
    for (more, expected) in MORE {
        expect(minimal(more).as_bytes(), expected);
    }
}

#[test]
fn the_proxy_section() {
    for (more, expected) in PROXY {
        let text = format!("proxy:\n  target: ':1'\n  db: db\n  {more}\n");
        expect(text.as_bytes(), expected);
    }
    for (target, db, place, message) in REQUIRED {
        let text = format!("proxy:\n  target: {target}\n  db: {db}\n");
        expect(text.as_bytes(), &[(*place, *message)]);
    }
}

#[test]
fn huge_deep_and_broken_files() {
    expect(minimal(&"# x\n".repeat(10 << 18)).as_bytes(), &[("1:1", "larger than 1 MiB")]);
    expect(
        minimal(&format!("node: {}", "[".repeat(9999))).as_bytes(),
        &[("2:39", "nested deeper")],
    );
    expect(b"node: a\nlog: {level: \xff}", &[("2:14", "byte 0xff is not UTF-8")]);
}

#[test]
fn a_bad_name_from_the_environment_says_where_it_is_from() {
    let env = |_: &str| Some("a b".to_owned());
    let problems =
        litepilot::config::Config::from_yaml("f", minimal("").as_bytes(), &env).unwrap_err();
    assert!(problems[0].to_string().starts_with("f:1:1: node: from $LITEPILOT_NODE: \"a b\""));
}

#[test]
fn a_wrong_token_is_not_repeated() {
    for token in ["s3cret s3cret", "[s3cret]", "{s3cret: 1}"] {
        let problems = parse(minimal(&format!("admin: {{token: {token}}}"))).unwrap_err();
        assert!(!format!("{problems:?}").contains("s3cret"), "{problems:?}");
    }
}

proptest! {
    #[test]
    fn no_byte_soup_panics(soup in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(soup);
    }

    /// Any change of a good file is good or has a problem with a place in it.
    #[test]
    fn no_mangled_reference_panics(at in 0usize..5000, bytes in proptest::collection::vec(any::<u8>(), 0..9)) {
        let mut text = super::reference().as_bytes().to_vec();
        let at = at.min(text.len());
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
            let lines = text.split(|byte| *byte == b'\n').count();
            prop_assert!(problems.iter().all(|p| (1..=lines).contains(&p.place.line)), "{problems:?}");
        }
    }
}
