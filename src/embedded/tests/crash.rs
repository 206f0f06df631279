//! A primary and its replica, killed at any moment: what was said of a copy holds afterwards.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command as Process, Stdio};

use super::harness::*;

fn say(line: &str) {
    // In one piece: the process may end at any moment.
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Not a test of its own: the process that [`killed_at_any_moment`] kills.
#[tokio::test]
#[ignore = "a helper of another test"]
async fn helper_leads_until_it_is_killed() {
    let var = |name| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let (Some(primary), Some(replica), Some(epoch)) =
        (var("LITEPILOT_PRIMARY"), var("LITEPILOT_REPLICA"), var("LITEPILOT_EPOCH"))
    else {
        return;
    };
    let node = |dir| Node::at(Path::new(dir), CopyRole::Replica);
    let (primary, replica) = (node(&primary), node(&replica));
    primary.engine.become_primary(Epoch(epoch.parse().unwrap())).await.unwrap();
    let app = primary.app(&var("LITEPILOT_MODE").unwrap());
    let _link = Joined::telling(&primary, &replica, |position| {
        say(&format!("applied {} {}", position.at.txid, position.checksum));
    });
    loop {
        insert(&app);
        let position = primary.now().await;
        say(&format!("given {} {}", position.txid, primary.count()));
        tokio::time::sleep(Duration::from_micros(position.txid.0 % 7 * 2_000)).await;
    }
}

/// What the helper said last.
#[derive(Default)]
struct Said {
    given: Txid,
    rows: i64,
    applied: Option<(Txid, String)>,
}

/// Runs the helper until replicas have acknowledged something, and a little longer.
fn lead_and_be_killed(primary: &Path, replica: &Path, epoch: u64, mode: &str) -> Said {
    let mut helper = Process::new(std::env::current_exe().unwrap())
        .args([
            "embedded::tests::crash::helper_leads_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("LITEPILOT_PRIMARY", primary)
        .env("LITEPILOT_REPLICA", replica)
        .env("LITEPILOT_EPOCH", epoch.to_string())
        .env("LITEPILOT_MODE", mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let begun = lines.by_ref().filter(|line| line.starts_with("applied")).take(5).count();
    assert_eq!(begun, 5, "the helper works");
    // Where does not matter, but not always at the same place.
    std::thread::sleep(Duration::from_micros(epoch * 3_700 % 30_000));
    helper.kill().unwrap();
    let mut said = Said::default();
    // Those of the beginning are superseded by these, which were still on their way.
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["given", txid, rows] => {
                (said.given, said.rows) = (txid.parse().unwrap(), rows.parse().unwrap());
            }
            ["applied", txid, checksum] => {
                said.applied = Some((txid.parse().unwrap(), checksum.to_owned()));
            }
            _ => {}
        }
    }
    helper.wait().unwrap();
    said
}

#[tokio::test]
async fn killed_at_any_moment() {
    for mode in MODES {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut lost = 0;
        for epoch in 1..=10 {
            // The other one each time, however far it is.
            let (old, new) = (dirs[epoch % 2].path(), dirs[(epoch + 1) % 2].path());
            let epoch = u64::try_from(epoch).unwrap();
            let said = lead_and_be_killed(old, new, epoch, mode);
            let (primary, replica) =
                (Node::at(old, CopyRole::Replica), Node::at(new, CopyRole::Replica));
            let (was, is) = (primary.held().await, replica.held().await);
            let context = format!("{mode}, epoch {epoch}: {was:?}, {is:?}");
            assert_eq!(was.position.at.epoch, Epoch(epoch), "{context}");
            assert!(was.position.at.txid >= said.given, "{} given; {context}", said.given);
            assert!(primary.count() >= said.rows, "{} written; {context}", said.rows);
            assert!(was.position.at >= is.position.at, "{context}");
            let reader = replica.connect();
            let sound: String =
                reader.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
            assert_eq!(sound, "ok", "{context}");
            assert!(reader.execute("DELETE FROM t", ()).is_err(), "{context}");
            drop(reader);
            assert_eq!(is.position.at.epoch, Epoch(epoch), "{context}");
            let equal = primary.count() == replica.count();
            assert_eq!(was.position.checksum == is.position.checksum, equal, "{context}");
            if let Some((txid, checksum)) = said.applied {
                assert!(is.position.at.txid >= txid, "{txid} acknowledged; {context}");
                let same = is.position.at.txid == txid;
                assert!(!same || is.position.checksum.to_string() == checksum, "{context}");
            }
            // Now the replica leads. What it lacks is saved; what it has is not.
            let (rows, lacks) = (primary.count(), primary.count() > replica.count());
            let before = primary.archived().len();
            assert_eq!(replica.engine.become_primary(Epoch(epoch + 1)).await.unwrap(), is.position);
            let _link = Joined::new(&replica, &primary);
            replica_is_level(&replica, &primary).await;
            let saved = primary.archived();
            assert_eq!(saved.len() > before || saved.len() == 3, lacks || before == 3, "{context}");
            if lacks {
                lost += 1;
                let last = Connection::open(saved.last().unwrap()).unwrap();
                let kept: i64 = last.query_row("SELECT count(*) FROM t", (), |r| r.get(0)).unwrap();
                assert_eq!(kept, rows, "{context}");
            }
            // Links may hold on to them for a moment.
            primary.engine.stop();
            replica.engine.stop();
        }
        println!("{mode}: {lost} of 10 epochs ended with something that only their primary had");
    }
}
