//! What it costs to classify a request with all bundled sets. It is done for every request.
#![allow(clippy::expect_used, reason = "a bench that cannot begin says why")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{ACCEPT, ACCEPT_ENCODING, COOKIE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use litepilot::rules::RuleSet;

/// What a browser sends.
fn browser() -> HeaderMap {
    let fields = [
        (HOST, "guestbook.example.com"),
        (USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (COOKIE, "sessionid=0123456789abcdef; __txid=00000000000000ff; __txid_epoch=3"),
    ];
    fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

fn classify(criterion: &mut Criterion) {
    let rules = RuleSet::load(&["django".into(), "static".into()]).expect("they are compiled in");
    let headers = browser();
    let mut group = criterion.benchmark_group("classify");
    for (name, method, target) in [
        ("read", Method::GET, "/blog/2026/11/a-post-of-mine/"),
        ("read with query", Method::GET, "/search/?q=sqlite&page=2&sort=date"),
        ("read near rules", Method::GET, "/accounts/google/settings/"),
        ("write", Method::POST, "/blog/2026/11/a-post-of-mine/comments/"),
        ("passthrough", Method::GET, "/static/css/site.4f2a91.css"),
        ("encoded", Method::GET, "/wiki/Caf%C3%A9_am_Rand%20der_Welt/"),
        ("hostile", Method::GET, "/static/..%2F%2e%2e/;v=1//\\admin%2flogout/"),
    ] {
        let uri: Uri = target.parse().expect("a valid target");
        let classify = || rules.classify(black_box(&method), black_box(&uri), black_box(&headers));
        // Expressions make their scratch space once per thread.
        classify().expect("no NUL");
        let allocations = allocation_counter::measure(|| _ = black_box(classify())).count_total;
        println!("classify/{name}: {allocations} allocations");
        group.bench_function(name, |bencher| bencher.iter(classify));
    }
    group.finish();
}

criterion_group!(benches, classify);
criterion_main!(benches);
