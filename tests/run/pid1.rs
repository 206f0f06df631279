//! The program as the first process of a container.

use rustix::process::Signal;

use super::need::permitted;
use super::program::{Setup, send};

const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

#[tokio::test]
async fn it_reaps_orphans_and_ends_in_good_order() {
    let try_it = [&NAMESPACE[..], &["true"]].concat();
    if !permitted("PID namespaces need root and unshare", &try_it) {
        return;
    }
    // The subshell ends and leaves its child to PID 1. A zombie would still be listed.
    let app = "orphan=$(tail -f /dev/null > /dev/null & echo $!)
        grep ^PPid /proc/$orphan/status
        kill $orphan
        while test -e /proc/$orphan; do sleep 0.01; done
        trap 'echo application says goodbye; exit' TERM
        echo orphan is gone
        while :; do sleep 0.01; done";
    let mut program =
        Setup::new().wrapped_in(&NAMESPACE).arguments(&["--", "sh", "-c", app]).start().await;
    program.says("orphan is gone").await;
    assert!(program.log().contains("PPid:\t1") || program.log().contains("PPid:\\t1"));
    let id = program.pid();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    send(Signal::TERM, children.trim().parse().unwrap());
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(program.log().contains("application says goodbye"));
}
