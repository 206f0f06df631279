//! Applications that nobody here wrote, with nothing but a command and a database: no rules, no middleware,
//! no hooks.

use std::path::{Path, PathBuf};

use super::cluster::{Cluster, Node, Visitor};
use super::harness::until;
use super::{FORM, JSON};

fn other(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples").join(name)
}

/// The texts of a page's comments, as a node says.
fn comments(node: &Node) -> Vec<String> {
    let answer = Visitor::default().get(node, "/?uri=/page");
    let comments = answer.json()["replies"].as_array().cloned().unwrap_or_default();
    comments.iter().map(|comment| comment["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn isso_takes_comments_through_every_node() {
    let mut cluster = Cluster::start(&other("isso"));
    let mut visitor = Visitor::default();
    let [one, two] = cluster.replicas();
    let comment =
        |text: &str| format!(r#"{{"text": "{text}", "author": "alice", "title": "A page"}}"#);
    let added = visitor.post(&cluster.nodes[one], "/new?uri=/page", JSON, &comment("first"));
    assert_eq!(added.code, 201, "{added:?}");
    let own = format!("/id/{}", added.json()["id"]);
    let edited = visitor.put(&cluster.nodes[two], &own, JSON, &comment("edited"));
    assert_eq!(edited.code, 200, "the author is known everywhere: {edited:?}");
    let foreign = Visitor::default().put(&cluster.nodes[two], &own, JSON, &comment("mine"));
    assert_eq!(foreign.code, 403, "{foreign:?}");

    cluster.hand_over();
    for node in &cluster.nodes {
        let added = visitor.post(node, "/new?uri=/page", JSON, &comment("handed over"));
        assert_eq!(added.code, 201, "{added:?}");
    }
    let all = ["edited", "handed over", "handed over", "handed over", "killed"];
    let all = all.map(|text| format!("<p>{text}</p>"));
    // What only the primary holds is lost with it: nobody asked for acknowledgements.
    for node in &cluster.nodes {
        until("it has all that are written", || comments(node) == all[..4]);
    }
    let primary = cluster.kill_primary();
    let added = visitor.post(&cluster.nodes[primary], "/new?uri=/page", JSON, &comment("killed"));
    assert_eq!(added.code, 201, "{added:?}");
    for node in cluster.running() {
        until("it has all of them", || comments(node) == all);
    }
}

#[test]
fn ara_records_and_serves_through_every_node() {
    let mut cluster = Cluster::start(&other("ara"));
    let [one, two] = cluster.replicas();
    let playbook = r#"{"started": "2026-01-01T00:00:00Z", "status": "running",
        "ansible_version": "2.19", "path": "/site.yml"}"#;
    let mut client = Visitor::default();
    let added = client.post(&cluster.nodes[one], "/api/v1/playbooks", JSON, playbook);
    assert_eq!(added.code, 201, "{added:?}");
    let page = client.get(&cluster.nodes[two], "/").body;
    assert!(page.contains("/site.yml"), "{page}");
    // It writes a row and deletes it.
    let health = client.get(&cluster.nodes[one], "/healthcheck/");
    assert_eq!(
        (health.code, health.header("litepilot-route")),
        (200, Some("replayed")),
        "{health:?}"
    );

    let mut admin = log_in(&cluster, &cluster.nodes[two]);
    cluster.hand_over();
    let primary = cluster.kill_primary();
    let added = client.post(&cluster.nodes[primary], "/api/v1/playbooks", JSON, playbook);
    assert_eq!(added.code, 201, "{added:?}");
    for node in cluster.running() {
        let list = client.get(node, "/api/v1/playbooks").json();
        assert_eq!(list["count"], 2, "{list}");
        assert_eq!(admin.get(node, "/admin/").code, 200, "logged in everywhere");
    }
}

/// The administrator, made by a command and logged in through that node.
fn log_in(cluster: &Cluster, node: &Node) -> Visitor {
    let primary = &cluster.nodes[cluster.primary()];
    let database = format!("ARA_DATABASE_NAME={}/data/db/ara.sqlite", primary.dir.display());
    let base = format!("ARA_BASE_DIR={}/data", primary.dir.display());
    let create = ["ara-manage", "createsuperuser", "--noinput", "--username=alice"];
    let command = [&["on-primary", "--", "env", &database, &base][..], &create].concat();
    let env =
        [("DJANGO_SUPERUSER_PASSWORD", "wonderland"), ("DJANGO_SUPERUSER_EMAIL", "a@example.com")];
    let created = primary.litepilot(&command, &env);
    assert!(created.status.success(), "{created:?}");
    let mut admin = Visitor::default();
    admin.get(node, "/admin/login/");
    let token = admin.cookies["csrftoken"].clone();
    let login =
        format!("csrfmiddlewaretoken={token}&username=alice&password=wonderland&next=/admin/");
    let answer = admin.post(node, "/admin/login/", FORM, &login);
    assert_eq!(answer.code, 302, "{answer:?}");
    admin
}
