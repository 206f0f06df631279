//! The certificates of `cluster.tls`: read at the start and again on SIGHUP, and watched for the day
//! on which they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::NodeId;
use crate::config::{Config, PeerTls};
use crate::peer::Credentials;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Fault, Identity, Validity};
use crate::yaml::{Place, Problem};

/// How often it is looked how long they still have.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// This node's certificates.
pub struct Certificates {
    files: PeerTls,
    node: NodeId,
    credentials: Arc<Credentials>,
    validity: watch::Sender<Validity>,
}

impl Certificates {
    /// Reads them; `None` if the configuration names none. Those that are not valid now will do: the
    /// clock may be wrong, and what serves without other nodes should go on.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files.
    pub fn load(config: &Config) -> Result<Option<Self>, Vec<Problem>> {
        let Some(files) = &config.cluster.tls else { return Ok(None) };
        let identity = read(files, &config.node)?;
        let credentials = Credentials::new(config.node.clone(), &identity)
            .map_err(|error| unusable(files, &error))?;
        Ok(Some(Self {
            files: files.clone(),
            node: config.node.clone(),
            credentials: Arc::new(credentials),
            validity: watch::Sender::new(identity.validity),
        }))
    }

    /// Reads them anew, for new connections.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files, their dates included; the old ones then stay.
    pub fn reload(&self) -> Result<(), Vec<Problem>> {
        let identity = read(&self.files, &self.node)?;
        let concern = identity.validity.concern(SystemTime::now());
        if let Some(concern) = concern.filter(|concern| concern.refused) {
            return Err(vec![problem(&self.files, concern.text)]);
        }
        self.credentials.replace(&identity).map_err(|error| unusable(&self.files, &error))?;
        self.validity.send_replace(identity.validity);
        Ok(())
    }

    /// What the peer port goes by.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.clone()
    }

    /// When they are valid, as they are replaced.
    pub fn validity(&self) -> watch::Receiver<Validity> {
        self.validity.subscribe()
    }
}

/// Tells, now and each day and whenever they are replaced, when certificates expire. Ends when nobody
/// can replace them any more.
pub async fn watch_expiry(
    mut validity: watch::Receiver<Validity>,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
) {
    loop {
        let now = *validity.borrow_and_update();
        metrics.node().certificate_expiry(now.until);
        if let Some(concern) = now.concern(SystemTime::now()) {
            events.warn("certificate", format!("this node's certificate: {}", concern.text));
        }
        if let Ok(Err(_)) = timeout(LOOK_EVERY, validity.changed()).await {
            return;
        }
    }
}

fn read(files: &PeerTls, node: &NodeId) -> Result<Identity, Vec<Problem>> {
    let to_problem = |fault: Fault| {
        let key = fault.part.as_str();
        let message = format!("cluster.tls.{key}: {}", fault.message);
        Problem::new(&fault.path.display().to_string(), Place::START, message)
    };
    let identity = Identity::read(files, node)
        .map_err(|faults| faults.into_iter().map(to_problem).collect::<Vec<_>>())?;
    for remark in &identity.remarks {
        tracing::warn!("cluster.tls.{}: {remark}", remark.part.as_str());
    }
    Ok(identity)
}

fn unusable(files: &PeerTls, error: &dyn std::error::Error) -> Vec<Problem> {
    vec![problem(files, error.to_string())]
}

fn problem(files: &PeerTls, why: String) -> Problem {
    let message = format!("cluster.tls.cert: {why}");
    Problem::new(&files.cert.display().to_string(), Place::START, message)
}
