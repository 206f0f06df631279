//! `litepilot demo` as a user meets it: the real program, its nodes, its guestbook, and its end.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use app::App;
use harness::{
    Demo, exchange, free_ports, litepilot, lives, run, send, start_again, text, texts, until,
};

mod app;
mod harness;

#[test]
fn the_nodes_are_printed_as_promised_and_are_there_once_it_is_ready() {
    let demo = Demo::start(&[]);
    let first = demo.nodes[0].url.port();
    let primary = demo.primary().name.clone();
    for (node, i) in demo.nodes.iter().zip(0..) {
        assert_eq!(node.name, format!("node-{}", i + 1));
        assert_eq!(node.url.port(), first + i);
        assert_eq!(node.admin, format!("http://127.0.0.1:{}", first + 1000 + i));
        assert!(node.token.len() >= 32 && lives(node.pid));
        let token = fs::read_to_string(node.data_dir.join("admin.token")).unwrap();
        assert_eq!(token.trim(), node.token);
        let checked = run(&["check", "-c", node.config().to_str().unwrap()]);
        assert!(checked.status.success(), "{}", text(&checked.stdout));

        let role = if node.name == primary { "primary" } else { "replica" };
        assert_eq!(node.get("/api/node").json(), json!({"node": node.name, "role": role}));
        let asked = run(&["primary", "--wait", "60s", "--admin", &node.admin]);
        assert_eq!((asked.status.code(), text(&asked.stdout).trim()), (Some(0), &*primary));

        until("it sees all nodes", || {
            let status = node.status();
            let nodes = status["nodes"].as_array().unwrap();
            let primaries: Vec<_> = nodes.iter().filter(|n| n["role"] == "primary").collect();
            assert!(primaries.iter().all(|n| n["node"] == *primary), "{status}");
            primaries.len() == 1
                && nodes.iter().all(|n| n["reachable"] == true && n["position"].is_object())
        });
    }
    assert_eq!(demo.nodes.len(), 3);
}

#[test]
fn people_get_a_line_per_node() {
    let demo = Demo::begin(&["--nodes", "2", "--verbose"]);
    for i in 1..=2 {
        let line = demo.first_line();
        let parts: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            (parts[0], parts[2], parts[4]),
            (&*format!("node-{i}"), "admin", "pid"),
            "{line}"
        );
        assert!(parts[1].starts_with("http://") && parts[3].starts_with("http://"), "{line}");
        assert!(lives(parts[5].parse().unwrap()), "{line}");
    }
    demo.await_ready();
    // Logs come under their node's name.
    until("both nodes have logged", || demo.said("node-1: ") && demo.said("node-2: "));
}

#[test]
fn what_is_written_through_any_node_is_read_through_every_other_at_once() {
    let demo = Demo::start(&[]);
    for round in 0..20 {
        for writer in &demo.nodes {
            let words = format!("{round} through {}", writer.name);
            let written = writer.post(&words);
            assert_eq!(written.code, 201, "{written:?}");
            let entry = written.json();
            let primary = demo.primary().name.clone();
            assert_eq!(
                (entry["text"].as_str(), entry["node"].as_str()),
                (Some(&*words), Some(&*primary))
            );
            assert!(
                entry["id"].is_i64() && entry["at"].as_str().unwrap().ends_with('Z'),
                "{entry}"
            );
            for reader in &demo.nodes {
                let list = exchange(reader.url, "GET", "/api/entries", &written.cookies(), b"");
                assert_eq!(list.json()[0], entry, "{} reads after {}", reader.name, writer.name);
            }
        }
    }
    assert_eq!(texts(&demo.nodes[0].get("/api/entries")).len(), 60);
}

#[test]
fn the_page_works_without_scripts_and_shows_no_text_as_markup() {
    let demo = Demo::start(&["--nodes", "2"]);
    let (primary, replica) = (demo.primary(), demo.replicas()[0]);
    assert_eq!(replica.get("/api/entries").json(), json!([]), "no table yet");
    assert!(replica.get("/").body.contains("Nobody has signed yet"));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let body = b"text=%3Cscript%3Ealert(1)%3C%2Fscript%3E+%26+caf%C3%A9";
    let signed = exchange(replica.url, "POST", "/", form, body);
    assert_eq!((signed.code, signed.header("location")), (303, Some("/")), "{signed:?}");
    for node in [primary, replica] {
        let page = exchange(node.url, "GET", "/", &signed.cookies(), b"");
        assert_eq!(page.code, 200);
        // The node that was asked, or the primary if that node was slow to follow.
        let answered = page.header("litepilot-node").unwrap();
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
        assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
        let shown = "&lt;script&gt;alert(1)&lt;/script&gt; &amp; café";
        assert!(page.body.contains(shown) && !page.body.contains("<script"), "{}", page.body);
        assert!(page.body.contains(&format!("<b>{answered}</b>")), "{}", page.body);
        assert!(page.body.contains("method=\"post\""), "{}", page.body);
    }
}

#[test]
fn the_guestbook_refuses_what_it_cannot_take() {
    let demo = Demo::start(&["--nodes", "1"]);
    let node = &demo.nodes[0];
    let long = "x".repeat(2001);
    for bad in ["{}", "[]", "{\"text\": 1}", "{\"text\"", "", "{\"text\": \"  \"}"] {
        let refused = exchange(node.url, "POST", "/api/entries", "", bad.as_bytes());
        assert_eq!(refused.code, 400, "{bad}: {refused:?}");
        assert!(refused.json()["error"].as_str().unwrap().contains("text"), "{refused:?}");
    }
    assert_eq!(node.post(&long).code, 400);
    assert_eq!(exchange(node.url, "POST", "/", "", b"other=1").code, 400);
    let huge = "x".repeat(65 * 1024);
    assert_eq!(node.post(&huge).code, 413);
    assert_eq!(node.get("/nowhere").code, 404);
    let deleted = exchange(node.url, "DELETE", "/api/entries", "", b"");
    assert_eq!((deleted.code, deleted.header("allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(node.get("/api/entries").json(), json!([]));
}

#[test]
fn a_signal_stops_everything_and_nothing_is_left_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut demo = Demo::start(&[]);
        assert_eq!(demo.nodes[1].post("hello").code, 201);
        let pids = demo.pids();
        assert!(pids.len() == 6 && pids.iter().all(|pid| lives(*pid)), "{pids:?}");
        assert_eq!(demo.left_behind().len(), 1, "everything is in one directory");
        assert_eq!(demo.stop(signal).code(), Some(0), "{}", demo.errors());
        assert!(pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
        assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_signal_before_it_is_ready_is_obeyed_too() {
    let mut demo = Demo::begin(&["--json"]);
    let line: Value = serde_json::from_str(&demo.first_line()).unwrap();
    assert_eq!(demo.stop(Signal::INT).code(), Some(0), "{}", demo.errors());
    for node in line["nodes"].as_array().unwrap() {
        assert!(!lives(node["pid"].as_u64().unwrap() as u32));
    }
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn no_process_outlives_a_demo_that_is_killed() {
    let mut demo = Demo::start(&[]);
    let pids = demo.pids();
    assert!(pids.iter().all(|pid| lives(*pid)));
    demo.stop(Signal::KILL);
    until("every process has ended", || pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_killed_replica_is_reported_and_can_be_started_again() {
    let demo = Demo::start(&[]);
    let (primary, replicas) = (demo.primary(), demo.replicas());
    let [replica, other] = replicas[..] else { panic!() };
    let app = replica.status()["app"]["pid"].as_u64().unwrap() as u32;
    send(Signal::KILL, replica.pid);
    demo.says(&format!("{} ended (signal 9)", replica.name));
    demo.says("the others go on");
    demo.says(&format!("litepilot run -c {}", replica.config().display()));
    until("its application ends with it", || !lives(app));

    let written = other.post("without it");
    assert_eq!(written.code, 201, "{written:?}");
    let read = exchange(primary.url, "GET", "/api/entries", &written.cookies(), b"");
    assert_eq!(texts(&read), ["without it"]);

    let mut again = start_again(replica);
    let read = exchange(replica.url, "GET", "/api/entries", &written.cookies(), b"");
    assert_eq!(texts(&read), ["without it"]);
    send(Signal::TERM, again.id());
    assert!(again.wait().unwrap().success());
}

#[test]
fn without_its_primary_another_takes_over_and_the_former_follows_once_it_is_back() {
    let mut demo = Demo::start(&[]);
    let primary = demo.primary().clone();
    let replica = demo.replicas()[1].clone();
    assert_eq!(replica.post("before").code, 201);
    until("the replicas have it", || {
        demo.replicas().iter().all(|node| texts(&node.get("/api/entries")) == ["before"])
    });
    send(Signal::KILL, primary.pid);
    assert_eq!(texts(&replica.get("/api/entries")), ["before"], "reads go on");
    until("writes are taken again", || replica.post("after").code == 201);
    demo.says(&format!("{} ended (signal 9); the others go on", primary.name));
    assert_eq!(texts(&replica.get("/api/entries")).last().unwrap(), "before");

    let mut again = start_again(&primary);
    until("it has what it missed", || primary.get("/api/entries").json()[0]["text"] == "after");
    until("it follows the new one", || {
        let status = primary.status();
        status["role"] == "replica" && status["primary"]["epoch"].as_u64().unwrap_or(0) > 1
    });

    // It is the user's now: the demo leaves it and what it needs.
    assert_eq!(demo.stop(Signal::TERM).code(), Some(0));
    let somebody = format!("{} was started by somebody else", primary.name);
    demo.says(&somebody);
    assert!(primary.config().exists());
    assert_eq!(primary.get("/api/entries").code, 200);
    send(Signal::TERM, again.id());
    assert!(again.wait().unwrap().success());
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    for offset in [1, 1002] {
        let tmp = tempfile::tempdir().unwrap();
        let first = free_ports();
        let taken = first + offset;
        let _other = TcpListener::bind(("127.0.0.1", taken)).unwrap();
        let mut demo = litepilot(&["demo", "--json", "--port", &first.to_string()]);
        let failed = demo.env("TMPDIR", tmp.path()).output().unwrap();
        assert_eq!((failed.status.code(), text(&failed.stdout)), (Some(1), ""));
        let why = text(&failed.stderr);
        assert!(why.contains(&format!("port {taken} ")) && why.contains("--port"), "{why}");
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_directory_that_does_not_do_is_said_to_be_none() {
    let tmp = tempfile::tempdir().unwrap();
    let long = tmp.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    for (dir, words) in [(long.as_path(), "too long"), (Path::new("/nonexistent"), "No such file")]
    {
        let port = free_ports().to_string();
        let mut demo = litepilot(&["demo", "--port", &port]);
        let failed = demo.env("TMPDIR", dir).output().unwrap();
        assert_eq!((failed.status.code(), text(&failed.stdout)), (Some(1), ""));
        let why = text(&failed.stderr);
        assert!(why.contains(words) && why.contains("TMPDIR"), "{why}");
    }
    assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
}

#[test]
fn applications_that_already_run_get_a_node_each_and_run_on() {
    let (one, two) = (App::start("one"), App::start("two"));
    let targets = [one.address.to_string(), two.address.to_string()];
    let mut demo = Demo::start(&[
        "--target",
        &targets[0],
        "--mount",
        one.mount(),
        "--target",
        &targets[1],
        "--mount",
        two.mount(),
        "--db",
        "app.db",
    ]);
    assert_eq!(demo.nodes.len(), 2);
    assert_eq!(
        (demo.nodes[0].get("/").body, demo.nodes[1].get("/").body),
        ("one".into(), "two".into())
    );
    let (primary, name, replica) = match demo.primary().name.as_str() {
        "node-1" => (&one, "one", &two),
        _ => (&two, "two", &one),
    };
    let written = exchange(demo.replicas()[0].url, "POST", "/", "", b"hello");
    assert_eq!((written.code, written.body.as_str()), (200, name), "the primary's application");
    assert_eq!(*primary.posts.lock().unwrap(), ["hello"]);
    assert!(replica.posts.lock().unwrap().is_empty());

    // What its application writes beside it is shipped to the other one's directory.
    let db = rusqlite::Connection::open(primary.mount.path().join("app.db")).unwrap();
    db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (42)").unwrap();
    let copy = replica.mount.path().join("app.db");
    until("it is shipped", || {
        let copy = rusqlite::Connection::open_with_flags(
            &copy,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        );
        copy.is_ok_and(|copy| copy.query_row("SELECT x FROM t", (), |row| row.get(0)) == Ok(42))
    });

    assert_eq!(demo.stop(Signal::INT).code(), Some(0));
    assert_eq!(exchange(two.address, "GET", "/", "", b"").body, "two");
    assert!(primary.mount.path().join("app.db").exists());
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn it_waits_for_an_application_that_is_not_there_yet() {
    let late = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = late.local_addr().unwrap().to_string();
    let mount = tempfile::tempdir().unwrap();
    let mount = mount.path().to_str().unwrap();
    drop(late);
    let demo = Demo::begin(&["--target", &target, "--mount", mount]);
    assert!(demo.first_line().starts_with("node-1  "));
    demo.says("still waiting: node-1");
    assert!(demo.stdout.try_recv().is_err(), "it is not ready");
}

#[test]
fn wrong_usage_is_refused_with_what_would_be_right() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = dirs.each_ref().map(|dir| dir.path().to_str().unwrap());
    let (one, two) = ("127.0.0.1:8001", "127.0.0.1:8002");
    let cases: &[(&[&str], &str)] = &[
        (&["--target", one], "--mount 1 times"),
        (&["--mount", a], "--target"),
        (&["--nodes", "3", "--target", one, two, "--mount", a, b], "--target 3 times, not 2"),
        (&["--target", one, "--target", two, "--mount", a], "--mount 2 times, not 1"),
        (&["--target", one, one, "--mount", a, b], "given twice"),
        (&["--target", one, two, "--mount", a, a], "given twice"),
        (&["--target", "http://127.0.0.1:8001", "--mount", a], "HOST:PORT"),
        (&["--target", one, "--mount", "/nonexistent/dir"], "--mount"),
        (&["--nodes", "0"], "1..=15"),
        (&["--nodes", "16"], "1..=15"),
        (&["--port", "0"], "--port"),
        (&["--port", "64600"], "--port"),
        (&["--db", "a.db"], "--target"),
        (&["--what"], "--what"),
    ];
    for (args, words) in cases {
        let refused = run(&[&["demo"], *args].concat());
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(2), ""), "{args:?}");
        assert!(text(&refused.stderr).contains(words), "{args:?}: {}", text(&refused.stderr));
    }
}
