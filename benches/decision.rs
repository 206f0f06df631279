//! What is decided about a request: classify, find the token, route. A read whose token is satisfied
//! must not allocate, and looks at this node's position with one atomic load.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{COOKIE, HeaderMap, HeaderValue};
use http::{Method, Uri};
use litepilot::cluster::{ClusterView, Epoch, NodeId, Primary, Role};
use litepilot::config::Consistency;
use litepilot::position::PositionCell;
use litepilot::proxy::route::{Ask, Decision, decide};
use litepilot::proxy::token;
use litepilot::rules::RuleSet;
use litepilot::txid::{EpochTxid, Txid};

/// A read on a replica, with a token that the replica has reached, among a browser's other cookies.
struct Read {
    rules: RuleSet,
    view: ClusterView,
    position: PositionCell,
    uri: Uri,
    headers: HeaderMap,
}

impl Read {
    fn new() -> Self {
        let sources = ["django".to_owned(), "static".to_owned()];
        let rules = RuleSet::load(&sources).unwrap_or_else(|problems| panic!("{problems:?}"));
        let name = |name: &str| name.parse::<NodeId>().unwrap_or_else(|why| panic!("{why}"));
        let reign = Primary {
            node: name("node-1"),
            epoch: Epoch(3),
            since: std::time::SystemTime::UNIX_EPOCH,
        };
        let view = ClusterView {
            node: name("node-2"),
            role: Role::Replica,
            primary: Some(reign),
            writable: false,
            claim: litepilot::claim::Claim::none(),
            elected: true,
            starts: [].into(),
            quorum: true,
        };
        let position = PositionCell::default();
        position.advance(EpochTxid { epoch: Epoch(3), txid: Txid(0x200) });
        let mut headers = HeaderMap::new();
        let cookies =
            "sessionid=0123456789abcdef; __txid=00000000000001ff; __txid_epoch=3; theme=dark";
        headers.insert(COOKIE, HeaderValue::from_static(cookies));
        Self { rules, view, position, uri: Uri::from_static("/entries/17?page=2"), headers }
    }

    fn decide(&self) -> Decision {
        let verdict = self.rules.classify(&Method::GET, &self.uri, &self.headers);
        let verdict = verdict.unwrap_or_else(|why| panic!("{why}"));
        let found = token::find(&self.headers, false);
        let ask = Ask {
            class: verdict.class,
            consistency: verdict.consistency.unwrap_or(Consistency::ReadYourWrites),
            token: found.token,
        };
        decide(&ask, &self.view, self.view.takes_writes(), self.position.get())
    }
}

fn bench(criterion: &mut Criterion) {
    let read = Read::new();
    assert_eq!(read.decide(), Decision::Local);
    let counted = allocation_counter::measure(|| _ = black_box(read.decide()));
    println!("allocations for a read whose token is satisfied: {}", counted.count_total);
    assert_eq!(counted.count_total, 0, "a read whose token is satisfied must not allocate");

    criterion.bench_function("classify, token, route", |b| b.iter(|| black_box(read.decide())));
    criterion.bench_function("token", |b| b.iter(|| black_box(token::find(&read.headers, false))));
    let view = &read.view;
    let ask = Ask {
        class: litepilot::rules::Class::Read,
        consistency: Consistency::ReadYourWrites,
        token: token::find(&read.headers, false).token,
    };
    criterion.bench_function("route", |b| {
        b.iter(|| {
            let takes_writes = view.takes_writes();
            black_box(decide(black_box(&ask), view, takes_writes, read.position.get()))
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
