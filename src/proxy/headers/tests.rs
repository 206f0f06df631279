use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap()))
        .collect()
}

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

fn client(trust: Trust) -> ClientHeaders {
    ClientHeaders::new(trust, "::ffff:192.0.2.7".parse().unwrap(), LOCAL, false)
}

/// What an application sees of a request with these fields.
fn seen(trust: Trust, fields: &[(&str, &str)]) -> HeaderMap {
    let mut fields = headers(fields);
    let mut lines = RawHeaders::default();
    let found = clean(&mut fields, trust, &[]);
    if trust != Trust::Peer {
        client(trust).describe(&mut fields, found, &mut lines, &Trusted::loopback());
    }
    for line in str::from_utf8(lines.as_bytes()).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        let name: HeaderName = name.parse().unwrap();
        let before = fields.append(name, HeaderValue::from_str(value).unwrap());
        assert!(!before, "{line} is there twice");
    }
    fields
}

/// What is added to a request of a client that is not trusted.
const ADDED: [(&str, &str); 5] = [
    ("x-real-ip", "192.0.2.7"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-port", "8080"),
    ("x-forwarded-host", "a"),
];

#[test]
fn what_connection_names_goes_but_not_the_host() {
    let fields = seen(
        Trust::Peer,
        &[
            ("host", "a"),
            ("connection", "close, X-Private"),
            ("connection", "host, keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
            ("trailer", "x-sum"),
        ],
    );
    assert_eq!(fields, headers(&[("host", "a"), ("accept", "*/*"), ("trailer", "x-sum")]));
}

#[test]
fn connection_cannot_take_away_what_we_set() {
    let named = "x-forwarded-for, x-forwarded-host, litepilot-role";
    for trust in [Trust::Nobody, Trust::Proxy] {
        let fields = seen(
            trust,
            &[
                ("host", "a"),
                ("connection", named),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-host", "b"),
            ],
        );
        assert_eq!(fields[X_FORWARDED_FOR], "192.0.2.7");
        assert_eq!(fields[X_FORWARDED_HOST], "a");
    }
}

#[test]
fn framing_is_not_passed_on_but_what_it_said_is_known() {
    let mut fields = headers(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
    assert!(clean(&mut fields, Trust::Nobody, &[]).length);
    assert!(fields.is_empty(), "{fields:?}");
    let mut fields = headers(&[("te", "trailers")]);
    let found = clean(&mut fields, Trust::Nobody, &[]);
    assert!(found.trailers && !found.length && fields.is_empty());
    assert!(!clean(&mut headers(&[("te", "gzip")]), Trust::Nobody, &[]).trailers);
}

#[test]
fn a_client_cannot_speak_about_itself() {
    let fields = seen(
        Trust::Nobody,
        &[
            ("host", "a"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded-user", "admin"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("litepilot-role", "primary"),
            ("litepilot_role", "primary"),
            ("litepilot-txid", "0000000000000001"),
            ("fly-replay-src", "x"),
            ("fly_replay_src", "x"),
            ("content_length", "3"),
            ("transfer_encoding", "chunked"),
            ("x_custom", "kept"),
        ],
    );
    let kept = [("host", "a"), ("x_custom", "kept")];
    assert_eq!(fields, headers(&[&kept[..], &ADDED].concat()));
}

#[test]
fn a_host_that_is_missing_is_made_up_for() {
    let fields = seen(Trust::Nobody, &[]);
    assert_eq!(fields[HOST], "127.0.0.1:8080");
    assert_eq!(fields[X_FORWARDED_HOST], fields[HOST]);
}

#[test]
fn a_trusted_proxy_is_added_to() {
    let said = [
        ("host", "inner"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop"),
        ("x_forwarded_for", "9.9.9.9"),
        ("litepilot-role", "primary"),
    ];
    let fields = seen(Trust::Proxy, &said);
    assert_eq!(
        fields,
        headers(&[
            ("host", "inner"),
            ("x-forwarded-for", "1.2.3.4, 5.6.7.8, 192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "5.6.7.8"),
        ])
    );
}

#[test]
fn a_peer_has_said_it_all_but_what_this_node_is() {
    let said = [
        ("host", "a"),
        ("x-forwarded-for", "1.2.3.4"),
        ("litepilot-hops", "1"),
        ("litepilot-role", "replica"),
        ("litepilot-primary", "node-2"),
        ("fly-replay-src", "instance=n1"),
    ];
    let kept = [said[0], said[1], said[2], said[5]];
    assert_eq!(seen(Trust::Peer, &said), headers(&kept));
}

#[test]
fn only_a_trusted_proxy_says_that_there_was_tls() {
    let over_tls = |client: &ClientHeaders, proto: &str| {
        let mut fields = headers(&[("x-forwarded-proto", proto)]);
        let found = clean(&mut fields, client.trust(), &[]);
        client.over_tls(&fields, found)
    };
    assert!(over_tls(&client(Trust::Proxy), "https"));
    assert!(over_tls(&client(Trust::Proxy), "HTTPS, http"));
    assert!(!over_tls(&client(Trust::Proxy), "http"));
    assert!(!over_tls(&client(Trust::Nobody), "https"));
    let by_tls = ClientHeaders::new(Trust::Nobody, [127, 0, 0, 1].into(), LOCAL, true);
    assert!(over_tls(&by_tls, "http"));
}
