//! What is decided about a request: classify, find the token, route. A read whose token is satisfied
//! must not allocate, and looks at this node's position with one atomic load.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{COOKIE, HeaderMap, HeaderValue};
use http::{Method, Uri};
use litepilot::cluster::{ClusterView, Epoch, NodeId, Primary, Role};
use litepilot::config::Consistency;
use litepilot::position::PositionCell;
use litepilot::proxy::facts::{Progress, RequestFacts};
use litepilot::proxy::route::{Decision, Situation, decide};
use litepilot::proxy::token;
use litepilot::rules::{Class, RuleSet};
use litepilot::txid::{EpochTxid, Txid};
use tokio::time::Instant;

/// A read on a replica, with a token that the replica has reached, among a browser's other cookies.
struct Read {
    rules: RuleSet,
    view: ClusterView,
    position: PositionCell,
    uri: Uri,
    headers: HeaderMap,
    started: Instant,
}

impl Read {
    fn new() -> Self {
        let sources = ["django".to_owned(), "static".to_owned()];
        let rules = RuleSet::load(&sources).unwrap_or_else(|problems| panic!("{problems:?}"));
        let name = |name: &str| name.parse::<NodeId>().unwrap_or_else(|why| panic!("{why}"));
        let primary = Primary {
            node: name("node-1"),
            epoch: Epoch(3),
            since: std::time::SystemTime::UNIX_EPOCH,
        };
        let view = ClusterView {
            node: name("node-2"),
            role: Role::Replica,
            primary: Some(primary),
            writable: false,
            claim: litepilot::claim::Claim::none(),
            elected: true,
            starts: [].into(),
            quorum: true,
            no_primary: None,
        };
        let position = PositionCell::default();
        position.advance(EpochTxid { epoch: Epoch(3), txid: Txid(0x200) });
        let mut headers = HeaderMap::new();
        let cookies =
            "sessionid=0123456789abcdef; __txid=00000000000001ff; __txid_epoch=3; theme=dark";
        headers.insert(COOKIE, HeaderValue::from_static(cookies));
        Self {
            rules,
            view,
            position,
            uri: Uri::from_static("/entries/17?page=2"),
            headers,
            started: Instant::now(),
        }
    }

    fn decide(&self) -> Decision {
        let verdict = self.rules.classify(&Method::GET, &self.uri, &self.headers);
        let verdict = verdict.unwrap_or_else(|why| panic!("{why}"));
        let found = token::find(&self.headers, false);
        let consistency = verdict.consistency.unwrap_or(Consistency::ReadYourWrites);
        let facts = RequestFacts::plain(verdict.class, consistency, found.token, self.started);
        decide(&facts, &Progress::default(), &self.situation())
    }

    fn situation(&self) -> Situation<'_> {
        let (takes_writes, position) = (self.view.takes_writes(), self.position.get());
        Situation { view: &self.view, takes_writes, position, app_is_up: true }
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
    let token = token::find(&read.headers, false).token;
    let facts = RequestFacts::plain(Class::Read, Consistency::ReadYourWrites, token, read.started);
    let progress = Progress::default();
    criterion.bench_function("route", |b| {
        b.iter(|| black_box(decide(black_box(&facts), &progress, &read.situation())));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
