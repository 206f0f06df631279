//! The examples, as their READMEs say they are run, and applications of others: on three nodes, under their
//! own servers.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use cluster::{Cluster, Visitor, example};

mod cluster;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
#[path = "../support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;
mod notes;
mod others;
#[path = "../support/port.rs"]
mod port;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

#[test]
fn flask_under_gunicorn() {
    let mut cluster = Cluster::start(&example("flask"));
    let mut visitor = Visitor::default();
    for (turn, node) in cluster.nodes.iter().enumerate() {
        let added = visitor.post(node, "/notes", FORM, &format!("text=note+{turn}"));
        assert_eq!(added.code, 201, "{added:?}");
        assert_eq!(added.json()["written"], turn + 1, "the session is the same everywhere");
    }
    knows_its_place(&cluster);
    cluster.hand_over();
    for (turn, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(visitor.get(node, "/notes").json().as_array().unwrap().len(), 3 + turn);
        assert_eq!(visitor.post(node, "/notes", FORM, "text=afterwards").code, 201);
    }
    let primary = cluster.kill_primary();
    assert_eq!(visitor.post(&cluster.nodes[primary], "/notes", FORM, "text=killed").code, 201);
}

/// What its framework's part of the package says on a replica.
fn knows_its_place(cluster: &Cluster) {
    let primary = &cluster.nodes[cluster.primary()].name;
    let replica = &cluster.nodes[cluster.replicas()[0]];
    let about = Visitor::default().get(replica, "/about").json();
    assert_eq!(about["role"], "replica");
    assert_eq!(
        (&about["node"], &about["primary"]),
        (&replica.name.as_str().into(), &primary.as_str().into())
    );
    assert_eq!(Visitor::default().get(replica, "/healthz").json()["primary"], primary.as_str());
}

#[test]
fn fastapi_under_uvicorn() {
    let mut cluster = Cluster::start(&example("fastapi"));
    let mut visitor = Visitor::default();
    knows_its_place(&cluster);
    let [one, two] = cluster.replicas().map(|i| &cluster.nodes[i]);
    assert_eq!(visitor.post(one, "/notes", JSON, r#"{"text": "hello"}"#).code, 201);
    assert_eq!(visitor.get(two, "/notes").json()[0]["text"], "hello");
    // The other replica is told of the route a moment later.
    for (views, (node, routes)) in
        [(one, "replayed"), (one, "primary"), (two, "replayed primary")].into_iter().enumerate()
    {
        let viewed = visitor.get(node, "/notes/1");
        assert!(routes.contains(viewed.header("litepilot-route").unwrap()), "{viewed:?}");
        assert_eq!(viewed.json()["views"], views + 1, "a GET that writes has written once");
    }
    cluster.hand_over();
    let added = visitor.post(two, "/notes", JSON, r#"{"text": "afterwards"}"#);
    assert_eq!((added.code, added.json()["id"].as_u64()), (201, Some(2)), "{added:?}");
    let primary = cluster.kill_primary();
    let added = visitor.post(&cluster.nodes[primary], "/notes", JSON, r#"{"text": "killed"}"#);
    assert_eq!(added.code, 201, "{added:?}");
}

#[test]
fn django_under_gunicorn() {
    let mut cluster = Cluster::start(&example("django"));
    let mut visitor = Visitor::default();
    let [one, two] = cluster.replicas().map(|i| &cluster.nodes[i]);
    harness::until("the migrations have run", || Visitor::default().get(one, "/").code == 200);
    let applied = cluster.log().matches("Applying notes.0001_initial").count();
    assert_eq!(applied, 1, "once in the whole cluster");

    let env = [("DJANGO_SUPERUSER_PASSWORD", "wonderland")];
    let create = ["on-primary", "--", "python", "manage.py", "createsuperuser", "--noinput"];
    let alice = ["--username", "alice", "--email", "a@example.com"];
    let primary = &cluster.nodes[cluster.primary()];
    let created = primary.litepilot(&[&create[..], &alice].concat(), &env);
    assert!(created.status.success(), "{created:?}");

    visitor.get(one, "/admin/login/");
    let token = visitor.cookies["csrftoken"].clone();
    let login =
        format!("csrfmiddlewaretoken={token}&username=alice&password=wonderland&next=/admin/");
    let answer = visitor.post(one, "/admin/login/", FORM, &login);
    assert_eq!(answer.code, 302, "{answer:?}");
    assert!(visitor.cookies.contains_key("sessionid"));
    let token = visitor.cookies["csrftoken"].clone();
    let note = format!("csrfmiddlewaretoken={token}&text=by+the+admin");
    assert_eq!(visitor.post(two, "/admin/notes/note/add/", FORM, &note).code, 302);

    let note = format!("csrfmiddlewaretoken={token}&text=by+the+page");
    assert_eq!(visitor.post(one, "/", FORM, &note).code, 302);
    cluster.hand_over();
    for node in &cluster.nodes {
        let page = visitor.get(node, "/").body;
        assert!(page.contains("by the admin") && page.contains("by the page"), "{page}");
        assert!(page.contains("You wrote 1 of them"), "the session is a row: {page}");
        assert_eq!(visitor.get(node, "/admin/notes/note/").code, 200, "logged in everywhere");
        assert_eq!(visitor.get(node, "/healthz").json()["database"], "ok");
    }
    let primary = cluster.kill_primary();
    assert_eq!(visitor.post(&cluster.nodes[primary], "/", FORM, &note).code, 302);
}

#[test]
fn an_application_for_litefs_js_runs_unchanged() {
    if !need::need("npm", "nodejs npm") {
        return;
    }
    let npm = ["install", "--no-audit", "--no-fund", "--no-package-lock"];
    let installed = Command::new("npm").args(npm).current_dir(example("litefs-js")).output();
    let installed = installed.unwrap();
    assert!(installed.status.success(), "{installed:?}");

    let mut cluster = Cluster::start(&example("litefs-js"));
    let mut visitor = Visitor::default();
    let primary = &cluster.nodes[cluster.primary()];
    let [one, two] = cluster.replicas().map(|i| &cluster.nodes[i]);
    assert_eq!(visitor.get(primary, "/instance").json()["currentIsPrimary"], true);
    harness::until("litefs-js knows the primary", || {
        Visitor::default().get(one, "/instance").json()["primaryInstance"] == primary.name.as_str()
    });

    assert_eq!(visitor.post(one, "/notes", JSON, r#"{"text": "hello"}"#).code, 201);
    assert_eq!(visitor.get(two, "/notes").json()[0]["text"], "hello");
    let position = primary.dir.join("data/db/notes.sqlite3-pos");
    harness::until("the position is published", || position.exists());
    assert_eq!(visitor.post(two, "/notes", JSON, r#"{"text": "again"}"#).code, 201);
    let txnum: u64 = visitor.cookies["txnum"].parse().unwrap();
    assert!(txnum > 0, "litefs-js read the position");
    assert_eq!(visitor.get(one, "/notes").json().as_array().unwrap().len(), 2);

    let viewed = visitor.get(two, "/notes/1");
    assert_eq!(
        viewed.header("litepilot-route"),
        Some("replayed"),
        "fly-replay was heeded: {viewed:?}"
    );
    assert_eq!(viewed.json()["views"], 1);

    cluster.hand_over();
    assert_eq!(visitor.post(primary, "/notes", JSON, r#"{"text": "afterwards"}"#).code, 201);
    assert_eq!(visitor.get(two, "/notes").json().as_array().unwrap().len(), 3);
    let primary = cluster.kill_primary();
    let added = visitor.post(&cluster.nodes[primary], "/notes", JSON, r#"{"text": "killed"}"#);
    assert_eq!(added.code, 201, "{added:?}");
}
