//! The certificates of `cluster.tls`: read at the start and again on SIGHUP. And the watch over these and
//! those of `proxy.tls` for the day on which they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::NodeId;
use crate::config::{Config, PeerTls};
use crate::peer::Credentials;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{CertificateUse, Metrics};
use crate::tls::{Fault, Identity, Validity};
use crate::yaml::{Place, Problem};

/// How often it is looked how long they still have.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Certificates {
    files: PeerTls,
    node: NodeId,
    credentials: Arc<Credentials>,
    dated: watch::Sender<Vec<Dated>>,
}

/// A certificate that will expire.
pub(crate) struct Dated {
    /// What to call it.
    pub(crate) name: String,
    /// When it is valid.
    pub(crate) validity: Validity,
}

impl Certificates {
    /// Reads them; `None` if the configuration names none. Those that are not valid now will do: the
    /// clock may be wrong, and what serves without other nodes should go on.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files.
    pub(crate) fn load(config: &Config) -> Result<Option<Self>, Vec<Problem>> {
        let Some(files) = &config.cluster.tls else { return Ok(None) };
        let identity = read(files, &config.node)?;
        let credentials = Credentials::new(config.node.clone(), &identity)
            .map_err(|error| unusable(files, &error))?;
        Ok(Some(Self {
            files: files.clone(),
            node: config.node.clone(),
            credentials: Arc::new(credentials),
            dated: watch::Sender::new(dated(&identity)),
        }))
    }

    /// Reads them anew, for new connections.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files, their dates included; the old ones then stay.
    pub(crate) fn reload(&self) -> Result<(), Vec<Problem>> {
        let identity = read(&self.files, &self.node)?;
        let concern = identity.validity.concern(SystemTime::now());
        if let Some(concern) = concern.filter(|concern| concern.refused) {
            return Err(vec![problem(&self.files, concern.text)]);
        }
        self.credentials.replace(&identity).map_err(|error| unusable(&self.files, &error))?;
        self.dated.send_replace(dated(&identity));
        Ok(())
    }

    /// What the peer port goes by.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.credentials.clone()
    }

    /// When they are valid, as they are replaced.
    pub(crate) fn dated(&self) -> watch::Receiver<Vec<Dated>> {
        self.dated.subscribe()
    }
}

/// Tells, now and each day and whenever they are replaced, when certificates expire. Ends when nobody
/// can replace them any more.
pub(crate) async fn watch_expiry(
    of: CertificateUse,
    mut dated: watch::Receiver<Vec<Dated>>,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
) {
    loop {
        {
            let dated = dated.borrow_and_update();
            if let Some(first) = dated.iter().map(|one| one.validity.until).min() {
                metrics.node().certificate_expiry(of, first);
            }
            for Dated { name, validity } in dated.iter() {
                if let Some(concern) = validity.concern(SystemTime::now()) {
                    events.warn("certificate", format!("{name}: {}", concern.text));
                }
            }
        }
        if let Ok(Err(_)) = timeout(LOOK_EVERY, dated.changed()).await {
            return;
        }
    }
}

fn dated(identity: &Identity) -> Vec<Dated> {
    vec![Dated { name: "this node's certificate".to_owned(), validity: identity.validity }]
}

fn read(files: &PeerTls, node: &NodeId) -> Result<Identity, Vec<Problem>> {
    let identity = Identity::read(files, node).map_err(|faults| problems("cluster.tls", faults))?;
    for remark in &identity.remarks {
        tracing::warn!("cluster.tls.{}: {remark}", remark.part.as_str());
    }
    Ok(identity)
}

/// What is wrong with the files of a section.
pub(crate) fn problems(section: &str, faults: Vec<Fault>) -> Vec<Problem> {
    let to_problem = |fault: Fault| {
        let message = format!("{section}.{}: {}", fault.part.as_str(), fault.message);
        Problem::new(&fault.path.display().to_string(), Place::START, message)
    };
    faults.into_iter().map(to_problem).collect()
}

fn unusable(files: &PeerTls, error: &dyn std::error::Error) -> Vec<Problem> {
    vec![problem(files, error.to_string())]
}

fn problem(files: &PeerTls, why: String) -> Problem {
    let message = format!("cluster.tls.cert: {why}");
    Problem::new(&files.cert.display().to_string(), Place::START, message)
}
