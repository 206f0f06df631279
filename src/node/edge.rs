//! The certificates of `proxy.tls`: read at the start and again on SIGHUP.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use tokio::sync::watch;

use super::certificates::{Dated, problems};
use crate::config::{Config, EdgeTls};
use crate::tls::edge::{Shown, server_config};
use crate::tls::{Fault, Part, exposed};
use crate::yaml::Problem;

const SECTION: &str = "proxy.tls";

/// What clients are shown.
pub(crate) struct EdgeCertificates {
    files: EdgeTls,
    config: watch::Sender<Arc<ServerConfig>>,
    dated: watch::Sender<Vec<Dated>>,
}

impl EdgeCertificates {
    /// Reads them; `None` if the configuration names none, or no client ever comes here. Those that
    /// are not valid now will do: the clock may be wrong.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files.
    pub(crate) fn load(config: &Config) -> Result<Option<Self>, Vec<Problem>> {
        let Some(files) = config.proxy.tls.clone().filter(|_| !config.is_witness()) else {
            return Ok(None);
        };
        let (config, dated) = read(&files)?;
        let (config, dated) = (watch::Sender::new(config), watch::Sender::new(dated));
        Ok(Some(Self { files, config, dated }))
    }

    /// Reads them anew, for new connections.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files; the old ones then all stay. So they do if one that is
    /// not valid now would take the place of one that is.
    pub(crate) fn reload(&self) -> Result<(), Vec<Problem>> {
        let (config, dated) = read(&self.files)?;
        let worse = self.worse(&dated);
        if !worse.is_empty() {
            return Err(problems(SECTION, worse));
        }
        self.config.send_replace(config);
        self.dated.send_replace(dated);
        Ok(())
    }

    fn worse(&self, new: &[Dated]) -> Vec<Fault> {
        let now = SystemTime::now();
        let refused = |one: &Dated| one.validity.concern(now).filter(|concern| concern.refused);
        let old = self.dated.borrow();
        let pairs = self.files.0.iter().zip(old.iter().zip(new));
        let worse = pairs.filter_map(|(files, (old, new))| {
            let concern = refused(new).filter(|_| refused(old).is_none())?;
            Some(Fault { part: Part::Cert, path: files.cert.clone(), message: concern.text })
        });
        worse.collect()
    }

    /// What the public port goes by, as it is replaced.
    pub(crate) fn config(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// When they are valid, as they are replaced.
    pub(crate) fn dated(&self) -> watch::Receiver<Vec<Dated>> {
        self.dated.subscribe()
    }
}

/// All or none of them.
fn read(files: &EdgeTls) -> Result<(Arc<ServerConfig>, Vec<Dated>), Vec<Problem>> {
    let (mut shown, mut wrong) = (Vec::new(), Vec::new());
    for pair in &files.0 {
        match Shown::read(pair) {
            Ok(one) => {
                if let Some(remark) = exposed(&pair.key) {
                    tracing::warn!("{SECTION}.key: {remark}");
                }
                shown.push(one);
            }
            Err(faults) => wrong.extend(problems(SECTION, faults)),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let name = |shown: &Shown| format!("{SECTION}: {}", shown.file.display());
    let dated = |shown: &Shown| Dated { name: name(shown), validity: shown.validity };
    let dated = shown.iter().map(dated).collect();
    let unusable = |error: rustls::Error| {
        let fault = |pair: &crate::config::CertKey| Fault {
            part: Part::Cert,
            path: pair.cert.clone(),
            message: format!("it cannot be used: {error}"),
        };
        problems(SECTION, files.0.iter().map(fault).collect())
    };
    Ok((server_config(shown).map_err(unusable)?, dated))
}
