//! The `litefs.yml` that LiteFS runs with.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::litefs_yml::{Backup, Consul, Data, Fuse, Http, Lease, LitefsYml, Log};
use crate::config::{Config, EngineKind};
use crate::files;
use crate::lease;
use crate::secret::Secret;

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "litefs.yml";
/// LiteFS asks for the lease, or for the primary, this often: a failover waits for it.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);
/// LiteFS passes it on, and our lease has no use for it.
const LOCK_DELAY: Duration = Duration::from_millis(1);
/// LiteFS' lease lasts this fraction of ours: it renews twice in that time, and a renewal that is
/// refused is how it learns that it is primary no more.
const TTL_FRACTION: u32 = 5;

/// What LiteFS runs with; `secret` is the password of the lease's URL, and the backup's token.
pub(crate) fn settings(config: &Config, secret: &Secret) -> LitefsYml {
    let litefs = &config.litefs;
    LitefsYml {
        fuse: Fuse {
            dir: Some(text(&litefs.mount)),
            allow_other: Some(litefs.allow_other.into()),
            debug: None,
        },
        data: Data {
            dir: Some(text(&litefs.data)),
            retention: Some(litefs.retention.into()),
            ..Data::default()
        },
        http: Http { addr: Some(litefs.http.to_string()), snapshot_timeout: None },
        lease: lease_settings(config, secret),
        ..backed_up(config, secret)
    }
}

fn lease_settings(config: &Config, secret: &Secret) -> Lease {
    let url = format!("http://litefs:{}@{}", secret.reveal(), config.litefs.lease_listen);
    Lease {
        kind: Some("consul".to_owned()),
        hostname: Some(config.node.to_string()),
        // Nobody uses it: our lease names a tunnel of ours instead.
        advertise_url: Some(format!("http://{}", dialable(config.litefs.http))),
        candidate: Some(config.cluster.candidate.into()),
        promote: Some(false.into()),
        reconnect_delay: Some(RECONNECT_DELAY.into()),
        consul: Consul {
            url: Some(url),
            key: Some(lease::KEY.to_owned()),
            ttl: Some((config.cluster.lease_ttl / TTL_FRACTION).into()),
            lock_delay: Some(LOCK_DELAY.into()),
        },
        ..Lease::default()
    }
}

/// With the backup that we serve, if that is configured.
fn backed_up(config: &Config, secret: &Secret) -> LitefsYml {
    let extra = extra(config);
    let Some(backup) = &config.backup else { return extra };
    let backup = Backup {
        kind: Some("litefs-cloud".to_owned()),
        url: Some(format!("http://{}", backup.listen)),
        auth_token: Some(secret.reveal().to_owned()),
        ..Backup::default()
    };
    LitefsYml { backup, ..extra }
}

/// `litefs.extra`, and what it leaves open.
fn extra(config: &Config) -> LitefsYml {
    let extra = LitefsYml::from(config.litefs.extra.clone());
    LitefsYml {
        // Until it has met a primary, a LiteFS without this ignores SIGTERM; and one that is to start us
        // would wait for the lease that we are not there to give.
        skip_sync: extra.skip_sync.or(Some(true.into())),
        log: Log {
            // Its lines go into our log, which has the time.
            format: extra.log.format.or(Some("json".to_owned())),
            timestamp: extra.log.timestamp.or(Some(false.into())),
            debug: extra.log.debug,
        },
        ..extra
    }
}

/// How this machine reaches what listens there.
fn dialable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        ip if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port())
        }
        _ => listen,
    }
}

/// LiteFS' configuration is UTF-8; a path that is not cannot be written there.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The text of the file.
pub(crate) fn render(config: &Config, secret: &Secret) -> String {
    let remarks = match config.litefs.engine {
        EngineKind::External => {
            "# For the LiteFS that you run beside Litepilot. The URL below holds a secret: keep this file\n\
             # to LiteFS' user (mode 0600). If LiteFS is to start Litepilot, add it under exec.\n"
        }
        _ => {
            "# Written by Litepilot at each start from its own configuration: changes here are lost. Keys\n\
             # of LiteFS that Litepilot does not set can be given under litefs.extra there.\n"
        }
    };
    format!("{remarks}{}", settings(config, secret).to_text())
}

/// Writes the file into `data_dir`, for the owner alone, and returns its path.
///
/// # Errors
///
/// When it cannot be written; an earlier one is then still there.
pub fn write(config: &Config, secret: &Secret) -> io::Result<PathBuf> {
    let path = config.data_dir.join(FILE);
    let explain = |error: io::Error| {
        let text = format!("cannot write {} ({error}): make data_dir writable", path.display());
        io::Error::new(error.kind(), text)
    };
    std::fs::create_dir_all(&config.data_dir).map_err(explain)?;
    files::replace_private(&path, render(config, secret).as_bytes()).map_err(explain)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use proptest::prelude::*;

    fn config(yaml: &str) -> Config {
        let text = format!("node: node-1\nproxy: {{target: ':1', db: app.db}}\n{yaml}");
        Config::from_yaml("/etc/litepilot.yml", text.as_bytes(), &|_| None).unwrap()
    }

    fn secret() -> Secret {
        "0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn litefs_gets_a_fifth_of_the_lease_and_the_secret() {
        let text = render(&config("cluster: {lease: {ttl: 1s}, candidate: false}"), &secret());
        for line in [
            "skip-sync: true",
            "  dir: \"/litefs\"",
            "  retention: \"1h\"",
            "  addr: \"127.0.0.1:20202\"",
            "  type: \"consul\"",
            "  hostname: \"node-1\"",
            "  candidate: false",
            "  promote: false",
            "  reconnect-delay: \"50ms\"",
            "    url: \"http://litefs:0123456789abcdef@127.0.0.1:20203\"",
            "    ttl: \"200ms\"",
            "  format: \"json\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn extra_keys_are_merged() {
        let text =
            "litefs: {extra: {log: {debug: true}, tracing: {path: /t}, strict-verify: true}}";
        let settings = settings(&config(text), &secret());
        assert_eq!(settings.log.format.as_deref(), Some("json"));
        assert_eq!(settings.log.debug, Some(true.into()));
        assert_eq!(settings.tracing.path.as_deref(), Some("/t"));
        assert_eq!(settings.strict_verify, Some(true.into()));
    }

    #[test]
    fn a_backup_is_brought_to_us() {
        let text = render(&config("backup: {url: 'file:///b', listen: '127.0.0.1:7'}"), &secret());
        for line in [
            "  type: \"litefs-cloud\"",
            "  url: \"http://127.0.0.1:7\"",
            "  auth-token: \"0123456789abcdef\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!render(&config(""), &secret()).contains("backup"));
    }

    #[test]
    fn an_external_litefs_may_start_us() {
        let text = render(&config("litefs: {engine: external, http: ':20202'}"), &secret());
        assert!(text.contains("\nskip-sync: true\n") && text.contains("under exec"), "{text}");
        assert!(text.contains("advertise-url: \"http://127.0.0.1:20202\""), "{text}");
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&format!("data_dir: {}/deep", dir.path().display()));
        let path = write(&config, &secret()).unwrap();
        assert_eq!(path, dir.path().join("deep/litefs.yml"));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let again = std::fs::read_to_string(write(&config, &secret()).unwrap()).unwrap();
        assert_eq!(again, render(&config, &secret()));
    }

    proptest! {
        /// Whatever is configured, LiteFS reads what was meant.
        #[test]
        fn what_was_rendered_reads_the_same(
            dirs in ("/[^\u{0}/]{1,20}", "/[^\u{0}/]{1,20}"),
            ttl in 1000u64..100_000,
            flags: (bool, bool),
            path in "[^\u{0}]{1,20}",
        ) {
            let mut config = config("");
            config.litefs.mount = dirs.0.into();
            config.litefs.data = dirs.1.into();
            config.cluster.lease_ttl = Duration::from_millis(ttl);
            (config.litefs.allow_other, config.cluster.candidate) = flags;
            config.litefs.extra.tracing.path = Some(path);
            let text = render(&config, &secret());
            let (read, _) = LitefsYml::parse(FILE, text.as_bytes()).unwrap();
            prop_assert_eq!(read, settings(&config, &secret()), "{}", text);
        }
    }
}
