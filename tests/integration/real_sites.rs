//! Flask and Django behind a node, as their users see them: pages, forms, logins, sessions.

use std::path::Path;

use crate::support::node::{Launch, TestNode};
use crate::support::python::{
    App, DJANGO_PASSWORD, DJANGO_USER, Gunicorn, Uvicorn, Worker, django_migrate,
};
use crate::support::visitor::{Visitor, json};
use crate::support::wire::Message;

/// A node in front of an application whose database is in that directory.
pub fn node_before(app: &App, dir: &Path) -> TestNode {
    Launch::before(&app.address().to_string()).mount(dir).start()
}

/// Django under each of its servers, one after the other, with the same database.
pub fn djangos(dir: &Path) -> [crate::support::python::Launch; 3] {
    django_migrate(dir);
    [
        Gunicorn::django(Worker::Sync, 2, dir),
        Gunicorn::django(Worker::Gthread, 1, dir),
        Uvicorn::django(dir),
    ]
    .map(|launch| launch.env("DJANGO_ALLOWED_HOSTS", "shop"))
}

#[tokio::test]
async fn the_flask_guestbook_is_signed_under_either_worker() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let app = Gunicorn::flask(worker, 2, dir.path()).start();
        let node = node_before(&app, dir.path());
        let mut ann = Visitor::of(&node);

        let page = ann.get("/").await;
        assert_eq!((page.status(), page.field("litepilot-route")), (200, Some("local")));
        assert!(page.text().contains("primary"), "the page says where it runs: {}", page.text());
        let login = ann.submit("/login", "name=ann").await;
        assert_eq!((login.status(), login.field("location")), (303, Some("/")));
        assert_eq!(json(&ann.get("/whoami").await)["name"], "ann");
        let mut token = ann.txid();
        for text in ["hello", "again"] {
            assert_eq!(ann.submit("/sign", &format!("text={text}")).await.status(), 303);
            assert!(ann.txid() > token, "each write has a higher token");
            token = ann.txid();
            let page = ann.get("/").await;
            assert!(page.text().contains(text) && page.text().contains("ann"), "{}", page.text());
        }
        let refused = ann.submit("/sign", "text=").await;
        assert_eq!(refused.status(), 400, "the application's own answer");
        let nobody = Visitor::of(&node).get("/whoami").await;
        assert!(json(&nobody)["name"].is_null());
        ann.submit("/logout", "").await;
        assert!(json(&ann.get("/whoami").await)["name"].is_null());
    }
}

#[tokio::test]
async fn people_log_into_djangos_admin_and_stay_logged_in() {
    let dir = tempfile::tempdir().unwrap();
    for launch in djangos(dir.path()) {
        let app = launch.start();
        let node = node_before(&app, dir.path());
        let mut alice = Visitor::of(&node);

        let form = alice.get("/admin/login/").await;
        let login = |token: &str| {
            format!(
                "csrfmiddlewaretoken={token}&username={DJANGO_USER}&password={DJANGO_PASSWORD}&next=/admin/"
            )
        };
        let stranger = Visitor::of(&node).submit("/admin/login/", &login(&csrf_token(&form))).await;
        assert_eq!(stranger.status(), 403, "a form without its cookie");
        let welcome = alice.submit("/admin/login/", &login(&csrf_token(&form))).await;
        assert_eq!((welcome.status(), welcome.field("location")), (302, Some("/admin/")));
        assert!(alice.get("/admin/").await.text().contains("Log out"));
        for visits in [1, 2] {
            assert_eq!(json(&alice.get("/visits/").await)["visits"], visits);
        }
        let token = alice.txid();
        let form = alice.get("/").await;
        let entry = format!("csrfmiddlewaretoken={}&text=hello", csrf_token(&form));
        assert_eq!(alice.submit("/sign", &entry).await.status(), 303);
        assert!(alice.txid() > token);
        assert_eq!(json(&alice.get("/api/entries").await)[0]["author"], DJANGO_USER);
    }
}

#[tokio::test]
async fn a_session_outlives_application_and_node() {
    let dir = tempfile::tempdir().unwrap();
    let [gunicorn, _, _] = djangos(dir.path());
    let mut app = gunicorn.start();
    let node = node_before(&app, dir.path());
    let mut alice = Visitor::of(&node);
    for visits in [1, 2] {
        assert_eq!(json(&alice.get("/visits/").await)["visits"], visits);
    }
    let cookies = alice.cookies.clone();
    app.restart();
    let node = node.restarted().await;
    let mut alice = Visitor::of(&node);
    alice.cookies = cookies;
    assert_eq!(json(&alice.get("/visits/").await)["visits"], 3);
}

#[tokio::test]
async fn applications_see_their_own_cookies_and_none_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let [gunicorn, _, uvicorn] = djangos(dir.path());
    let flask_dir = tempfile::tempdir().unwrap();
    let flask = Gunicorn::flask(Worker::Gthread, 1, flask_dir.path());
    for (launch, dir) in [(flask, &flask_dir), (gunicorn, &dir), (uvicorn, &dir)] {
        let app = launch.start();
        let node = node_before(&app, dir.path());
        let mut visitor = Visitor::of(&node);
        visitor.cookies.insert("theirs".into(), "1".into());
        let kind = "Content-Type: application/json";
        let made = visitor.ask("POST /api/entries", &[kind], r#"{"text": "hello"}"#).await;
        assert_eq!(made.status(), 201);
        let token = format!("Litepilot-Txid: {}", visitor.cookies["__txid"]);
        assert!(visitor.cookies.contains_key("__txid_epoch"));

        let seen = visitor.ask("GET /echo-headers", &[&token], "").await;
        let text = seen.text().to_ascii_lowercase();
        assert!(text.contains("theirs=1") && !text.contains("txid"), "{text}");
        for ours in ["\"litepilot-role\", \"primary\"", "\"litepilot-primary\", \"test\""] {
            assert!(text.replace("\",\"", "\", \"").contains(ours), "no {ours} in {text}");
        }
    }
}

/// The token in a page's form.
fn csrf_token(page: &Message) -> String {
    let (_, after) = page.text().split_once(r#"name="csrfmiddlewaretoken" value=""#).unwrap();
    after.split_once('"').unwrap().0.to_owned()
}
