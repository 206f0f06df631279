//! What is found out about a node's files before they are used.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};

use super::authority::Authority;
use super::*;
use crate::cluster::NodeId;
use crate::config::PeerTls;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The files of one node.
struct Files {
    dir: tempfile::TempDir,
    paths: PeerTls,
}

impl Files {
    /// What `authority` issues to `n1`.
    fn of(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [ca, cert, key] = ["ca.crt", "n1.crt", "n1.key"].map(|name| dir.path().join(name));
        let files = Self { dir, paths: PeerTls { ca, cert, key } };
        let issued = authority.issue(&n1(), &[], valid()).unwrap();
        files.write("ca.crt", authority.certificate());
        files.write("n1.crt", &issued.certificate);
        files.write("n1.key", &issued.key);
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn read(&self) -> Result<Identity, Vec<Fault>> {
        Identity::read(&self.paths, &n1())
    }

    /// The one thing that is wrong.
    fn fault(&self) -> (Part, String) {
        let faults = self.read().unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        (faults[0].part, faults[0].message.clone())
    }
}

fn n1() -> NodeId {
    "n1".parse().unwrap()
}

fn valid() -> Validity {
    Validity { from: SystemTime::now() - DAY, until: SystemTime::now() + DAY }
}

fn authority() -> Authority {
    Authority::create(valid()).unwrap()
}

#[track_caller]
fn assert_fault(files: &Files, part: Part, words: &str) {
    let (found, message) = files.fault();
    assert!(found == part && message.contains(words), "{found:?}: {message}");
}

#[test]
fn what_an_authority_issues_fits() {
    let identity = Files::of(&authority()).read().unwrap();
    assert_eq!(node_name(&identity.certified.cert[0]), Ok(n1()));
    assert_eq!(identity.remarks, []);
    let ends = identity.validity.until.duration_since(SystemTime::now()).unwrap();
    assert!(ends <= DAY && ends > DAY / 2, "{ends:?}");
}

#[test]
fn files_that_are_not_there_or_hold_something_else_are_all_named() {
    let files = Files::of(&authority());
    std::fs::remove_file(&files.paths.ca).unwrap();
    files.write("n1.crt", "no certificate");
    files.write("n1.key", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n");
    let faults = files.read().unwrap_err();
    let said: Vec<_> = faults.iter().map(|fault| (fault.part, fault.to_string())).collect();
    assert!(said[0].0 == Part::Ca && said[0].1.contains("ca.crt: it cannot be read"), "{said:?}");
    assert!(said[1].0 == Part::Cert && said[1].1.contains("BEGIN CERTIFICATE"), "{said:?}");
    assert!(said[2].0 == Part::Key && said[2].1.contains("no whole PEM file"), "{said:?}");
    assert_eq!(said.len(), 3);

    files.write("ca.crt", &"a".repeat(2 << 20));
    assert!(files.read().unwrap_err()[0].message.contains("larger than 1 MiB"));
}

#[test]
fn files_that_are_swapped_are_noticed() {
    let files = Files::of(&authority());
    let PeerTls { ca, cert, key } = files.paths.clone();
    let swapped = |ca: &PathBuf, cert: &PathBuf, key: &PathBuf| {
        let paths = PeerTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
        let faults = Identity::read(&paths, &n1()).unwrap_err();
        faults.into_iter().map(|fault| fault.part).collect::<Vec<_>>()
    };
    assert_eq!(swapped(&cert, &cert, &key), [Part::Ca]);
    assert_eq!(swapped(&ca, &ca, &key), [Part::Key]);
    assert_eq!(swapped(&ca, &key, &cert), [Part::Cert, Part::Key]);
}

#[test]
fn a_key_of_another_certificate_is_noticed() {
    let files = Files::of(&authority());
    files.write("n1.key", &KeyPair::generate().unwrap().serialize_pem());
    assert_fault(&files, Part::Key, "not the key of the first certificate");
}

#[test]
fn a_certificate_of_another_authority_is_noticed() {
    let files = Files::of(&authority());
    files.write("ca.crt", authority().certificate());
    assert_fault(&files, Part::Cert, "was not issued by the authority in");
}

#[test]
fn while_an_authority_is_replaced_both_are_believed() {
    let (old, new) = (authority(), authority());
    let files = Files::of(&new);
    files.write("ca.crt", &[old.certificate(), new.certificate()].concat());
    assert_eq!(files.read().unwrap().authorities.len(), 2);
}

#[test]
fn a_chain_may_lead_to_the_authority() {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "root");
    let root = rcgen::CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap());
    let root = root.unwrap();
    params.distinguished_name.push(DnType::CommonName, "between");
    let key = KeyPair::generate().unwrap();
    let between = rcgen::CertifiedIssuer::signed_by(params, key, &root).unwrap();
    let mut own = CertificateParams::default();
    own.distinguished_name.push(DnType::CommonName, "n1");
    let key = KeyPair::generate().unwrap();
    let own = own.signed_by(&key, &between).unwrap();

    let files = Files::of(&authority());
    files.write("ca.crt", &root.pem());
    files.write("n1.key", &key.serialize_pem());
    files.write("n1.crt", &[own.pem(), between.pem()].concat());
    assert_eq!(files.read().unwrap().certified.cert.len(), 2);
    files.write("n1.crt", &own.pem());
    assert_fault(&files, Part::Cert, "was not issued by the authority in");
}

#[test]
fn a_certificate_of_another_node_is_noticed() {
    let files = Files::of(&authority());
    let faults = Identity::read(&files.paths, &"N1".parse().unwrap()).unwrap_err();
    assert!(faults[0].message.contains("issued to n1, but this node is N1"), "{faults:?}");
}

#[test]
fn a_certificate_without_a_good_name_is_noticed() {
    let authority = authority();
    let files = Files::of(&authority);
    for (names, words) in [
        (&[][..], "not one common name"),
        (&["n1", "n2"], "not one common name"),
        (&["n 1"], "\"n 1\", can be no node's name"),
    ] {
        let mut params = CertificateParams::new(["n1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (i, name) in names.iter().enumerate() {
            let kind = if i == 0 { DnType::CommonName } else { second_common_name() };
            params.distinguished_name.push(kind, *name);
        }
        sign(&files, &authority, params);
        let faults = files.read().unwrap_err();
        assert!(faults[0].message.contains(words), "{names:?}: {faults:?}");
    }
}

/// rcgen keeps one entry of each kind; by its number it is another kind.
fn second_common_name() -> DnType {
    DnType::CustomDnType(vec![2, 5, 4, 3])
}

fn sign(files: &Files, authority: &Authority, params: CertificateParams) {
    let key = KeyPair::generate().unwrap();
    let ca_key = KeyPair::from_pem(&authority.key()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(authority.certificate(), ca_key).unwrap();
    files.write("n1.crt", &params.signed_by(&key, &issuer).unwrap().pem());
    files.write("n1.key", &key.serialize_pem());
}

#[test]
fn a_certificate_for_one_end_only_is_noticed() {
    let authority = authority();
    let files = Files::of(&authority);
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    for one in [ClientAuth, ServerAuth] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "n1");
        params.extended_key_usages = vec![one];
        sign(&files, &authority, params);
        assert_fault(&files, Part::Cert, "serverAuth and clientAuth");
    }
}

#[test]
fn dates_are_told_apart_from_what_is_wrong() {
    let authority = authority();
    let files = Files::of(&authority);
    let now = SystemTime::now();
    for validity in [
        Validity { from: now - DAY, until: now - DAY / 2 },
        Validity { from: now + DAY / 4, until: now + DAY / 2 },
    ] {
        let issued = authority.issue(&n1(), &[], validity).unwrap();
        files.write("n1.crt", &issued.certificate);
        files.write("n1.key", &issued.key);
        let read = files.read().unwrap().validity;
        assert!(read.concern(now).unwrap().refused, "{read:?}");
    }
}

#[test]
fn a_key_that_everybody_may_read_is_remarked_upon() {
    let files = Files::of(&authority());
    std::fs::set_permissions(&files.paths.key, PermissionsExt::from_mode(0o644)).unwrap();
    let remarks = files.read().unwrap().remarks;
    assert!(remarks.len() == 1 && remarks[0].message.contains("chmod 600"), "{remarks:?}");
}

#[test]
fn an_authority_issues_nothing_that_outlives_it() {
    let issued =
        authority().issue(&n1(), &[], Validity { until: SystemTime::now() + DAY * 9, ..valid() });
    assert!(issued.unwrap().validity.until <= SystemTime::now() + DAY);
    let over = Validity { from: SystemTime::now() - DAY, until: SystemTime::now() - DAY / 2 };
    let later = Validity { from: SystemTime::now() - DAY / 4, ..valid() };
    let refused = Authority::create(over).unwrap().issue(&n1(), &[], later).err().unwrap();
    assert!(refused.to_string().contains("has expired"), "{refused}");
}

#[test]
fn hosts_are_names_or_addresses() {
    let authority = authority();
    let issue = |host: &str| authority.issue(&n1(), &[host.to_owned()], valid());
    for good in ["a.example", "*.example.org", "10.0.0.1", "::1"] {
        assert!(issue(good).is_ok(), "{good}");
    }
    for bad in ["", "a b", "a:80", "ä.example", "https://a"] {
        assert!(issue(bad).err().unwrap().to_string().contains("no host name"), "{bad}");
    }
}
