use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn good(text: &str) -> (LitefsYml, Variables) {
    LitefsYml::parse("litefs.yml", text.as_bytes()).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let problems = LitefsYml::parse("litefs.yml", text.as_bytes()).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_as_users_write_it() {
    let (litefs, variables) = good(
        "
# Comments may hold $VARIABLES too.
fuse: {dir: /litefs, allow-other: yes}
data: {dir: '/var/lib/litefs', retention: 10m}
exec:
  - cmd: \"migrate --now\"
    if-candidate: true
  - cmd: node server.js
proxy:
  addr: \":8080\"
  passthrough: [\"*.png\", \"/debug/*\"]
lease:
  type: consul
  candidate: ${FLY_REGION == PRIMARY_REGION}
  advertise-url: http://${HOSTNAME}.vm.${FLY_APP_NAME}.internal:20202
  consul: {url: '${FLY_CONSUL_URL}', key: litefs/$FLY_APP_NAME, ttl: 1.5s}
",
    );
    assert_eq!(litefs.fuse.allow_other, Some(Setting::Is(true)));
    assert_eq!(litefs.data.retention, Some(Setting::Is(Duration::from_secs(600))));
    assert_eq!(litefs.exec.len(), 2);
    assert_eq!(litefs.exec[0].if_candidate, Some(Setting::Is(true)));
    assert_eq!(litefs.exec[1].cmd, "node server.js");
    assert_eq!(litefs.proxy.passthrough, ["*.png", "/debug/*"]);
    assert_eq!(litefs.lease.consul.ttl, Some(Setting::Is(Duration::from_millis(1500))));
    let Some(Setting::Depends(candidate)) = &litefs.lease.candidate else { panic!() };
    assert_eq!(variables.as_written(candidate), "${FLY_REGION == PRIMARY_REGION}");
    let url = litefs.lease.advertise_url.unwrap();
    let expected = "http://${HOSTNAME}.vm.${FLY_APP_NAME}.internal:20202";
    assert_eq!(variables.as_written(&url), expected);
}

#[test]
fn one_command_needs_no_list() {
    let (litefs, variables) = good("exec: \"myapp -addr :${PORT}\"");
    assert_eq!(variables.as_written(&litefs.exec[0].cmd), "myapp -addr :${PORT}");
}

#[test]
fn what_litefs_refuses_is_refused_with_its_place() {
    for (text, expected) in [
        ("fues: {}", "litefs.yml:1:1: fues: unknown key: did you mean fuse?"),
        ("fuse: {dri: /a}", "litefs.yml:1:8: fuse.dri: unknown key: did you mean dir?"),
        ("data: {retention: 10}", "data.retention: the number 10 where a duration"),
        ("lease: {candidate: maybe}", "lease.candidate: the text \"maybe\" where true or false"),
        ("lease: {candidate: \"true\"}", "where true or false"),
        ("exec: [{command: x}]", "exec.command: unknown key"),
        ("tracing: {max-size: -1}", "where a whole number"),
        ("a: [", "not YAML"),
    ] {
        let problems = problems(text);
        assert!(problems[0].contains(expected), "{text}: {problems:?}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = problems(
        "fues: {}\nlease: {candidate: 5, consul: {tll: 1s}}\nexec: [{cmd: x}, {cmb: y}]\nproxy: a",
    );
    assert_eq!(
        problems,
        [
            "litefs.yml:1:1: fues: unknown key: did you mean fuse?",
            "litefs.yml:2:20: lease.candidate: the number 5 where true or false is expected",
            "litefs.yml:2:32: lease.consul.tll: unknown key: did you mean ttl?",
            "litefs.yml:3:19: exec.cmb: unknown key: did you mean cmd?",
            "litefs.yml:4:8: proxy: the text \"a\" where a mapping is expected: write `key: value`",
        ]
    );
}

#[test]
fn no_value_can_bring_in_a_variable_or_a_key() {
    let dir = "/a\"\nfuse: ${HOME} $HOME \u{2028}\u{1F600}\t\\";
    let litefs = LitefsYml {
        fuse: Fuse { dir: Some(dir.to_owned()), ..Fuse::default() },
        ..Default::default()
    };
    let text = litefs.to_text();
    assert!(!text.contains('$') && text.lines().count() == 2, "{text}");
    assert_eq!(good(&text).0, litefs);
}

/// Values for the keys of a file, drawn from few kinds.
struct Draw {
    texts: std::vec::IntoIter<Option<String>>,
    lists: std::vec::IntoIter<Vec<String>>,
    flags: std::vec::IntoIter<Option<bool>>,
    times: std::vec::IntoIter<Option<u64>>,
    counts: std::vec::IntoIter<Option<u32>>,
    commands: std::vec::IntoIter<(String, Option<bool>)>,
}

impl Draw {
    fn text(&mut self) -> Option<String> {
        self.texts.next().unwrap()
    }
    fn list(&mut self) -> Vec<String> {
        self.lists.next().unwrap()
    }
    fn flag(&mut self) -> Flag {
        self.flags.next().unwrap().map(Setting::Is)
    }
    fn time(&mut self) -> Time {
        self.times.next().unwrap().map(|nanos| Setting::Is(Duration::from_nanos(nanos)))
    }
    fn count(&mut self) -> Count {
        self.counts.next().unwrap().map(Setting::Is)
    }

    fn litefs(mut self) -> LitefsYml {
        let d = &mut self;
        LitefsYml {
            exit_on_error: d.flag(),
            skip_sync: d.flag(),
            strict_verify: d.flag(),
            fuse: Fuse { dir: d.text(), allow_other: d.flag(), debug: d.flag() },
            data: Data {
                dir: d.text(),
                compress: d.flag(),
                retention: d.time(),
                retention_monitor_interval: d.time(),
            },
            http: Http { addr: d.text(), snapshot_timeout: d.time() },
            lease: d.lease(),
            proxy: d.proxy(),
            backup: Backup {
                kind: d.text(),
                path: d.text(),
                url: d.text(),
                cluster: d.text(),
                auth_token: d.text(),
            },
            log: Log { format: d.text(), timestamp: d.flag(), debug: d.flag() },
            tracing: Tracing {
                enabled: d.flag(),
                path: d.text(),
                max_size: d.count(),
                max_count: d.count(),
                compress: d.flag(),
            },
            exec: self
                .commands
                .map(|(cmd, flag)| Exec { cmd, if_candidate: flag.map(Setting::Is) })
                .collect(),
        }
    }

    fn lease(&mut self) -> Lease {
        Lease {
            kind: self.text(),
            hostname: self.text(),
            advertise_url: self.text(),
            candidate: self.flag(),
            promote: self.flag(),
            reconnect_delay: self.time(),
            demote_delay: self.time(),
            databases: self.list(),
            consul: Consul {
                url: self.text(),
                key: self.text(),
                ttl: self.time(),
                lock_delay: self.time(),
            },
        }
    }

    fn proxy(&mut self) -> Proxy {
        Proxy {
            addr: self.text(),
            target: self.text(),
            db: self.text(),
            max_lag: self.time(),
            debug: self.flag(),
            passthrough: self.list(),
            always_forward: self.list(),
            primary_redirect_timeout: self.time(),
            read_timeout: self.time(),
            read_header_timeout: self.time(),
            write_timeout: self.time(),
            idle_timeout: self.time(),
        }
    }
}

const TEXT: &str = "[^\u{0}\u{F0000}-\u{F2710}]{0,12}";

fn litefs() -> impl Strategy<Value = LitefsYml> {
    let texts = vec(option::of(TEXT), 18);
    let lists = vec(vec(TEXT, 0..3), 3);
    let flags = vec(option::of(any::<bool>()), 13);
    let times = vec(option::of(0..i64::MAX as u64), 14);
    let counts = vec(option::of(any::<u32>()), 2);
    let commands = vec((TEXT, option::of(any::<bool>())), 0..3);
    (texts, lists, flags, times, counts, commands).prop_map(
        |(texts, lists, flags, times, counts, commands)| {
            Draw {
                texts: texts.into_iter(),
                lists: lists.into_iter(),
                flags: flags.into_iter(),
                times: times.into_iter(),
                counts: counts.into_iter(),
                commands: commands.into_iter(),
            }
            .litefs()
        },
    )
}

proptest! {
    #[test]
    fn what_was_written_reads_the_same(litefs in litefs()) {
        let text = litefs.to_text();
        // Without any key there is no mapping.
        prop_assume!(!text.is_empty());
        let (read, _) = LitefsYml::parse("litefs.yml", text.as_bytes()).unwrap();
        prop_assert_eq!(read, litefs, "{}", text);
    }

    #[test]
    fn no_file_makes_it_panic(text: String) {
        let _ = LitefsYml::parse("litefs.yml", text.as_bytes());
    }
}
