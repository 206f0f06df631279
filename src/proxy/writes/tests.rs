use super::*;
use crate::claim::Claim;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;
use tokio::time::timeout;

const EPOCH: Epoch = Epoch(3);

fn primary() -> ClusterView {
    ClusterView::single("me".parse().unwrap(), EPOCH)
}

#[test]
fn a_write_that_came_and_went_is_noticed() {
    let writes = Arc::<Writes>::default();
    let (_sender, view) = watch::channel(primary());
    let before = writes.quiet();
    assert_eq!(before, Some(0));
    let write = writes.enter(&view, EPOCH);
    assert_eq!(writes.quiet(), None);
    drop(write);
    assert!(writes.quiet().is_some() && writes.quiet() != before);
}

#[test]
fn only_the_primary_of_that_epoch_with_a_valid_claim_enters() {
    let writes = Arc::<Writes>::default();
    let enter = |view| writes.enter(&watch::channel(view).1, EPOCH).is_some();
    assert!(enter(primary()));
    assert!(!enter(ClusterView { writable: false, ..primary() }));
    assert!(!enter(ClusterView { claim: Claim::none(), ..primary() }));
    assert!(!enter(ClusterView::single("me".parse().unwrap(), Epoch(4))));
    assert_eq!(writes.count.load(SeqCst), 0);
}

#[tokio::test]
async fn the_last_one_to_end_is_waited_for() {
    let writes = Arc::<Writes>::default();
    let (_sender, view) = watch::channel(primary());
    writes.none_under_way().await;
    let [one, two] = [0, 1].map(|_| writes.enter(&view, EPOCH).unwrap());
    let waiting = tokio::spawn({
        let writes = writes.clone();
        async move { writes.none_under_way().await }
    });
    drop(one);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(two);
    timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
}

/// Threads enter as fast as they can while the view is closed and opened: after a closed view
/// found none under way, none is until it is opened again.
#[tokio::test]
async fn none_slips_in_after_the_view_was_closed() {
    let writes = Arc::<Writes>::default();
    let (sender, view) = watch::channel(primary());
    let [quiet, over] = [0, 1].map(|_| Arc::new(AtomicBool::new(false)));
    let entered = Arc::new(AtomicUsize::new(0));
    let threads = [0, 1].map(|_| {
        let (writes, view, entered) = (writes.clone(), view.clone(), entered.clone());
        let (quiet, over) = (quiet.clone(), over.clone());
        thread::spawn(move || {
            let mut slipped = 0;
            while !over.load(SeqCst) {
                if let Some(_under_way) = writes.enter(&view, EPOCH) {
                    entered.fetch_add(1, SeqCst);
                    slipped += usize::from(quiet.load(SeqCst));
                } else {
                    thread::yield_now();
                }
            }
            slipped
        })
    });
    for _ in 0..1_000 {
        let before = entered.load(SeqCst);
        while entered.load(SeqCst) == before {
            thread::yield_now();
        }
        sender.send_modify(|view| view.writable = false);
        timeout(Duration::from_secs(20), writes.none_under_way()).await.unwrap();
        quiet.store(true, SeqCst);
        thread::yield_now();
        quiet.store(false, SeqCst);
        sender.send_modify(|view| view.writable = true);
    }
    over.store(true, SeqCst);
    let slipped: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(slipped, 0, "writes although none were to be");
}
