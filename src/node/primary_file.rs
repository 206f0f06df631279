//! `data_dir/.primary`, for scripts and applications, in LiteFS' format: the primary's name and a line
//! feed. As with LiteFS it is missing where this node is the primary or knows of none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::context::NodeContext;
use crate::cluster::{ClusterView, NodeId};
use crate::config::Config;
use crate::embedded::posfile::PrimaryFile;
use crate::files::on_disk;

/// Before a file that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Has the file kept, unless the engine does.
pub(crate) fn start(config: &Config, context: &NodeContext, tasks: &mut JoinSet<()>) {
    if config.data_dir != config.litefs.mount {
        tasks.spawn(publish(config.data_dir.clone(), context.view.clone()));
    }
}

/// Keeps the file in `data_dir` as the view is. Returns when nobody publishes one any more, or at once
/// if the file may not be there.
async fn publish(data_dir: PathBuf, mut views: watch::Receiver<ClusterView>) {
    let file = match PrimaryFile::new(&data_dir) {
        Ok(file) => Arc::new(file),
        Err(why) => return tracing::error!(%why, "data_dir/.primary is not written"),
    };
    // A failure is said once.
    let (mut published, mut failing) = (None, false);
    loop {
        let primary = elsewhere(&views.borrow_and_update());
        if published.as_ref() != Some(&primary) {
            let (file, wanted) = (file.clone(), primary.clone());
            // Off the control thread: a disk may be slow.
            let written = on_disk(move || file.set(wanted.as_ref())).await.flatten();
            match written {
                Ok(()) => (published, failing) = (Some(primary), false),
                Err(why) => {
                    if !failing {
                        tracing::error!(%why, "cannot write data_dir/.primary; trying again");
                    }
                    (published, failing) = (None, true);
                }
            }
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if failing => {}
        }
    }
}

/// What the file holds: another node that is the primary.
fn elsewhere(view: &ClusterView) -> Option<NodeId> {
    view.primary.as_ref().map(|primary| &primary.node).filter(|node| **node != view.node).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use std::path::Path;

    async fn becomes(file: &Path, text: Option<&str>) {
        let reached = async {
            while std::fs::read_to_string(file).ok().as_deref() != text {
                sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("the file to follow");
    }

    fn set_primary(view: &mut ClusterView, node: Option<&str>) {
        let single = ClusterView::single(view.node.clone(), Epoch(1));
        view.primary = node.and_then(|node| {
            let primary = single.primary?;
            Some(crate::cluster::Primary { node: node.parse().unwrap(), ..primary })
        });
    }

    #[tokio::test]
    async fn names_the_primary_where_that_is_another_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".primary");
        // Left behind by the last life.
        std::fs::write(&file, "long-gone\n").unwrap();
        let views = watch::Sender::new(ClusterView::single("here".parse().unwrap(), Epoch(1)));
        let published = tokio::spawn(publish(dir.path().to_owned(), views.subscribe()));
        becomes(&file, None).await;
        for (primary, text) in [
            (Some("b"), Some("b\n")),
            (Some("c"), Some("c\n")),
            (None, None),
            (Some("b"), Some("b\n")),
            (Some("here"), None),
        ] {
            views.send_modify(|view| set_primary(view, primary));
            becomes(&file, text).await;
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing else is left");
        drop(views);
        published.await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".primary");
        std::fs::create_dir(&file).unwrap();
        let views = watch::Sender::new(ClusterView::single("here".parse().unwrap(), Epoch(1)));
        views.send_modify(|view| set_primary(view, Some("b")));
        let published = tokio::spawn(publish(dir.path().to_owned(), views.subscribe()));
        becomes(&dir.path().join(".primary.new"), Some("b\n")).await;
        std::fs::remove_dir(&file).unwrap();
        becomes(&file, Some("b\n")).await;
        published.abort();
    }
}
