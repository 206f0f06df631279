//! From the tree of a `litefs.yml` to its values, by the names that LiteFS gives them.

use std::time::Duration;

use super::variables::has_variable;
use super::{
    Backup, Consul, Count, Data, Exec, Flag, Fuse, General, Http, Lease, LitefsYml, Log, Proxy,
    Setting, Time, Tracing, go_duration,
};
use crate::config::reader::{Reader, Section};
use crate::config::value;
use crate::yaml::{Node, Problem, Value};

pub(crate) fn whole(file: &str, root: &Node) -> Result<LitefsYml, Vec<Problem>> {
    let reader = Reader::new(file);
    let litefs = reader.root(root, |root| LitefsYml {
        fuse: root.section("fuse", fuse),
        data: root.section("data", data),
        http: root.section("http", http),
        lease: root.section("lease", lease),
        proxy: root.section("proxy", proxy),
        general: general(root),
    });
    let problems = reader.into_problems();
    if problems.is_empty() { Ok(litefs) } else { Err(problems) }
}

/// Reads the keys of the top level that are in no section of their own.
pub(crate) fn general(root: &Section<'_>) -> General {
    General {
        exit_on_error: flag(root, "exit-on-error"),
        skip_sync: flag(root, "skip-sync"),
        strict_verify: flag(root, "strict-verify"),
        exec: exec(root),
        backup: root.section("backup", |section| Backup {
            kind: text(section, "type"),
            path: text(section, "path"),
            url: text(section, "url"),
            cluster: text(section, "cluster"),
            auth_token: text(section, "auth-token"),
        }),
        log: root.section("log", |section| Log {
            format: text(section, "format"),
            timestamp: flag(section, "timestamp"),
            debug: flag(section, "debug"),
        }),
        tracing: root.section("tracing", |section| Tracing {
            enabled: flag(section, "enabled"),
            path: text(section, "path"),
            max_size: count(section, "max-size"),
            max_count: count(section, "max-count"),
            compress: flag(section, "compress"),
        }),
    }
}

fn fuse(section: &Section<'_>) -> Fuse {
    Fuse {
        dir: text(section, "dir"),
        allow_other: flag(section, "allow-other"),
        debug: flag(section, "debug"),
    }
}

fn data(section: &Section<'_>) -> Data {
    Data {
        dir: text(section, "dir"),
        compress: flag(section, "compress"),
        retention: time(section, "retention"),
        retention_monitor_interval: time(section, "retention-monitor-interval"),
    }
}

fn http(section: &Section<'_>) -> Http {
    Http { addr: text(section, "addr"), snapshot_timeout: time(section, "snapshot-timeout") }
}

fn lease(section: &Section<'_>) -> Lease {
    Lease {
        kind: text(section, "type"),
        hostname: text(section, "hostname"),
        advertise_url: text(section, "advertise-url"),
        candidate: flag(section, "candidate"),
        promote: flag(section, "promote"),
        reconnect_delay: time(section, "reconnect-delay"),
        demote_delay: time(section, "demote-delay"),
        databases: section.list("databases", value::word).unwrap_or_default(),
        consul: section.section("consul", |section| Consul {
            url: text(section, "url"),
            key: text(section, "key"),
            ttl: time(section, "ttl"),
            lock_delay: time(section, "lock-delay"),
        }),
    }
}

fn proxy(section: &Section<'_>) -> Proxy {
    Proxy {
        addr: text(section, "addr"),
        target: text(section, "target"),
        db: text(section, "db"),
        max_lag: time(section, "max-lag"),
        debug: flag(section, "debug"),
        passthrough: section.list("passthrough", value::word).unwrap_or_default(),
        always_forward: section.list("always-forward", value::word).unwrap_or_default(),
        primary_redirect_timeout: time(section, "primary-redirect-timeout"),
        read_timeout: time(section, "read-timeout"),
        read_header_timeout: time(section, "read-header-timeout"),
        write_timeout: time(section, "write-timeout"),
        idle_timeout: time(section, "idle-timeout"),
    }
}

/// One command, or a list of them.
fn exec(root: &Section<'_>) -> Vec<Exec> {
    if let Some(Some(cmd)) = root.get("exec", |node| Ok(node.word().map(str::to_owned))) {
        return vec![Exec { cmd, if_candidate: None }];
    }
    let item = |section: &Section<'_>| Exec {
        cmd: text(section, "cmd").unwrap_or_default(),
        if_candidate: flag(section, "if-candidate"),
    };
    root.sections("exec", item).unwrap_or_default()
}

fn text(section: &Section<'_>, key: &'static str) -> Option<String> {
    section.get(key, value::word)
}

fn flag(section: &Section<'_>, key: &'static str) -> Flag {
    section.get(key, |node| setting(node, boolean, "true or false"))
}

fn time(section: &Section<'_>, key: &'static str) -> Time {
    section.get(key, |node| setting(node, duration, "a duration like 10s or 1h30m"))
}

fn count(section: &Section<'_>, key: &'static str) -> Count {
    section.get(key, |node| setting(node, number, "a whole number"))
}

/// A value that may depend on variables.
fn setting<T>(
    node: &Node,
    read: fn(&Node) -> Option<T>,
    wanted: &str,
) -> Result<Setting<T>, String> {
    match node.word() {
        Some(text) if has_variable(text) => Ok(Setting::Depends(text.to_owned())),
        _ => read(node)
            .map(Setting::Is)
            .ok_or_else(|| format!("{} where {wanted} is expected", node.describe())),
    }
}

/// With the forms of YAML 1.1, which LiteFS' parser takes where it wants a boolean.
fn boolean(node: &Node) -> Option<bool> {
    match (&node.value, node.word()?) {
        (Value::Bool(value), _) => Some(*value),
        (_, "y" | "Y" | "yes" | "on") => Some(true),
        (_, "n" | "N" | "no" | "off") => Some(false),
        (_, "True" | "TRUE") if node.plain.is_some() => Some(true),
        (_, "False" | "FALSE") if node.plain.is_some() => Some(false),
        _ => None,
    }
}

fn duration(node: &Node) -> Option<Duration> {
    match &node.value {
        Value::Text(text) => go_duration::parse(text),
        _ => None,
    }
}

fn number(node: &Node) -> Option<u32> {
    match node.value {
        Value::Int(number) => u32::try_from(number).ok(),
        _ => None,
    }
}
