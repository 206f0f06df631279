//! What is read anew while a node runs: rules, error pages and certificates.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::certificates::Certificates;
use super::edge::EdgeCertificates;
use crate::config::{self, Config};
use crate::proxy::error_pages::ErrorPages;
use crate::rules::RuleSet;
use crate::telemetry::events::Events;
use crate::yaml::Problem;

/// The keys of the configuration that [`Reloadable::adopt`] heeds.
pub(crate) const KEYS: [&str; 2] = ["proxy.rules", "proxy.error_pages"];

pub(super) struct Reloadable {
    pub(super) files: Mutex<Files>,
    pub(super) rules: watch::Sender<Arc<RuleSet>>,
    pub(super) error_pages: watch::Sender<Arc<ErrorPages>>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) edge: Option<Arc<EdgeCertificates>>,
    pub(super) events: Arc<Events>,
}

/// The files that a configuration names, and of which others may be named later.
#[derive(Clone)]
pub(super) struct Files {
    rules: Vec<String>,
    error_pages: config::ErrorPages,
}

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        Self { rules: config.proxy.rules.clone(), error_pages: config.proxy.error_pages.clone() }
    }
}

impl Reloadable {
    /// From now on these files are read.
    pub(super) fn adopt(&self, config: &Config) {
        *self.files.lock() = Files::of(config);
    }

    pub(super) fn reload(&self) {
        let files = self.files.lock().clone();
        let rules =
            RuleSet::load(&files.rules).map(|rules| drop(self.rules.send_replace(Arc::new(rules))));
        self.tell("rules", rules);
        if self.has_pages(&files) {
            let pages = ErrorPages::load(&files.error_pages)
                .map(|pages| drop(self.error_pages.send_replace(Arc::new(pages))));
            self.tell("error pages", pages);
        }
        if let Some(certificates) = &self.certificates {
            self.tell("certificates", certificates.reload());
        }
        if let Some(edge) = &self.edge {
            self.tell("certificates of proxy.tls", edge.reload());
        }
    }

    fn has_pages(&self, files: &Files) -> bool {
        files.error_pages != config::ErrorPages::default() || !self.error_pages.borrow().is_empty()
    }

    /// Logs how it went, and keeps it as an event.
    pub(super) fn tell(&self, what: &str, reloaded: Result<(), Vec<Problem>>) {
        let Err(problems) = reloaded else {
            return self.events.record("reload", format!("{what} reloaded"));
        };
        for problem in problems {
            tracing::error!("{problem}");
        }
        let text = format!("{what} not reloaded: the old ones stay in force");
        tracing::error!("{text}");
        self.events.keep("reload", text);
    }
}
