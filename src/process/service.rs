//! A service: a program that runs beside the application, as a child of ours like it.

use super::app;
use super::child::Spec;
use super::guard::Guard;
use super::spawn::Launch;
use crate::config;

/// The configuration key of a service's program, for messages.
const KEY: &str = "services.command";

/// A service as configured, with `env` added to our environment, under a guard if there is one.
pub(crate) fn spec(
    service: &config::Service,
    env: Vec<(String, String)>,
    guard: Option<Guard>,
) -> Spec {
    let launch = Launch {
        name: service.name.as_str().into(),
        key: KEY,
        command: service.command.clone(),
        user: service.user.clone(),
        env,
        log: app::log.into(),
        guard,
    };
    let stop_signal = service.stop_signal;
    Spec { stop_signal, ..Spec::new(launch, service.grace, app::BACKOFF) }
}
