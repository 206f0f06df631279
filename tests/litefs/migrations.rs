//! A real Django project whose tables are made by the primary alone.

use std::path::Path;

use super::harness::{exchange, text};
use super::python::{DJANGO_PASSWORD, DJANGO_USER, apps, program};
use super::whole::{Plan, place, until};

/// `manage.py`, for the database of a node.
fn manage(place: &Path, arguments: &[&str]) -> Vec<String> {
    let database = format!("GUESTBOOK_DB={}/mount/book.sqlite3", place.display());
    let python = program("python").get_program().to_str().unwrap().to_owned();
    let script = apps().join("django_guestbook/manage.py").to_str().unwrap().to_owned();
    let password = format!("DJANGO_SUPERUSER_PASSWORD={DJANGO_PASSWORD}");
    let mut command = vec!["env".to_owned(), database, password, python, script];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command
}

fn django(place: &Path) -> String {
    let gunicorn = program("gunicorn").get_program().to_str().unwrap().to_owned();
    let config = apps().join("django_guestbook/gunicorn.conf.py");
    let serve = [
        "env".to_owned(),
        format!("GUESTBOOK_DB={}/mount/book.sqlite3", place.display()),
        gunicorn,
        format!("--config={}", config.display()),
        format!("--bind=unix:{}/s", place.display()),
    ];
    let migrate = manage(place, &["migrate", "--verbosity=0"]);
    format!(
        "  command: {}\n  on_promote: {}\n",
        serde_json::to_string(&serve).unwrap(),
        serde_json::to_string(&migrate).unwrap()
    )
}

#[test]
fn a_django_project_migrates_on_the_primary_and_once() {
    let cluster = Plan { nodes: 2, app: django, ..Plan::default() }.start();
    let first = cluster.primary();
    // The tables were there before the first write was taken.
    assert_eq!(cluster.post(1 - first, "hello", "").code, 201);
    for i in 0..2 {
        until("it is replicated", || {
            let answer = exchange(cluster.proxy(i), "GET", "/api/entries", "", b"");
            answer.code == 200 && answer.body.contains("hello")
        });
        cluster.until_level(i);
    }
    // As of a release, on every node at the same time. A second user of that name would be refused.
    let create = |i: usize| {
        let place = place(&cluster.dir, i);
        let user =
            ["createsuperuser", "--noinput", "--username", DJANGO_USER, "--email=a@b.example"];
        let command = manage(&place, &user);
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        cluster.command(i, &["on-primary"], &[&["--once", "release-1", "--"], &words[..]].concat())
    };
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let runs = [0, 1].map(|i| {
                scope.spawn({
                    let create = &create;
                    move || create(i)
                })
            });
            for run in runs {
                let done = run.join().unwrap();
                assert!(done.status.success(), "{}", text(&done.stderr));
            }
        });
    }
    // The next primary migrates, too: there is nothing to do.
    let second = 1 - first;
    let promoted = cluster.admin(first, "POST", &format!("/promote?node=n{second}"));
    assert_eq!(promoted.code, 200, "{promoted:?}");
    assert_eq!(cluster.post(first, "after the handoff", "").code, 201);
    assert_eq!(cluster.primary(), second);
    let users = || {
        let database = cluster.configs[second].litefs.mount.join("book.sqlite3");
        let users = rusqlite::Connection::open(database)?;
        users.query_row("SELECT count(*) FROM auth_user", (), |row| row.get::<_, i64>(0))
    };
    assert_eq!(users().unwrap(), 1);
    cluster.stop();
}
