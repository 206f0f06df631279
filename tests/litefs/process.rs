//! LiteFS as our child: what keeps it from starting, how it ends, and what is left of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use litepilot::embedded::posfile::{PosFiles, PrimaryFile};
use litepilot::engine::Engine;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::support::{Agreed, LONG, Node, Nodes, is_mounted, program, until};

fn signal(node: &Node, signal: Signal) {
    let pid = node.litefs.state().pid.expect("it runs");
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

async fn trouble(node: &Node, wanted: &str) {
    let found = async || node.litefs.state().state.contains(wanted);
    until(wanted, found).await;
}

#[tokio::test]
async fn it_is_started_again_when_it_dies_and_its_epoch_is_over_at_once() {
    let mut nodes = Nodes::start(&["node-1"]).await;
    let epoch = nodes.serve(0, &[]).await;
    nodes.create(0, "wal").await;
    nodes.write(0, 1).await;
    let held = nodes.nodes[0].held().await;
    signal(&nodes.nodes[0], Signal::KILL);
    assert_eq!(timeout(LONG, nodes.nodes[0].litefs.lost()).await.unwrap(), epoch);
    nodes.nodes[0].litefs.become_replica().await.unwrap();
    nodes.nodes[0].ready().await;
    assert_eq!(nodes.nodes[0].held().await, held);
    assert_eq!(nodes.nodes[0].restarts(), 1);
    nodes.serve(0, &[]).await;
    nodes.write(0, 2).await;
    assert_eq!(nodes.nodes[0].rows().unwrap(), [1, 2]);
    nodes.stop().await;
}

#[tokio::test]
async fn one_that_hangs_as_primary_is_killed_and_stalls_nobody() {
    let mut nodes = Nodes::start(&["node-1"]).await;
    let epoch = nodes.serve(0, &[]).await;
    nodes.create(0, "wal").await;
    signal(&nodes.nodes[0], Signal::STOP);
    // It takes nobody with it while it is there.
    if program().1 {
        let read = nodes.nodes[0].litefs.read_position();
        assert!(timeout(LONG, read).await.unwrap().is_err());
    }
    assert_eq!(timeout(LONG, nodes.nodes[0].litefs.lost()).await.unwrap(), epoch);
    nodes.nodes[0].litefs.become_replica().await.unwrap();
    until("it is started again", async || nodes.nodes[0].restarts() == 1).await;
    nodes.nodes[0].ready().await;
    nodes.serve(0, &[]).await;
    nodes.write(0, 1).await;
    nodes.stop().await;
}

#[tokio::test]
async fn one_that_hangs_as_replica_is_started_again_and_goes_on() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, "wal").await;
    nodes.level(0, 1).await;
    signal(&nodes.nodes[1], Signal::STOP);
    let replica = &nodes.nodes[1].litefs;
    until("it is not served from", async || replica.lag().is_none()).await;
    until("it is started again", async || replica.state().restarts > 0).await;
    nodes.nodes[1].ready().await;
    nodes.write(0, 1).await;
    nodes.level(0, 1).await;
    assert_eq!(nodes.nodes[1].rows().unwrap(), [1]);
    nodes.stop().await;
}

#[tokio::test]
async fn a_promise_that_is_needed_has_a_litefs_started_anew_that_a_reader_holds() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, "delete").await;
    nodes.level(0, 1).await;
    let reader = nodes.nodes[1].open().unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    nodes.write(0, 1).await;
    let epoch = nodes.next();
    let replica = &nodes.nodes[1].litefs;
    // What a lessor does that has nobody else.
    until("it is fit", async || replica.promise(epoch).await.is_ok() && replica.unfit().is_none())
        .await;
    nodes.claim(1, epoch);
    replica.become_primary(nodes.nodes[1].member.grant(epoch)).await.unwrap();
    drop(reader);
    nodes.stop().await;
}

#[tokio::test]
async fn a_stop_leaves_nothing_mounted_even_if_a_file_is_open() {
    let mut nodes = Nodes::start(&["node-1"]).await;
    nodes.serve(0, &[]).await;
    nodes.create(0, "wal").await;
    nodes.write(0, 1).await;
    let open = fs::File::open(nodes.nodes[0].path()).unwrap();
    let (_, real) = program();
    assert_eq!(is_mounted(&nodes.nodes[0]), real);
    let node = nodes.nodes.pop().unwrap();
    let held = node.held().await;
    let mount = node.config.litefs.mount.clone();
    let dir = node.stop().await;
    assert!(!litepilot::litefs::mount::is_mounted(&mount).unwrap());
    drop(open);
    // And the next one finds everything.
    let node = Node::start_in(dir, "node-1", &nodes.agreed).await;
    node.ready().await;
    assert_eq!(node.held().await, held);
    node.stop().await;
}

#[tokio::test]
async fn nothing_of_ours_is_written_into_its_file_system() {
    if !program().1 {
        eprintln!("skipped: a stand-in has no file system");
        return;
    }
    let mut nodes = Nodes::start(&["node-1"]).await;
    nodes.serve(0, &[]).await;
    nodes.create(0, "wal").await;
    let litefs = &nodes.nodes[0].config.litefs;
    let why = PrimaryFile::new(&litefs.mount).unwrap_err().to_string();
    assert!(why.contains("FUSE"), "{why}");
    let why = PosFiles::new(&litefs.mount, &nodes.nodes[0].path()).unwrap_err().to_string();
    assert!(why.contains("FUSE"), "{why}");
    let databases: Vec<_> = fs::read_dir(litefs.data.join("dbs")).unwrap().collect();
    assert_eq!(databases.len(), 1, "{databases:?}");
    nodes.stop().await;
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_told_and_overcome() {
    if !program().1 {
        eprintln!("skipped: a stand-in needs no file system");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    fs::write(mount.join("app.db"), "precious").unwrap();
    let node = Node::start_in(dir, "node-1", &Arc::new(Agreed::default())).await;
    trouble(&node, "the mount would hide app.db").await;
    assert!(node.litefs.held().await.unwrap_err().to_string().contains("not empty"));
    fs::rename(mount.join("app.db"), node.config.data_dir.join("app.db")).unwrap();
    node.ready().await;
    assert_eq!(node.litefs.state().state, "waiting");
    node.stop().await;
}

#[tokio::test]
async fn a_second_litefs_on_one_port_or_mount_is_refused() {
    if !program().1 {
        eprintln!("skipped: a stand-in needs no file system");
        return;
    }
    let agreed = Arc::new(Agreed::default());
    let first = Node::start("node-1", &agreed).await;
    first.ready().await;
    let mut litefs = first.config.litefs.clone();
    let found = litepilot::litefs::preflight::check(&litefs).unwrap_err().to_string();
    assert!(found.contains("is mounted already"), "{found}");
    litefs.mount = first.config.data_dir.join("mount");
    let found = litepilot::litefs::preflight::check(&litefs).unwrap_err().to_string();
    assert!(found.contains("litefs.http") && found.contains("another LiteFS"), "{found}");
    assert!(is_mounted(&first), "the first one is left alone");
    first.ready().await;
    first.stop().await;
}

#[tokio::test]
async fn a_litefs_that_is_missing_or_too_old_is_named() {
    let agreed = Arc::new(Agreed::default());
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("litefs");
    fs::write(&old, "#!/bin/sh\necho 'LiteFS v0.5.4, commit=x'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    for (binary, wanted) in
        [("/no/such/litefs", "litefs.binary"), (old.to_str().unwrap(), "install LiteFS v0.5.7")]
    {
        let node =
            Node::start_with("node-1", &agreed, |spec| spec.litefs.binary = binary.into()).await;
        trouble(&node, wanted).await;
        assert!(node.litefs.unfit().unwrap().contains(wanted));
        timeout(LONG, node.stop()).await.unwrap();
    }
}
