//! The text of a `litefs.yml`.
//!
//! LiteFS expands variables in the text of the file, so no `$` may stand in it: in quotes YAML has
//! another way to write one.

use std::fmt::Write as _;

use super::{Count, Flag, LitefsYml, Setting, Time, go_duration};

pub(crate) fn whole(litefs: &LitefsYml) -> String {
    let mut out = Writer { text: String::new(), depth: 0 };
    let general = &litefs.general;
    out.flag("exit-on-error", &general.exit_on_error);
    out.flag("skip-sync", &general.skip_sync);
    out.flag("strict-verify", &general.strict_verify);
    out.section("fuse", |out| {
        out.string("dir", &litefs.fuse.dir);
        out.flag("allow-other", &litefs.fuse.allow_other);
        out.flag("debug", &litefs.fuse.debug);
    });
    out.section("data", |out| {
        out.string("dir", &litefs.data.dir);
        out.flag("compress", &litefs.data.compress);
        out.time("retention", &litefs.data.retention);
        out.time("retention-monitor-interval", &litefs.data.retention_monitor_interval);
    });
    out.section("http", |out| {
        out.string("addr", &litefs.http.addr);
        out.time("snapshot-timeout", &litefs.http.snapshot_timeout);
    });
    out.section("lease", |out| lease(out, litefs));
    out.section("proxy", |out| proxy(out, litefs));
    exec(&mut out, litefs);
    sections(&mut out, litefs);
    out.text
}

fn lease(out: &mut Writer, litefs: &LitefsYml) {
    let lease = &litefs.lease;
    out.string("type", &lease.kind);
    out.string("hostname", &lease.hostname);
    out.string("advertise-url", &lease.advertise_url);
    out.flag("candidate", &lease.candidate);
    out.flag("promote", &lease.promote);
    out.time("reconnect-delay", &lease.reconnect_delay);
    out.time("demote-delay", &lease.demote_delay);
    out.strings("databases", &lease.databases);
    out.section("consul", |out| {
        out.string("url", &lease.consul.url);
        out.string("key", &lease.consul.key);
        out.time("ttl", &lease.consul.ttl);
        out.time("lock-delay", &lease.consul.lock_delay);
    });
}

fn proxy(out: &mut Writer, litefs: &LitefsYml) {
    let proxy = &litefs.proxy;
    out.string("addr", &proxy.addr);
    out.string("target", &proxy.target);
    out.string("db", &proxy.db);
    out.time("max-lag", &proxy.max_lag);
    out.flag("debug", &proxy.debug);
    out.strings("passthrough", &proxy.passthrough);
    out.strings("always-forward", &proxy.always_forward);
    out.time("primary-redirect-timeout", &proxy.primary_redirect_timeout);
    out.time("read-timeout", &proxy.read_timeout);
    out.time("read-header-timeout", &proxy.read_header_timeout);
    out.time("write-timeout", &proxy.write_timeout);
    out.time("idle-timeout", &proxy.idle_timeout);
}

fn exec(out: &mut Writer, litefs: &LitefsYml) {
    if litefs.general.exec.is_empty() {
        return;
    }
    out.line("exec:");
    for item in &litefs.general.exec {
        out.line(&format!("  - cmd: {}", quoted(&item.cmd)));
        out.depth += 2;
        out.flag("if-candidate", &item.if_candidate);
        out.depth -= 2;
    }
}

fn sections(out: &mut Writer, litefs: &LitefsYml) {
    let general = &litefs.general;
    out.section("backup", |out| {
        out.string("type", &general.backup.kind);
        out.string("path", &general.backup.path);
        out.string("url", &general.backup.url);
        out.string("cluster", &general.backup.cluster);
        out.string("auth-token", &general.backup.auth_token);
    });
    out.section("log", |out| {
        out.string("format", &general.log.format);
        out.flag("timestamp", &general.log.timestamp);
        out.flag("debug", &general.log.debug);
    });
    out.section("tracing", |out| {
        out.flag("enabled", &general.tracing.enabled);
        out.string("path", &general.tracing.path);
        out.count("max-size", &general.tracing.max_size);
        out.count("max-count", &general.tracing.max_count);
        out.flag("compress", &general.tracing.compress);
    });
}

struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    fn line(&mut self, line: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{:indent$}{line}", "", indent = 2 * self.depth);
    }

    /// A section, unless nothing is in it.
    fn section(&mut self, key: &str, write: impl FnOnce(&mut Self)) {
        let before = self.text.len();
        self.line(&format!("{key}:"));
        let begun = self.text.len();
        self.depth += 1;
        write(self);
        self.depth -= 1;
        if self.text.len() == begun {
            self.text.truncate(before);
        }
    }

    fn string(&mut self, key: &str, value: &Option<String>) {
        if let Some(value) = value {
            self.line(&format!("{key}: {}", quoted(value)));
        }
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
            self.line(&format!("{key}: [{}]", values.join(", ")));
        }
    }

    fn flag(&mut self, key: &str, value: &Flag) {
        self.setting(key, value, bool::to_string);
    }

    fn time(&mut self, key: &str, value: &Time) {
        self.setting(key, value, |time| quoted(&go_duration::text(*time)));
    }

    fn count(&mut self, key: &str, value: &Count) {
        self.setting(key, value, u32::to_string);
    }

    fn setting<T>(
        &mut self,
        key: &str,
        value: &Option<Setting<T>>,
        show: impl FnOnce(&T) -> String,
    ) {
        match value {
            Some(Setting::Is(value)) => self.line(&format!("{key}: {}", show(value))),
            Some(Setting::Depends(text)) => self.line(&format!("{key}: {text}")),
            None => {}
        }
    }
}

/// Text in double quotes, in one line and without a `$`. The escapes are YAML's.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '$' => out.push_str("\\x24"),
            ' '..='~' => out.push(c),
            _ if c.is_alphanumeric() => out.push(c),
            // Writing to a String does not fail.
            _ if u32::from(c) <= 0xFFFF => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
