//! The page at the admin port, in a real browser. What the cluster does is played, but for a failover
//! of real nodes.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use http::StatusCode;
use litepilot::admin::AdminLimits;
use litepilot::rules::Class;
use litepilot::telemetry::metrics::Route;
use serde_json::json;

use browser::Browser;
use played::{Played, TOKEN};

mod browser;
#[path = "../election/cluster.rs"]
#[expect(dead_code, reason = "the election's tests use the rest")]
mod cluster;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
#[path = "../support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;
mod played;

const FITS: &str = "document.documentElement.scrollWidth <= innerWidth";

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

fn open(url: &str) -> Browser {
    let mut browser = Browser::start();
    browser.look(1280, false);
    browser.open(url);
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
fn a_failover_of_real_nodes_is_seen() {
    if !Browser::is_here() {
        return;
    }
    // A lease that a busy machine does not lose by itself.
    let mut cluster = cluster::Plan { ttl: "6s", ..Default::default() }.start();
    let primary = cluster.primary();
    let [watched, _] = cluster.others(primary)[..] else { panic!() };
    let name = |node: usize| format!("n{}", node + 1);
    let mut browser = open(&cluster.nodes[watched].it.admin);
    browser.until(&format!("{} === 'primary'", role(&name(primary))));
    let before = cluster.epoch(watched);
    assert_eq!(cluster.nodes[watched].it.post("hello").code, 201);
    assert_eq!(cluster.nodes[watched].it.get("/api/entries").code, 200);
    for kind in ["read", "forwarded"] {
        let p50 =
            format!("document.querySelector('[data-kind={kind}] .took span span').textContent");
        browser.until(&format!("/\\d (ms|s)/.test({p50})"));
    }

    cluster.nodes[primary].kill();
    browser.until(&format!("{} === 'unreachable'", role(&name(primary))));
    let others = cluster.others(primary);
    let roles = others.iter().map(|node| format!("{} === 'primary'", role(&name(*node))));
    browser.until(&roles.collect::<Vec<_>>().join(" || "));
    browser
        .until(&format!("Number({}.match(/in epoch (\\d+)/)?.[1]) > {before}", text_of("subline")));
    browser.until(&format!("{} === '{} is unreachable'", text_of("headline"), name(primary)));
    browser.until(&events_hold("is primary in epoch"));
    browser.until("document.querySelectorAll('#stage .link.down').length === 1");
    browser.picture("failover");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn one_three_and_nine_nodes_fit_a_desk_and_a_phone() {
    if !Browser::is_here() {
        return;
    }
    let mut browser = Browser::start();
    for nodes in [1, 3, 9] {
        let played = Played::of(nodes);
        let many = format!("http://{}/", played.address);
        browser.open(&many);
        let counted = |what| format!("document.querySelectorAll('{what}').length === {nodes}");
        browser.until(&format!("{} && {}", counted("#nodes tr"), counted("#stage .node")));
        for (width, dark) in [(1280, false), (390, true)] {
            browser.look(width, dark);
            browser.until(&format!("innerWidth === {width}"));
            // Nodes of the picture keep out of each other's way, and have arrived.
            browser.until(
                "[...document.querySelectorAll('#stage .node circle:not(.halo)')].map(c => c.getBoundingClientRect())
                    .every((a, i, all) => a.left >= 0 && a.right <= innerWidth
                        && all.every((b, j) => i === j || Math.hypot(a.x - b.x, a.y - b.y) > a.width))",
            );
            assert_eq!(browser.value(FITS), true, "{nodes} nodes at {width}");
            browser.picture(&format!("nodes-{nodes}-{width}"));
        }
    }
    // In words too, for who cannot see it.
    let label = browser.value("document.querySelector('#stage svg').getAttribute('aria-label')");
    assert!(
        label.as_str().unwrap().contains("node-1: primary, in step. node-2: replica"),
        "{label}"
    );
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn a_promotion_is_asked_for_first_and_wants_the_token() {
    if !Browser::is_here() {
        return;
    }
    let played = Played::of(3);
    let mut browser = open(&played.url());
    browser.until(&format!("{} === 'primary'", role("node-1")));
    assert_eq!(browser.value(&(cell("node-1", "button") + ".hidden")), true);

    // Neither Escape nor an empty field asks for anything, nor does a wrong token change anything.
    ask(&mut browser, "node-2", "");
    browser.press("Enter");
    browser.press("Escape");
    browser.until("!document.getElementById('ask').open");
    ask(&mut browser, "node-2", "0123456789abcdeX");
    browser.press("Enter");
    browser.until(&format!("{}.includes('not the token of node-1')", text_of("refused")));
    browser.picture("refused");
    browser.press("Escape");
    browser.until("!document.getElementById('ask').open");
    browser.until("document.getElementById('token').value === ''");
    assert_eq!(played.steered.asked(), [""; 0]);

    // What the node refuses is told in its own words.
    ask(&mut browser, "node-3", TOKEN);
    browser.press("Enter");
    browser.until(&format!("{}.includes('too far behind')", text_of("refused")));
    browser.press("Escape");
    browser.until("!document.getElementById('ask').open");

    ask(&mut browser, "node-2", TOKEN);
    browser.press("Enter");
    browser.until(&format!("{} === 'primary'", role("node-2")));
    browser.until("!document.getElementById('ask').open");
    browser.until(&events_hold("promote node-2: done"));
    assert_eq!(played.steered.asked(), ["node-3", "node-2"]);
    let page = browser.value("document.documentElement.outerHTML");
    assert!(!page.as_str().unwrap().contains(TOKEN), "the token stays nowhere");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn what_comes_from_outside_is_text_and_what_is_wrong_is_said() {
    if !Browser::is_here() {
        return;
    }
    let played = Played::of(3);
    let hostile = "<img src=x onerror=document.title=1><script>document.title=2</script>";
    played.events.record("app", hostile);
    played.events.warn("lost-write", "a write is gone");
    let mut browser = open(&played.url());
    browser.until(&events_hold("a write is gone"));
    let worker = played.metrics.worker(0);
    for _ in 0..20 {
        worker.request(Class::Read, Route::Local, StatusCode::OK, Duration::from_millis(4));
        worker.request(Class::Write, Route::Primary, StatusCode::OK, Duration::from_millis(30));
    }
    for kind in ["read", "forwarded"] {
        let p99 = format!("document.querySelector('[data-kind={kind}] .p99 span').textContent");
        browser.until(&format!("/\\d ms/.test({p99})"));
    }
    played.steered.change(|status| {
        status["suspected_writes"] = json!([{
            "request": format!("GET /{hostile}"), "rule": "default.yml:26", "count": 3,
            "last": "2026-11-20T11:00:00Z", "mend": format!("- {{match: {{path: \"/{hostile}\"}}, as: write}}"),
        }]);
        status["learned_writes"] = json!([{
            "request": format!("GET /{hostile}"), "count": 2, "last": "2026-11-20T11:00:00Z",
            "rule": format!("- {{match: {{path: \"/{hostile}\"}}, as: write}}"),
        }]);
        status["nodes"][2]["reachable"] = false.into();
    });
    browser.until("document.getElementById('suspects').checkVisibility()");
    browser.until("document.getElementById('learned').checkVisibility()");
    browser.until(&format!("{}.includes('onerror')", text_of("learned-list")));
    browser.until(&format!(
        "{}.includes('onerror') && {0}.includes('as: write')",
        text_of("suspected")
    ));
    browser.until(&format!("{} === 'node-3 is unreachable'", text_of("headline")));
    browser.until(&(cell("node-3", "button") + ".disabled"));
    browser.picture("suspects");
    played.steered.change(|status| status["primary"] = json!(null));
    browser.until(&format!("{} === 'No primary: writes wait'", text_of("headline")));
    played.steered.change(|status| status["quorum"] = false.into());
    browser.until(&format!("{} === 'No majority: reads only'", text_of("headline")));
    browser.picture("no-majority");
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.value("document.scripts.length"), 1);
    let title = browser.value("document.title");
    assert!(title.as_str().unwrap().contains("Litepilot"), "{title}");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn a_connection_that_is_lost_is_said_to_be_and_comes_back() {
    if !Browser::is_here() {
        return;
    }
    let played = Played::of(3);
    let address = played.address;
    let mut browser = open(&played.url());
    browser.look(390, true);
    drop(played);
    browser.until(&state_is("lost"));
    let lost = browser.value(&text_of("lost"));
    assert!(lost.as_str().unwrap().contains("Connection to node-1 lost"), "{lost}");
    assert_eq!(browser.value("document.getElementById('lost').checkVisibility()"), true);
    browser.until(&format!("{} === 'No news from node-1'", text_of("headline")));
    browser.picture("lost");
    // Where no stream is to be had the page asks now and then.
    let full = Played::at(address, 3, AdminLimits { streams: 0, ..AdminLimits::default() });
    browser.until(&state_is("wait"));
    assert_eq!(browser.value("document.getElementById('lost').checkVisibility()"), false);
    full.steered.change(|status| status["primary"]["node"] = "node-2".into());
    browser.until(&format!("{} === 'primary'", role("node-2")));
    drop(full);
    let _again = Played::at(address, 3, AdminLimits::default());
    browser.until(&state_is("live"));
    browser.until(&format!("{} === 'primary'", role("node-1")));
    assert_eq!(browser.complaints, [""; 0]);
}
