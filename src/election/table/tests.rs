use super::*;
use crate::txid::{Position, Txid};
use proptest::prelude::*;

fn holder(node: &str, epoch: u64) -> Holder {
    Holder {
        node: node.parse().unwrap(),
        session: Session(format!("{node}-{epoch}")),
        epoch: Epoch(epoch),
    }
}

fn opened(start: EpochStart) -> Command {
    Command::Opened(Opening {
        start,
        revision: 0,
        electorates: None,
        unheard: vec![],
        promised: false,
    })
}

fn is_done(table: &mut Table, command: Command) -> bool {
    table.apply(command, Term(1)) == Applied::Done
}

#[test]
fn older_nodes_read_who_holds_the_lease_and_are_read() {
    let wire = serde_json::json!({
        "node": "a", "session": "a-2", "hostname": "", "advertise": "", "epoch": 2,
    });
    assert_eq!(serde_json::to_value(holder("a", 2)).unwrap(), wire);
    assert_eq!(serde_json::from_value::<Holder>(wire).unwrap(), holder("a", 2));
}

#[test]
fn a_epoch_from_grant_to_vacancy() {
    let table = &mut Table::default();
    assert!(is_done(table, Command::Acquire(holder("a", 1))));
    assert!(!is_done(table, Command::Acquire(holder("b", 2))), "it is held");
    assert_eq!(table.primary(), None, "not opened yet");
    let start = EpochStart { epoch: Epoch(1), held: Position::default() };
    assert!(is_done(table, opened(start)));
    assert_eq!(table.primary(), Some(&holder("a", 1)));
    assert!(is_done(table, Command::Release { epoch: Epoch(1) }));
    assert!(!is_done(table, Command::Acquire(holder("a", 1))), "an epoch is granted once");
    assert!(is_done(table, Command::Acquire(holder("b", 2))));
    assert!(is_done(table, Command::Release { epoch: Epoch(1) }), "done long ago");
    assert_eq!(table.holder, Some(holder("b", 2)), "a late release ends no other epoch");
    assert!(!is_done(table, opened(start)) || table.start_of(Epoch(2)).is_none());
}

#[test]
fn an_expiry_of_another_leader_is_void() {
    let table = &mut Table::default();
    assert!(is_done(table, Command::Acquire(holder("a", 1))));
    let expire = |term| Command::Expire { epoch: Epoch(1), term: Term(term) };
    assert!(!is_done(table, expire(2)));
    assert!(table.holder.is_some());
    assert!(is_done(table, expire(1)));
    assert_eq!(table.holder, None);
}

#[test]
fn a_lease_is_handed_over_without_a_gap() {
    let table = &mut Table::default();
    assert!(!is_done(table, Command::HandOver(holder("b", 1))), "nobody holds it");
    assert!(is_done(table, Command::Acquire(holder("a", 1))));
    assert!(is_done(table, Command::HandOver(holder("b", 2))));
    assert!(!is_done(table, Command::HandOver(holder("c", 2))), "too late");
    assert_eq!(table.holder, Some(holder("b", 2)));
}

fn at(epoch: u64, txid: u64) -> EpochTxid {
    EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
}

#[test]
fn what_was_done_once_is_kept_and_bounded() {
    let table = &mut Table::default();
    let once = |key: usize| Command::Once { key: key.to_string(), at: at(1, 5) };
    assert!(!is_done(table, once(0)), "nobody holds the lease");
    assert!(is_done(table, Command::Acquire(holder("a", 1))));
    for key in 0..2 * KEYS {
        assert!(is_done(table, once(key)));
    }
    assert!(!table.was_done("0") && table.was_done(&(2 * KEYS - 1).to_string()));
    assert_eq!(table.once.len(), KEYS);
    assert!(is_done(table, once(KEYS + 1)));
    assert_eq!(table.once.len(), KEYS);
}

#[test]
fn what_a_failover_has_lost_was_not_done() {
    let table = &mut Table::default();
    let once = |key: &str, at| Command::Once { key: key.to_owned(), at };
    assert!(is_done(table, Command::Acquire(holder("a", 1))));
    assert!(is_done(table, once("kept", at(1, 5))) && is_done(table, once("lost", at(1, 6))));
    assert!(is_done(table, Command::HandOver(holder("b", 2))));
    let held = Position { at: at(1, 5), ..Position::default() };
    assert!(is_done(table, opened(EpochStart { epoch: Epoch(2), held })));
    assert!(table.was_done("kept") && !table.was_done("lost"));
    assert!(is_done(table, once("lost", at(2, 7))));
    assert!(table.was_done("lost"));
}

#[test]
fn what_a_second_failover_has_lost_was_not_done_either() {
    let table = &mut Table::default();
    let begins = |table: &mut Table, epoch, with| {
        assert!(is_done(table, Command::Acquire(holder("a", epoch))));
        let held = Position { at: with, ..Position::default() };
        assert!(is_done(table, opened(EpochStart { epoch: Epoch(epoch), held })));
    };
    begins(table, 1, at(0, 0));
    let once = |key: &str, at| Command::Once { key: key.to_owned(), at };
    assert!(is_done(table, once("kept", at(1, 5))) && is_done(table, once("lost", at(1, 6))));
    assert!(is_done(table, Command::Release { epoch: Epoch(1) }));
    begins(table, 2, at(1, 7));
    assert!(table.was_done("lost"), "the second epoch has it");
    assert!(is_done(table, Command::Release { epoch: Epoch(2) }));
    begins(table, 3, at(1, 5));
    assert!(table.was_done("kept") && !table.was_done("lost"));
}

#[test]
fn older_nodes_read_where_an_epoch_began_and_are_read() {
    let start = EpochStart { epoch: Epoch(2), held: Position::default() };
    let wire = serde_json::to_value(Command::Opened(Opening {
        start,
        revision: 1,
        electorates: Some(vec![vec!["a".parse().unwrap()]]),
        unheard: vec!["a".parse().unwrap()],
        promised: true,
    }));
    let old = serde_json::from_value::<EpochStart>(wire.unwrap()["opened"].clone());
    assert_eq!(old.unwrap(), start);
    let old = serde_json::json!({ "opened": start });
    assert_eq!(serde_json::from_value::<Command>(old).unwrap(), opened(start));
}

/// Its log is of a build that kept only where the epoch began.
#[test]
fn said_once_more_who_counts_is_the_same_on_a_node_of_a_former_build() {
    let nodes = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
    let start = EpochStart { epoch: Epoch(1), held: Position::default() };
    let say = |revision| Opening {
        start,
        revision,
        electorates: Some(vec![nodes(&["a", "b"])]),
        unheard: nodes(&["b"]),
        promised: true,
    };
    let (mut new, mut upgraded) = (Table::default(), Table::default());
    for (table, opening) in [(&mut new, Command::Opened(say(3))), (&mut upgraded, opened(start))] {
        assert!(is_done(table, Command::Acquire(holder("a", 1))) && is_done(table, opening));
    }
    assert_ne!(new, upgraded);
    for table in [&mut new, &mut upgraded] {
        assert!(is_done(table, Command::Opened(say(4))));
    }
    assert_eq!(new, upgraded);
}

#[test]
fn who_counts_is_the_holders_to_say_and_what_comes_late_changes_nothing() {
    let table = &mut Table::default();
    let say = |epoch, revision, names: &[&str], promised| {
        let start = EpochStart { epoch: Epoch(epoch), held: Position::default() };
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        Command::Opened(Opening {
            start,
            revision,
            electorates: Some(vec![names]),
            unheard: vec![],
            promised,
        })
    };
    let now = |table: &Table| {
        let names = table.electorates[0].iter().map(NodeId::as_str);
        names.collect::<Vec<_>>().join("")
    };
    assert!(is_done(table, Command::Acquire(holder("a", 1))));
    assert!(is_done(table, say(1, 1, &["a", "b", "c"], false)));
    assert!(is_done(table, say(1, 2, &["a", "b"], false)));
    assert!(!is_done(table, say(1, 1, &["a", "b", "c"], false)) && now(table) == "ab");
    assert_eq!(table.promised, Epoch(0));
    assert!(is_done(table, say(1, 2, &["a", "b"], true)) && table.promised == Epoch(1));
    assert!(is_done(table, Command::HandOver(holder("b", 2))));
    assert!(!is_done(table, say(1, 3, &["a"], true)), "its epoch is over");
    let start = EpochStart { epoch: Epoch(2), held: Position::default() };
    assert!(is_done(table, opened(start)) && now(table) == "ab", "as before");
    assert!(is_done(table, say(2, 1, &["b"], false)) && now(table) == "b");
    assert_eq!(table.promised, Epoch(1), "nothing was promised in this one");
}

#[test]
fn litefs_id_and_generations_only_move_on() {
    let table = &mut Table::default();
    let id = |id: &str| Command::SetLitefsId { id: id.to_owned() };
    assert!(is_done(table, id("one")) && is_done(table, id("one")));
    assert!(!is_done(table, id("two")));
    assert!(is_done(table, Command::ResetLitefsId) && is_done(table, id("two")));
    let node: NodeId = "a".parse().unwrap();
    let outdate = |generation| Command::Outdate { node: node.clone(), generation };
    assert!(is_done(table, outdate(0)) && is_done(table, outdate(0)));
    assert_eq!(table.generation(&node), 1);
}

fn any_command() -> impl Strategy<Value = Command> {
    let epoch = || (0u64..6).prop_map(Epoch);
    let any_holder = || ("[abc]", 0u64..6).prop_map(|(node, epoch)| holder(&node, epoch));
    prop_oneof![
        any_holder().prop_map(Command::Acquire),
        any_holder().prop_map(Command::HandOver),
        epoch().prop_map(|epoch| Command::Release { epoch }),
        (epoch(), 0u64..3).prop_map(|(epoch, t)| Command::Expire { epoch, term: Term(t) }),
        (epoch(), 0u64..3, proptest::option::of("[ab]"), any::<(bool, bool)>()).prop_map(
            |(epoch, revision, who, (early, promised))| {
                let start = EpochStart { epoch, held: Position::default() };
                let who = who.map(|who| vec![who.parse().unwrap()]);
                let unheard = who.clone().filter(|_| early).unwrap_or_default();
                let electorates = who.map(|who| vec![who]);
                Command::Opened(Opening { start, revision, electorates, unheard, promised })
            }
        ),
    ]
}

proptest! {
    /// Whatever arrives in whatever order: an epoch has one holder, epochs grow one by one, and a
    /// command that is applied twice in a row changes nothing the second time.
    #[test]
    fn epochs_have_one_holder_each(
        commands in proptest::collection::vec((any_command(), 0u64..3), 0..60)
    ) {
        let mut table = Table::default();
        let mut granted: BTreeMap<Epoch, Holder> = BTreeMap::new();
        for (command, term) in commands {
            let before = table.clone();
            let outcome = table.apply(command.clone(), Term(term));
            if outcome != Applied::Done {
                prop_assert_eq!(&table, &before, "{:?} was void", command);
            }
            prop_assert!(table.last_epoch == before.last_epoch
                || table.last_epoch.0 == before.last_epoch.0 + 1);
            if let Some(holder) = &table.holder {
                prop_assert_eq!(holder.epoch, table.last_epoch);
                let first = granted.entry(holder.epoch).or_insert_with(|| holder.clone());
                prop_assert_eq!(&*first, holder);
            }
            let once = table.clone();
            table.apply(command, Term(term));
            prop_assert_eq!(&table, &once, "applied twice");
        }
    }
}
