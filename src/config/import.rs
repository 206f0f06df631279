//! From a `litefs.yml` to a `litepilot.yml` that does what it did, `proxy:` included. What has no
//! counterpart is named in comments. Pure.

use std::time::Duration;

use super::litefs_yml::variables::{Variable, Variables, has_variable};
use super::litefs_yml::{Exec, Flag, LitefsYml, Setting, Time};

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Imported {
    /// The `litepilot.yml`.
    pub(crate) config: String,
    /// The file of rules that it names, if there are any: `passthrough` and `always-forward`.
    pub(crate) rules: Option<String>,
}

/// The name of the file of rules, beside the configuration.
pub(crate) const RULES: &str = "litefs-rules.yml";

/// Translates a `litefs.yml`.
pub(crate) fn import(litefs: &LitefsYml, variables: &Variables) -> Imported {
    let mut out = Out { text: String::new(), dropped: Vec::new(), variables };
    let rules = rules(litefs, variables);
    out.line(
        0,
        "# From a litefs.yml. What it had and Litepilot has no use for is named at the end.",
    );
    out.text("node", 0, consul(litefs).then_some(litefs.lease.hostname.as_ref()).flatten());
    proxy(&mut out, litefs, rules.is_some());
    cluster(&mut out, litefs);
    engine(&mut out, litefs);
    app(&mut out, &litefs.exec);
    out.no_counterpart(litefs);
    let mut config = out.text;
    if !out.dropped.is_empty() {
        config += "\n# Without a counterpart:\n";
        out.dropped.iter().for_each(|line| config += &format!("# {line}\n"));
    }
    Imported { config, rules }
}

fn consul(litefs: &LitefsYml) -> bool {
    litefs.lease.kind.as_deref() != Some("static")
}

fn proxy(out: &mut Out<'_>, litefs: &LitefsYml, has_rules: bool) {
    let proxy = &litefs.proxy;
    out.line(0, "proxy:");
    if proxy.addr.is_none() {
        out.line(1, "# LiteFS' proxy was not used: say where clients connect, and where the application is.");
    }
    out.text("listen", 1, proxy.addr.as_ref());
    match &proxy.target {
        Some(_) => out.text("target", 1, proxy.target.as_ref()),
        None => out.line(1, "target: 127.0.0.1:8000  # where the application listens"),
    }
    match &proxy.db {
        Some(_) => out.text("db", 1, proxy.db.as_ref()),
        None => out.line(1, "db: db.sqlite3  # the database whose transactions are tracked"),
    }
    if has_rules {
        out.line(1, &format!("rules: [./{RULES}]"));
    }
    out.time("max_lag", 1, "proxy.max-lag", &proxy.max_lag);
    out.time("write_hold", 1, "proxy.primary-redirect-timeout", &proxy.primary_redirect_timeout);
    out.time("header_timeout", 1, "proxy.read-header-timeout", &proxy.read_header_timeout);
    out.time("body_timeout", 1, "proxy.read-timeout", &proxy.read_timeout);
    out.time("response_timeout", 1, "proxy.write-timeout", &proxy.write_timeout);
    out.time("keepalive_timeout", 1, "proxy.idle-timeout", &proxy.idle_timeout);
}

fn cluster(out: &mut Out<'_>, litefs: &LitefsYml) {
    let lease = &litefs.lease;
    out.line(0, "cluster:");
    out.line(1, "# A litefs.yml does not say which nodes there are. For more than one write them here, the same on");
    out.line(1, "# every node, and cluster.tls if they are on several machines (litepilot certs):");
    out.line(1, "# peers: {node-1: node-1.internal:4321, node-2: node-2.internal:4321, node-3: node-3.internal:4321}");
    if !consul(litefs) {
        let primary = lease.hostname.as_deref().unwrap_or("node-1");
        let primary = out.variables.as_written(primary);
        out.line(1, "# With peers, this keeps the primary that lease.type static had. Without it one is elected:");
        out.line(1, &format!("# election: static\n  # primary: {}", comment(&primary)));
    }
    match &lease.candidate {
        Some(Setting::Is(candidate)) if consul(litefs) => {
            out.line(1, &format!("candidate: {candidate}"));
        }
        Some(Setting::Depends(text)) => {
            let text = out.variables.as_written(text);
            out.line(
                1,
                &format!("# candidate was {}: write true or false for this node", comment(&text)),
            );
        }
        _ => {}
    }
    if !matches!(lease.candidate, Some(Setting::Is(_))) || !consul(litefs) {
        // Nothing but comments would be no section.
        out.line(1, "candidate: true");
    }
}

fn engine(out: &mut Out<'_>, litefs: &LitefsYml) {
    out.line(0, "litefs:");
    out.text("mount", 1, litefs.fuse.dir.as_ref());
    out.flag("allow_other", 1, "fuse.allow-other", &litefs.fuse.allow_other);
    match &litefs.data.dir {
        Some(_) => out.text("data", 1, litefs.data.dir.as_ref()),
        None => out.line(1, "data: /var/lib/litefs"),
    }
    out.time("retention", 1, "data.retention", &litefs.data.retention);
    if let Some(addr) = &litefs.http.addr {
        let port = addr.rsplit_once(':').map_or(addr.as_str(), |(_, port)| port);
        out.line(1, "# On loopback: other nodes reach it through the peer port.");
        out.text("http", 1, Some(&format!("127.0.0.1:{port}")));
    }
    let extra = extra(out, litefs).to_text();
    if !extra.is_empty() {
        out.line(1, "extra:");
        for line in extra.lines() {
            // Texts have their variables in our form already. What is left decides a value that is no
            // text, which must not be in quotes.
            match has_variable(line) {
                true => {
                    let line = out.variables.show(&line.replace('"', ""), shown, String::from);
                    out.line(2, &line);
                }
                false => out.line(2, line),
            }
        }
    }
}

/// What `litefs.extra` takes as it is, but for its variables.
fn extra(out: &Out<'_>, litefs: &LitefsYml) -> LitefsYml {
    let LitefsYml { exit_on_error, strict_verify, backup, log, tracing, .. } = litefs.clone();
    let mut extra =
        LitefsYml { exit_on_error, strict_verify, backup, log, tracing, ..LitefsYml::default() };
    let LitefsYml { backup, log, tracing, .. } = &mut extra;
    let texts = [
        &mut backup.kind,
        &mut backup.path,
        &mut backup.url,
        &mut backup.cluster,
        &mut backup.auth_token,
        &mut log.format,
        &mut tracing.path,
    ];
    for text in texts.into_iter().flatten() {
        *text = out.ours(text);
    }
    extra
}

/// LiteFS runs commands one after the other, and the last one is the application. Those for candidates
/// only were for migrations.
fn app(out: &mut Out<'_>, exec: &[Exec]) {
    let Some((last, before)) = exec.split_last() else { return };
    let primary_only = |exec: &&Exec| exec.if_candidate.is_some();
    let on_promote: Vec<_> = before.iter().filter(primary_only).map(|e| e.cmd.as_str()).collect();
    let always: Vec<_> =
        before.iter().filter(|exec| !primary_only(exec)).map(|e| e.cmd.as_str()).collect();
    out.line(0, "app:");
    let command = match always.is_empty() {
        true => words(&last.cmd),
        false => shell(&format!("{} && exec {}", always.join(" && "), last.cmd)),
    };
    out.list("command", &command);
    if !on_promote.is_empty() {
        out.line(1, "# It ran where exec had if-candidate; now on the primary only, before it takes writes.");
        out.list("on_promote", &shell(&on_promote.join(" && ")));
    }
}

/// A command's words. LiteFS splits as a shell does; where that is not plain, a shell shall.
fn words(command: &str) -> Vec<String> {
    let special = |c: char| "\"'\\|&;<>()`*?[]~{}#!".contains(c);
    match command.contains(special) {
        true => shell(&format!("exec {command}")),
        false => command.split_whitespace().map(str::to_owned).collect(),
    }
}

fn shell(command: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()]
}

fn rules(litefs: &LitefsYml, variables: &Variables) -> Option<String> {
    let proxy = &litefs.proxy;
    let rule = |glob: &String, class: &str| {
        let regex = anchored(&variables.as_written(glob));
        format!("  - match: {{path_regex: {}}}\n    as: {class}\n", json(&regex))
    };
    let passthrough = proxy.passthrough.iter().map(|glob| rule(glob, "passthrough"));
    let forward = proxy.always_forward.iter().map(|glob| rule(glob, "write"));
    let rules: String = passthrough.chain(forward).collect();
    (!rules.is_empty())
        .then(|| format!("# From a litefs.yml: passthrough, then always-forward.\nrules:\n{rules}"))
}

/// LiteFS' globs are of the whole path, and `*` means anything, slashes too.
fn anchored(glob: &str) -> String {
    let mut out = String::from("^");
    for c in glob.chars() {
        match c {
            '*' => out.push_str(".*"),
            _ if c.is_ascii_alphanumeric() || "/_-".contains(c) || !c.is_ascii() => out.push(c),
            _ => out.extend(['\\', c]),
        }
    }
    out.push('$');
    out
}

struct Out<'a> {
    text: String,
    dropped: Vec<String>,
    variables: &'a Variables,
}

impl Out<'_> {
    fn line(&mut self, depth: usize, line: &str) {
        self.text += &format!("{:indent$}{line}\n", "", indent = 2 * depth);
    }

    /// A text, whose variables are ours, too. One that depends on a comparison cannot be written.
    fn text(&mut self, key: &str, depth: usize, value: Option<&String>) {
        let Some(value) = value else { return };
        let written = self.variables.as_written(value);
        if self.variables.of(value).any(|v| matches!(v, Variable::Expression(_))) {
            return self.line(depth, &format!("# {key} was {}: write a value", comment(&written)));
        }
        let value = self.quoted(value);
        self.line(depth, &format!("{key}: {value}"));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let values: Vec<_> = values.iter().map(|value| self.quoted(value)).collect();
        self.line(1, &format!("{key}: [{}]", values.join(", ")));
    }

    fn quoted(&self, value: &str) -> String {
        json(&self.ours(value))
    }

    /// With variables in our form.
    fn ours(&self, value: &str) -> String {
        // A `$` with a brace behind it would begin one.
        self.variables.show(&value.replace("${", "$${"), shown, String::from)
    }

    fn time(&mut self, key: &str, depth: usize, from: &str, time: &Time) {
        match time {
            // To LiteFS zero means no limit, or its default.
            Some(Setting::Is(time)) if !time.is_zero() => {
                let line = format!("{key}: {}", duration(*time));
                self.line(depth, &line);
            }
            Some(Setting::Is(_)) => self.dropped.push(format!("{from}: 0")),
            Some(Setting::Depends(text)) => self.depends(from, text),
            None => {}
        }
    }

    fn flag(&mut self, key: &str, depth: usize, from: &str, flag: &Flag) {
        match flag {
            Some(Setting::Is(flag)) => self.line(depth, &format!("{key}: {flag}")),
            Some(Setting::Depends(text)) => self.depends(from, text),
            None => {}
        }
    }

    fn depends(&mut self, from: &str, text: &str) {
        let text = comment(&self.variables.as_written(text));
        self.dropped.push(format!("{from}: {text} (write a plain value)"));
    }

    fn no_counterpart(&mut self, litefs: &LitefsYml) {
        let (lease, data) = (&litefs.lease, &litefs.data);
        let given = [
            (
                lease.promote.is_some(),
                "lease.promote: the freshest node becomes primary; `litepilot promote` moves it",
            ),
            (
                lease.advertise_url.is_some(),
                "lease.advertise-url: nodes are reached at their peer port, cluster.peers",
            ),
            (lease.reconnect_delay.is_some(), "lease.reconnect-delay: set by Litepilot"),
            (lease.demote_delay.is_some(), "lease.demote-delay"),
            (!lease.databases.is_empty(), "lease.databases: every database is replicated"),
            (
                lease.consul != Default::default(),
                "lease.consul: no Consul is needed; cluster.lease.ttl is 2s unless given",
            ),
            (data.compress.is_some(), "data.compress"),
            (data.retention_monitor_interval.is_some(), "data.retention-monitor-interval"),
            (litefs.fuse.debug.is_some(), "fuse.debug"),
            (litefs.http.snapshot_timeout.is_some(), "http.snapshot-timeout"),
            (litefs.proxy.debug.is_some(), "proxy.debug: log.level: debug"),
            (
                litefs.skip_sync.is_some(),
                "skip-sync: Litepilot starts LiteFS, and then the application",
            ),
        ];
        let given = given.into_iter().filter(|(given, _)| *given);
        self.dropped.extend(given.map(|(_, what)| what.to_owned()));
    }
}

/// A variable in our form. LiteFS takes one that is not set for nothing.
fn shown(variable: &Variable) -> String {
    match variable {
        Variable::Value(name) => format!("${{{name}:-}}"),
        Variable::Expression(text) => format!("$${{{text}}}"),
    }
}

/// YAML's double quotes take JSON's.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// As our durations are written: one number and one unit.
fn duration(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (0, millis) => format!("{}ms", millis.max(1)),
        (secs, 0) if secs % 3600 == 0 => format!("{}h", secs / 3600),
        (secs, 0) => format!("{secs}s"),
        _ => format!("{}ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EngineKind};
    use proptest::prelude::*;

    fn imported(text: &str) -> Imported {
        let (litefs, variables) = LitefsYml::parse("litefs.yml", text.as_bytes()).unwrap();
        import(&litefs, &variables)
    }

    fn config(text: &str, env: &[(&str, &str)]) -> (Config, Imported) {
        let imported = imported(text);
        let env = |name: &str| {
            let known = env.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| (*value).to_owned())
        };
        let yaml = imported.config.as_bytes();
        let config = Config::from_yaml("/etc/litepilot.yml", yaml, &env);
        (config.unwrap_or_else(|found| panic!("{}\n{found:?}", imported.config)), imported)
    }

    /// As in LiteFS' own documentation.
    const TYPICAL: &str = r#"
fuse: {dir: "/litefs"}
data: {dir: "/var/lib/litefs", retention: 30m}
exit-on-error: false
proxy:
  addr: ":8080"
  target: "localhost:8081"
  db: "db"
  max-lag: 5s
  passthrough: ["*.ico", "/static/*"]
  always-forward: ["/logout"]
exec:
  - cmd: "/app/migrate --all"
    if-candidate: true
  - cmd: "gunicorn -b 127.0.0.1:8081 app:app"
lease:
  type: "consul"
  hostname: "$FLY_ALLOC_ID"
  candidate: ${FLY_REGION == PRIMARY_REGION}
  promote: true
  advertise-url: "http://${FLY_ALLOC_ID}.vm.${FLY_APP_NAME}.internal:20202"
  consul: {url: "${FLY_CONSUL_URL}", key: "${FLY_APP_NAME}/primary"}
"#;

    #[test]
    fn a_typical_file_does_what_it_did() {
        let (config, imported) = config(TYPICAL, &[("FLY_ALLOC_ID", "a1")]);
        assert_eq!(config.node.as_str(), "a1");
        assert_eq!(config.proxy.listen.port(), 8080);
        assert_eq!(config.proxy.target.to_string(), "localhost:8081");
        assert_eq!(config.proxy.max_lag, Duration::from_secs(5));
        assert_eq!(
            (config.litefs.engine, config.litefs.mount),
            (EngineKind::Litefs, "/litefs".into())
        );
        assert_eq!(config.litefs.retention, Duration::from_secs(1800));
        assert_eq!(config.litefs.extra.exit_on_error, Some(Setting::Is(false)));
        assert_eq!(config.app.command, ["gunicorn", "-b", "127.0.0.1:8081", "app:app"]);
        assert_eq!(config.app.on_promote.command(), ["/bin/sh", "-c", "/app/migrate --all"]);
        for named in
            ["lease.promote", "lease.consul", "candidate was ${FLY_REGION == PRIMARY_REGION}"]
        {
            assert!(imported.config.contains(named), "{named}\n{}", imported.config);
        }
        let rules = imported.rules.unwrap();
        for rule in [r#""^.*\\.ico$""#, r#""^/static/.*$""#, r#""^/logout$""#] {
            assert!(rules.contains(rule), "{rule}\n{rules}");
        }
        assert!(imported.config.contains(RULES));
    }

    #[test]
    fn a_fixed_primary_is_named_for_the_day_when_there_are_peers() {
        let text = "lease: {type: static, hostname: one, candidate: true, advertise-url: 'http://one:1'}\n\
                    fuse: {dir: /litefs}\nhttp: {addr: ':20302'}\nexec: 'sh -c \"a; b\"'\n";
        let (config, imported) = config(text, &[("LITEPILOT_NODE", "x")]);
        assert!(imported.config.contains("# primary: one"), "{}", imported.config);
        assert_eq!(config.litefs.http.to_string(), "127.0.0.1:20302");
        assert_eq!(config.app.command, ["/bin/sh", "-c", "exec sh -c \"a; b\""]);
    }

    #[test]
    fn even_a_file_that_says_nothing_gives_one_that_can_be_used() {
        let (config, imported) = config("fuse: {}", &[("LITEPILOT_NODE", "x")]);
        assert_eq!(config.litefs.mount, std::path::Path::new("/litefs"));
        assert_eq!(imported.rules, None);
    }

    proptest! {
        /// Whatever stands in the file, ours can be read.
        #[test]
        fn whatever_is_imported_is_yaml(text in "[ -~é]{0,30}", cmd in "[ -~]{1,30}") {
            let litefs = LitefsYml {
                lease: super::super::litefs_yml::Lease {
                    kind: Some("static".to_owned()),
                    hostname: Some(text.clone()),
                    ..Default::default()
                },
                exec: vec![Exec { cmd, if_candidate: None }],
                ..LitefsYml::default()
            };
            let imported = import(&litefs, &Variables::default());
            let read = crate::config::Source::parse("x", imported.config.as_bytes(), &|_| None);
            prop_assert!(read.is_ok(), "{}", imported.config);
        }
    }
}
