//! The certificates that clients are shown, replaced while it runs.

use std::process::Command;

use rustix::process::Signal;

use super::files::Files;
use super::program::{Program, Setup};

/// Whether curl gets an answer and, if it believes in nothing else, is shown that certificate.
async fn is_shown(program: &Program, files: &Files, certificate: &str) -> bool {
    let address = program.secure_address();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "30", "--http2", "--noproxy", "*", "--cacert"])
        .arg(files.path(certificate))
        .args(["--connect-to", &format!("shop.test:443:{address}")])
        .arg("https://shop.test/litefs/health");
    tokio::task::spawn_blocking(move || curl.output().unwrap().status.success()).await.unwrap()
}

#[tokio::test]
async fn sighup_replaces_what_clients_are_shown_and_refuses_what_does_not_fit() {
    let files = Files::of_shop();
    std::fs::copy(files.path("shop.crt"), files.path("old.crt")).unwrap();
    let mut program = Setup::new().proxy(&files.tls(&["shop"])).start().await;
    assert!(is_shown(&program, &files, "old.crt").await);

    files.issue("shop", &["shop.test"]);
    std::fs::copy(files.path("shop.crt"), files.path("new.crt")).unwrap();
    program.signal(Signal::HUP);
    program.says("certificates of proxy.tls reloaded").await;
    assert!(is_shown(&program, &files, "new.crt").await);
    assert!(!is_shown(&program, &files, "old.crt").await);

    files.issue("other", &["shop.test"]);
    std::fs::copy(files.path("other.key"), files.path("shop.key")).unwrap();
    program.signal(Signal::HUP);
    program.says("certificates of proxy.tls not reloaded: the old ones stay in force").await;
    program.says("proxy.tls.key: it is not the key of the first certificate in").await;
    assert!(is_shown(&program, &files, "new.crt").await);
}
