//! What it does not start with: the message, and the exit code.

use std::net::TcpListener;

use super::program::Setup;

/// Starts it; its exit code and all that it said.
async fn refused(setup: Setup) -> (Option<i32>, String) {
    let mut program = setup.begin();
    let code = program.ended().await.code();
    (code, program.log())
}

#[tokio::test]
async fn a_port_that_another_has_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (setup, key) in [
        (Setup::new().proxy(&format!("listen: {address}")), "proxy.listen"),
        (Setup::new().key(&format!("admin: {{listen: {address}}}")), "admin.listen"),
    ] {
        let (code, said) = refused(setup).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("cannot listen at {key} {address}")), "{said}");
        assert!(said.contains("stop that one, or choose another port"), "{said}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let setup = Setup::new().key("data_dir: litepilot.yml/data");
    let (code, said) = refused(setup).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot make data_dir") && said.contains("litepilot.yml/data"), "{said}");
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_all_its_problems() {
    let setup = Setup::new().key("shutdown_timeout: soon").proxy("listne: 127.0.0.1:0");
    let (code, said) = refused(setup).await;
    assert_eq!(code, Some(78), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("litepilot.yml:1:19: ") && said.contains("listne"), "{said}");
}

#[tokio::test]
async fn bad_rules_are_bad_configuration() {
    let setup = Setup::new().proxy("rules: [rules.yml]");
    std::fs::write(setup.file("rules.yml"), "rules:\n  - as: reed\n").unwrap();
    let (code, said) = refused(setup).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("rules.yml:2:") && said.contains("reed"), "{said}");
}

#[tokio::test]
async fn bad_certificates_are_bad_configuration() {
    let setup = Setup::new().key("cluster: {tls: {ca: a.crt, cert: b.crt, key: c.key}}");
    std::fs::write(setup.file("c.key"), "no key").unwrap();
    let (code, said) = refused(setup).await;
    assert_eq!(code, Some(78), "{said}");
    for words in
        ["a.crt:1:1: cluster.tls.ca: it cannot be read", "cluster.tls.cert", "no PEM block"]
    {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

#[tokio::test]
async fn what_this_version_does_not_do_is_refused_with_what_it_does() {
    let peers = "peers: {here: 127.0.0.1:4321, there: 127.0.0.1:4322}";
    let fixed = format!("election: static, primary: here, {peers}");
    let setup = Setup::new().key(&format!("cluster: {{{fixed}, witnesses: [there]}}"));
    let (code, said) = refused(setup).await;
    assert_eq!(code, Some(1), "{said}");
    for word in ["cluster.witnesses", "leave them out"] {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}
