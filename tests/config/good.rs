//! What good files mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use litepilot::config::litefs_yml::Setting;
use litepilot::config::{
    Ack, Config, Consistency, Election, EngineKind, HostPort, LogFormat, SameSite, Secure, Target,
};

use super::{minimal, parse, reference};

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn the_reference_gives_every_default() {
    assert_eq!(good(reference()), good(&minimal("")));
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let config = good(&minimal(""));
    assert_eq!(config.node.as_str(), "node-1");
    assert_eq!(config.shutdown_timeout, Duration::from_secs(45));
    assert_eq!(config.proxy.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.proxy.consistency, Consistency::ReadYourWrites);
    assert_eq!(config.proxy.read_wait, Duration::from_millis(250));
    assert_eq!(config.proxy.buffer_body, 65536);
    assert!(config.proxy.trusted.contains("::1".parse().unwrap()));
    assert!(!config.proxy.trusted.contains("10.0.0.1".parse().unwrap()));
    assert_eq!(config.proxy.cookie.same_site, SameSite::Lax);
    assert_eq!(config.proxy.cookie.secure, Secure::Auto);
    assert_eq!(config.cluster.election, Election::Single);
    assert_eq!(config.cluster.lease_ttl, Duration::from_secs(2));
    assert_eq!(config.cluster.ack, Ack::Primary);
    assert_eq!(config.litefs.engine, EngineKind::Litefs);
    assert_eq!(config.litefs.binary, Path::new("litefs"));
    assert_eq!(config.litefs.mount, Path::new("/litefs"));
    assert_eq!(config.litefs.http, "127.0.0.1:20202".parse().unwrap());
    assert_eq!(config.app.grace, Duration::from_secs(30));
    assert_eq!(config.admin.hosts, ["localhost", "127.0.0.1"]);
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(!config.log.access.any());
}

#[test]
fn a_backup_needs_a_place_and_nothing_else() {
    assert_eq!(good(&minimal("")).backup, None);
    let short = good(&minimal("backup: {url: 'file:///b/'}")).backup;
    let whole = "backup: {url: 'file:///b', listen: '127.0.0.1:20204', retention: 168h, \
                 snapshot_interval: 24h, precision: 24h}";
    assert!(short.is_some());
    assert_eq!(short, good(&minimal(whole)).backup);
}

/// Every value of the reference differs here, so that a key that is read but dropped shows.
#[test]
fn every_key_is_honored() {
    let mut changed = good(include_str!("changed.yml"));
    // Not beside litefs.extra.backup, which is changed there.
    changed.backup = good(&minimal("backup: {url: 'file:///b'}")).backup;
    let default = good(&minimal(""));
    let (changed, default) = (format!("{changed:#?}"), format!("{default:#?}"));
    let same: Vec<_> = changed
        .lines()
        .filter(|line| line.contains(": ") && line.ends_with(','))
        .filter(|line| default.lines().any(|other| other == *line))
        .collect();
    assert!(same.is_empty(), "{same:#?}");
}

#[test]
fn a_cluster_of_three() {
    let config = good(&minimal(
        "cluster:
  peers: {node-2: 'b:4321', node-1: 'a:4321', node-3: 'c:4321'}
  witnesses: [node-3]
  insecure: true
",
    ));
    let cluster = config.cluster;
    assert_eq!(cluster.election, Election::Raft);
    let own = HostPort { host: "a".to_owned(), port: 4321 };
    assert_eq!(cluster.peers[0].1, own);
    let names: Vec<_> = cluster.peers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["node-1", "node-2", "node-3"]);
    assert!(cluster.candidate);
}

#[test]
fn a_witness_is_no_candidate() {
    let text = "node: c\ncluster: {peers: {a: 'localhost:1', c: 'localhost:2'}, witnesses: [c]}\n";
    assert!(!good(&minimal(text)).cluster.candidate);
}

#[test]
fn loopback_peers_need_no_certificates() {
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let text = format!("peers: {{node-1: '{host}:1', node-2: '{host}:2'}}");
        let cluster = good(&minimal(&format!("cluster: {{{text}}}"))).cluster;
        assert_eq!(cluster.tls, None);
        // Nobody else can connect, unless that is wanted.
        assert!(cluster.listen.ip().is_loopback());
        for open in ["insecure: true", "tls: {ca: /a, cert: /b, key: /c}"] {
            let cluster = good(&minimal(&format!("cluster: {{{text}, {open}}}"))).cluster;
            assert!(cluster.listen.ip().is_unspecified());
        }
    }
}

#[test]
fn an_external_litefs_gets_a_longer_lease() {
    let config = good(&minimal("litefs: {engine: external}"));
    assert_eq!(config.cluster.lease_ttl, Duration::from_secs(3));
}

#[test]
fn relative_paths_start_at_the_file() {
    let text = b"data_dir: d\nproxy: {target: ':1', db: a.db, rules: [django, r/a.yml], tls: {cert: c, key: /k}}";
    let config = Config::from_yaml("/etc/x/litepilot.yml", text, &super::env).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/x/d"));
    assert_eq!(config.proxy.rules, ["django", "/etc/x/r/a.yml"]);
    let pair = &config.proxy.tls.unwrap().0[0];
    assert_eq!((pair.cert.clone(), pair.key.clone()), (PathBuf::from("/etc/x/c"), "/k".into()));
    assert_eq!(config.proxy.target, Target::Tcp(HostPort { host: "127.0.0.1".into(), port: 1 }));
}

#[test]
fn several_certificates_serve_several_names() {
    let text = "proxy:
  target: unix:/run/app.sock
  db: db
  tls:
    - {cert: /a.pem, key: /a.key}
    - {cert: /b.pem, key: /b.key}
";
    let config = good(text);
    assert_eq!(config.proxy.tls.unwrap().0.len(), 2);
    assert_eq!(config.proxy.target, Target::Unix("/run/app.sock".into()));
}

#[test]
fn numbers_are_words_where_words_are_wanted() {
    let config =
        good(&minimal("app: {command: [gunicorn, -w, 4, 0700], user: 1000}\nadmin: {token: 007}"));
    assert_eq!(config.app.command, ["gunicorn", "-w", "4", "0700"]);
    assert_eq!(config.app.user.as_deref(), Some("1000"));
    assert_eq!(config.admin.token.as_deref(), Some("007"));
}

#[test]
fn variables_may_be_numbers_durations_booleans_and_nothing() {
    let config = good(
        "proxy:
  target: ${HOST:-localhost}:80${N}
  db: db
  max_connections: ${N}
  read_wait: ${N}s
  cookie: {domain: '${DOMAIN:-example.org}'}
cluster:
  insecure: ${YES}
  ack: ${EMPTY}
",
    );
    assert_eq!(config.proxy.max_connections, 8);
    assert_eq!(config.proxy.read_wait, Duration::from_secs(8));
    assert_eq!(config.proxy.target.to_string(), "localhost:808");
    assert_eq!(config.proxy.cookie.domain.as_deref(), Some("example.org"));
    assert!(config.cluster.insecure);
    assert_eq!(config.cluster.ack, Ack::Primary);
}

#[test]
fn the_name_comes_from_the_environment_if_not_from_the_file() {
    let node = |text: &str, variables: &'static [(&str, &str)]| {
        let env = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Config::from_yaml("f", minimal(text).as_bytes(), &env).unwrap().node.to_string()
    };
    let both = &[("LITEPILOT_NODE", "a"), ("LITEFS_NODE_ID", "b")];
    assert_eq!(node("node: c", both), "c");
    assert_eq!(node("", both), "a");
    assert_eq!(node("", &[("LITEPILOT_NODE", ""), ("LITEFS_NODE_ID", "b")]), "b");
}

#[test]
fn extra_keys_are_those_of_litefs() {
    let text = "litefs: {extra: {strict-verify: yes, tracing: {path: /t, max-size: 8}}}";
    let extra = good(&minimal(text)).litefs.extra;
    assert_eq!(extra.strict_verify, Some(Setting::Is(true)));
    assert_eq!(extra.tracing.path.as_deref(), Some("/t"));
    assert_eq!(extra.tracing.max_size, Some(Setting::Is(8)));
}
