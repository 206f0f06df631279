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
    assert_eq!(litefs.general.exec.len(), 2);
    assert_eq!(litefs.general.exec[0].if_candidate, Some(Setting::Is(true)));
    assert_eq!(litefs.general.exec[1].cmd, "node server.js");
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
    assert_eq!(variables.as_written(&litefs.general.exec[0].cmd), "myapp -addr :${PORT}");
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

fn text() -> impl Strategy<Value = Option<String>> {
    option::of("[^\u{0}\u{F0000}-\u{F2710}]{0,12}")
}

fn flag() -> impl Strategy<Value = Flag> {
    option::of(any::<bool>().prop_map(Setting::Is))
}

fn time() -> impl Strategy<Value = Time> {
    option::of((0..i64::MAX as u64).prop_map(|nanos| Setting::Is(Duration::from_nanos(nanos))))
}

fn count() -> impl Strategy<Value = Count> {
    option::of(any::<u32>().prop_map(Setting::Is))
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[^\u{0}\u{F0000}-\u{F2710}]{0,8}", 0..3)
}

fn lease() -> impl Strategy<Value = Lease> {
    let consul = (text(), text(), time(), time()).prop_map(|(url, key, ttl, lock_delay)| Consul {
        url,
        key,
        ttl,
        lock_delay,
    });
    let texts = (text(), text(), text(), texts());
    let others = (flag(), flag(), time(), time(), consul);
    (texts, others).prop_map(|((kind, hostname, advertise_url, databases), others)| {
        let (candidate, promote, reconnect_delay, demote_delay, consul) = others;
        Lease {
            kind,
            hostname,
            advertise_url,
            candidate,
            promote,
            reconnect_delay,
            demote_delay,
            databases,
            consul,
        }
    })
}

fn proxy() -> impl Strategy<Value = Proxy> {
    let first = (text(), text(), text(), time(), flag(), texts(), texts());
    let times = (time(), time(), time(), time(), time());
    (first, times).prop_map(|(first, times)| {
        let (addr, target, db, max_lag, debug, passthrough, always_forward) = first;
        let (
            primary_redirect_timeout,
            read_timeout,
            read_header_timeout,
            write_timeout,
            idle_timeout,
        ) = times;
        Proxy {
            addr,
            target,
            db,
            max_lag,
            debug,
            passthrough,
            always_forward,
            primary_redirect_timeout,
            read_timeout,
            read_header_timeout,
            write_timeout,
            idle_timeout,
        }
    })
}

fn general() -> impl Strategy<Value = General> {
    let item = ("[^\u{0}\u{F0000}-\u{F2710}]{0,8}", flag())
        .prop_map(|(cmd, if_candidate)| Exec { cmd, if_candidate });
    let exec = proptest::collection::vec(item, 0..3);
    let backup = (text(), text(), text(), text(), text()).prop_map(
        |(kind, path, url, cluster, auth_token)| Backup { kind, path, url, cluster, auth_token },
    );
    let log = (text(), flag(), flag()).prop_map(|(format, timestamp, debug)| Log {
        format,
        timestamp,
        debug,
    });
    let tracing = (flag(), text(), count(), count(), flag()).prop_map(
        |(enabled, path, max_size, max_count, compress)| Tracing {
            enabled,
            path,
            max_size,
            max_count,
            compress,
        },
    );
    (flag(), flag(), flag(), exec, backup, log, tracing).prop_map(
        |(exit_on_error, skip_sync, strict_verify, exec, backup, log, tracing)| General {
            exit_on_error,
            skip_sync,
            strict_verify,
            exec,
            backup,
            log,
            tracing,
        },
    )
}

fn litefs() -> impl Strategy<Value = LitefsYml> {
    let fuse = (text(), flag(), flag()).prop_map(|(dir, allow_other, debug)| Fuse {
        dir,
        allow_other,
        debug,
    });
    let data = (text(), flag(), time(), time()).prop_map(
        |(dir, compress, retention, retention_monitor_interval)| Data {
            dir,
            compress,
            retention,
            retention_monitor_interval,
        },
    );
    let http =
        (text(), time()).prop_map(|(addr, snapshot_timeout)| Http { addr, snapshot_timeout });
    (fuse, data, http, lease(), proxy(), general()).prop_map(
        |(fuse, data, http, lease, proxy, general)| LitefsYml {
            fuse,
            data,
            http,
            lease,
            proxy,
            general,
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
