//! Real programs of a shell, which leave their marks in a directory.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::cluster::Primary;

/// Far longer than anything here takes: only a hang gets there.
const HANG: Duration = Duration::from_secs(30);
const TOLD: &str = "echo $LITEPILOT_NODE $LITEPILOT_EPOCH $LITEPILOT_PRIMARY";

struct Fixture {
    dir: TempDir,
    hooks: Hooks,
    view: watch::Sender<ClusterView>,
    events: Arc<Events>,
}

/// A node `here` with these keys of `app:`; `$DIR` in them is a directory of its own.
fn fixture(app: &str) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let app = app.replace("$DIR", dir.path().to_str().unwrap());
    let yaml = format!("node: here\nproxy: {{target: 127.0.0.1:1, db: db}}\napp: {{{app}}}\n");
    let file = dir.path().join("litepilot.yml");
    let config = Config::from_yaml(&file.to_string_lossy(), yaml.as_bytes(), &|_| None).unwrap();
    let view = watch::Sender::new(ClusterView::single("here".parse().unwrap(), Epoch(3)));
    let events = Arc::new(Events::default());
    let hooks = Hooks::new(&config, None, &events, view.subscribe());
    Fixture { dir, hooks, view, events }
}

impl Fixture {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let reached = async {
            while !holds(self) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(HANG, reached).await.expect(what);
    }

    fn last_event(&self) -> (String, String) {
        let latest = self.events.latest();
        let last = latest.last().expect("an event");
        (last.kind.to_owned(), last.text.clone())
    }

    /// Another node is primary, or nobody.
    fn set_primary(&self, node: Option<&str>, epoch: u64) {
        self.view.send_modify(|view| {
            let single = ClusterView::single(view.node.clone(), Epoch(epoch));
            view.primary = node
                .and_then(|node| Some(Primary { node: node.parse().unwrap(), ..single.primary? }));
        });
    }
}

#[tokio::test]
async fn a_promotion_is_told_of_its_epoch_and_its_failure_counts() {
    let fixture =
        fixture(&format!("on_promote: [sh, -c, '{TOLD} > $DIR/told; test ! -e $DIR/bad']"));
    assert!(fixture.hooks.promoted(Epoch(7)).await);
    assert_eq!(fixture.text("told"), "here 7 here\n");
    let (kind, text) = fixture.last_event();
    assert_eq!(kind, "on-promote");
    assert_eq!(text, "app.on_promote has run; this node takes writes");

    fs::write(fixture.file("bad"), "").unwrap();
    assert!(!fixture.hooks.promoted(Epoch(8)).await);
    assert_eq!(fixture.text("told"), "here 8 here\n");
    let (_, text) = fixture.last_event();
    assert!(text.contains("it failed") && text.contains("this node takes no writes"), "{text}");
}

#[tokio::test]
async fn a_promotion_without_a_hook_is_fine() {
    let fixture = fixture("");
    assert!(fixture.hooks.promoted(Epoch(7)).await);
    assert_eq!(fixture.events.latest(), []);
}

#[tokio::test]
async fn a_promotion_that_takes_too_long_fails_and_one_that_nobody_waits_for_ends() {
    let fixture = fixture("hook_timeout: 50ms, on_promote: [sh, -c, 'sleep 1000']");
    assert!(!fixture.hooks.promoted(Epoch(7)).await);
    let (_, text) = fixture.last_event();
    assert!(text.contains("longer than 50ms") && text.contains("app.hook_timeout"), "{text}");

    let fixture = self::fixture("on_promote: [sh, -c, 'echo $$ > $DIR/pid; sleep 1000']");
    let promoted = tokio::spawn(fixture.hooks.promoted(Epoch(7)));
    fixture.until("it to run", |f| f.text("pid").ends_with('\n')).await;
    promoted.abort();
    let process = PathBuf::from("/proc").join(fixture.text("pid").trim());
    fixture.until("its end", |_| !process.exists()).await;
}

#[tokio::test]
async fn of_demotions_that_come_while_one_is_told_the_last_one_counts() {
    let command = format!("{TOLD} >> $DIR/told; until test -e $DIR/go; do sleep 0.01; done");
    let fixture = fixture(&format!("on_demote: [sh, -c, '{command}']"));
    let running = tokio::spawn(fixture.hooks.clone().run());
    timeout(HANG, fixture.hooks.settled()).await.expect("nothing is due yet");
    // This node is not the primary that anybody is sent to.
    fixture.hooks.demoted(Epoch(3));
    fixture.until("the first to run", |f| !f.text("told").is_empty()).await;
    for epoch in 4..9 {
        fixture.set_primary(Some("there"), epoch + 1);
        fixture.hooks.demoted(Epoch(epoch));
    }
    let settled = fixture.hooks.settled();
    assert!(timeout(Duration::from_millis(20), settled).await.is_err(), "one still runs");
    fs::write(fixture.file("go"), "").unwrap();
    timeout(HANG, fixture.hooks.settled()).await.expect("an end");
    assert_eq!(fixture.text("told"), "here 3\nhere 8 there\n");
    assert_eq!(fixture.last_event().1, "app.on_demote has run");
    running.abort();
}

#[tokio::test]
async fn a_demotion_that_fails_is_only_said() {
    let fixture = fixture("on_demote: [sh, -c, 'exit 3']");
    let running = tokio::spawn(fixture.hooks.clone().run());
    fixture.hooks.demoted(Epoch(3));
    timeout(HANG, fixture.hooks.settled()).await.expect("an end");
    let (kind, text) = fixture.last_event();
    assert_eq!(kind, "on-demote");
    assert!(text.contains("exit status: 3") && text.contains("a replica all the same"), "{text}");
    running.abort();
}

#[tokio::test]
async fn a_quorum_that_is_lost_is_told_each_time_with_the_last_epoch() {
    let fixture = fixture(&format!("on_quorum_lost: [sh, -c, '{TOLD} >> $DIR/told']"));
    let quorum = |has| fixture.view.send_modify(|view| view.quorum = has);
    // Not had yet is not lost.
    quorum(false);
    let running = tokio::spawn(fixture.hooks.clone().run());
    tokio::task::yield_now().await;
    quorum(true);
    tokio::task::yield_now().await;
    fixture.set_primary(Some("there"), 5);
    tokio::task::yield_now().await;
    quorum(false);
    fixture.until("it to be told", |f| f.text("told") == "here 5 there\n").await;
    fixture.set_primary(None, 0);
    quorum(true);
    tokio::task::yield_now().await;
    quorum(false);
    fixture.until("it to be told", |f| f.text("told") == "here 5 there\nhere 5\n").await;
    timeout(HANG, fixture.hooks.settled()).await.expect("an end");
    assert_eq!(
        fixture.last_event(),
        ("on-quorum-lost".into(), "app.on_quorum_lost has run".into())
    );
    running.abort();
}
