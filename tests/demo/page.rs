//! The page at the admin port, in a real browser.

use rustix::process::Signal;

use super::browser::Browser;
use super::harness::{Demo, DemoNode, exchange, send, start_again, texts, until};

/// What the table says of a node.
fn cell(node: &str, column: &str) -> String {
    format!(
        "[...document.querySelectorAll('#nodes tr')].find(r => r.querySelector('th span').textContent === '{node}')?.querySelector('{column}')"
    )
}

fn role(node: &str) -> String {
    cell(node, "td .tag") + "?.textContent"
}

fn text_of(id: &str) -> String {
    format!("document.getElementById('{id}').textContent")
}

fn state_is(state: &str) -> String {
    format!("document.body?.dataset.state === '{state}'")
}

fn events_hold(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('#events p')].some(p => p.textContent.includes('{text}'))"
    )
}

fn open(node: &DemoNode) -> Browser {
    let mut browser = Browser::start();
    browser.look(1280, false);
    browser.open(&node.admin);
    browser.until(&state_is("live"));
    browser
}

/// Asks for a promotion from the keyboard and writes a token. Nothing is sent yet.
fn ask(browser: &mut Browser, node: &str, token: &str) {
    browser.value(&format!("{}.focus()", cell(node, "button")));
    browser.press("Enter");
    browser.until("document.getElementById('ask').open && document.activeElement.id === 'token'");
    browser.write(token);
}

#[test]
fn a_failover_is_seen_and_a_connection_that_is_lost_is_said_to_be() {
    let demo = Demo::start(&[]);
    let primary = demo.primary().clone();
    let [watched, other] = demo.replicas()[..] else { panic!() };
    let mut browser = open(watched);
    browser.until(&format!("{} === 'All is well'", text_of("headline")));
    browser.until(&format!("{} === 'primary'", role(&primary.name)));
    assert_eq!(browser.value(&role(&other.name)), "replica");
    let label = browser.value("document.querySelector('#stage svg').getAttribute('aria-label')");
    assert!(label.as_str().unwrap().contains(&format!("{}: primary", primary.name)), "{label}");
    let others = "document.querySelectorAll('#stage .link:not(.down)').length";
    assert_eq!(browser.value(others), 2);

    // Requests are in the charts.
    assert_eq!(watched.post("<img src=x onerror=alert(1)>").code, 201);
    assert_eq!(watched.get("/api/entries").code, 200);
    for kind in ["read", "forwarded"] {
        let p50 =
            format!("document.querySelector('[data-kind={kind}] .took span span').textContent");
        browser.until(&format!("/\\d (ms|s)/.test({p50})"));
    }
    browser.picture("three-light");

    send(Signal::KILL, primary.pid);
    browser.until(&format!("{} === 'not heard'", role(&primary.name)));
    let [a, b] = [watched, other].map(|node| format!("{} === 'primary'", role(&node.name)));
    browser.until(&format!("{a} || {b}"));
    browser.until(&format!("{}.includes('in epoch 2')", text_of("subline")));
    browser.until(&format!("{} === '{} is not heard'", text_of("headline"), primary.name));
    browser.until(&events_hold("is primary in epoch 2"));
    browser.until("document.querySelectorAll('#stage .link.down').length === 1");
    browser.look(390, true);
    browser.picture("failover-phone-dark");
    let wide = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.value(wide), true, "nothing is cut off on a phone");

    send(Signal::KILL, watched.pid);
    browser.until(&state_is("lost"));
    let lost = browser.value(&text_of("lost"));
    assert!(
        lost.as_str().unwrap().contains(&format!("Connection to {} lost", watched.name)),
        "{lost}"
    );
    assert_eq!(browser.value("document.getElementById('lost').checkVisibility()"), true);
    browser.picture("lost-phone-dark");
    let mut again = start_again(watched);
    browser.until(&state_is("live"));
    assert_eq!(browser.value("document.getElementById('lost').checkVisibility()"), false);
    assert_eq!(browser.complaints, [""; 0]);
    send(Signal::TERM, again.id());
    assert!(again.wait().unwrap().success());
}

#[test]
fn a_promotion_is_asked_for_first_and_wants_the_token() {
    let demo = Demo::start(&[]);
    let primary = demo.primary().clone();
    let [watched, next] = demo.replicas()[..] else { panic!() };
    let mut browser = open(watched);
    browser.until(&format!("{} === 'primary'", role(&primary.name)));
    assert_eq!(browser.value(&(cell(&primary.name, "button") + ".hidden")), true);

    // Escape, and an empty field, change nothing.
    ask(&mut browser, &next.name, "");
    browser.press("Enter");
    browser.press("Escape");
    browser.until("!document.getElementById('ask').open");
    // So does a wrong token, which is said and not kept.
    ask(&mut browser, &next.name, "0123456789abcdef0123");
    browser.press("Enter");
    browser.until(&format!("{}.includes('not the token of {}')", text_of("refused"), watched.name));
    browser.picture("refused");
    browser.press("Escape");
    browser.until("!document.getElementById('ask').open");
    assert_eq!(browser.value("document.getElementById('token').value"), "");
    assert_eq!(demo.primary().name, primary.name);

    ask(&mut browser, &next.name, &watched.token);
    browser.press("Enter");
    browser.until(&format!("{} === 'primary'", role(&next.name)));
    browser.until("!document.getElementById('ask').open");
    browser.until(&events_hold(&format!("promote {}: done", next.name)));
    assert_eq!(demo.primary().name, next.name);
    let page = browser.value("document.documentElement.outerHTML");
    assert!(!page.as_str().unwrap().contains(&watched.token), "the token stays nowhere");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn it_fits_one_node_and_nine() {
    for (nodes, name) in [("1", "one"), ("9", "nine")] {
        let demo = Demo::start(&["--nodes", nodes]);
        let mut browser = open(&demo.nodes[0]);
        browser.until(&format!("document.querySelectorAll('#nodes tr').length === {nodes}"));
        browser.until(&format!("document.querySelectorAll('#stage .node').length === {nodes}"));
        for (width, dark) in [(1280, true), (390, false)] {
            browser.look(width, dark);
            browser.until(&format!("innerWidth === {width}"));
            browser.picture(&format!("{name}-{width}"));
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.value(fits), true, "{nodes} nodes at {width}");
            // Nodes of the picture keep out of each other's way.
            browser.until(
                "[...document.querySelectorAll('#stage .node circle:not(.halo)')].map(c => c.getBoundingClientRect()).every((a, i, all) =>
                    all.every((b, j) => i === j || Math.hypot(a.x - b.x, a.y - b.y) > a.width))",
            );
        }
        assert_eq!(browser.complaints, [""; 0]);
    }
}

#[test]
fn who_may_not_is_not_promoted_and_nothing_is_lost() {
    let demo = Demo::start(&[]);
    let primary = demo.primary().clone();
    let [asked, behind] = demo.replicas()[..] else { panic!() };
    let written = asked.post("first");
    assert_eq!(written.code, 201);
    let copy = behind.data_dir.join("db/guestbook.sqlite3");
    let entries = "SELECT count(*) FROM entries";
    let reader = rusqlite::Connection::open(&copy).unwrap();
    until("it has the first entry", || reader.query_row(entries, (), |row| row.get(0)) == Ok(1));
    // Somebody reads there without end, so that nothing can be applied to it.
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(reader.query_row(entries, (), |row| row.get(0)), Ok(1));
    assert_eq!(asked.post("second").code, 201);

    let admin = asked.admin.strip_prefix("http://").unwrap().parse().unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", asked.token);
    let of_another = format!("Authorization: Bearer {}\r\n", behind.token);
    let lagging = format!("/promote?node={}", behind.name);
    for (path, headers, code, name) in [
        (lagging.as_str(), "", 401, "unauthorized"),
        (&lagging, &of_another, 401, "unauthorized"),
        ("/promote?node=nobody", &bearer, 404, "unknown-node"),
        ("/promote?node=node%202", &bearer, 400, "bad-request"),
        (&lagging, &bearer, 409, "not-fit"),
    ] {
        let answer = exchange(admin, "POST", path, headers, b"");
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(answer.json()["type"].as_str().unwrap().ends_with(name), "{answer:?}");
    }
    assert_eq!(demo.primary().name, primary.name);
    assert_eq!(asked.post("third").code, 201, "the primary goes on");
    drop(reader);
    until("it catches up", || texts(&behind.get("/api/entries")) == ["third", "second", "first"]);
}
