//! What runs before a node takes writes for the first time in a reign: `app.on_promote`.

use std::sync::Arc;

use crate::config::Config;
use crate::engine::BoxFuture;
use crate::process::app;
use crate::process::guard::Guard;
use crate::process::hook;
use crate::process::spawn::Launch;
use crate::telemetry::events::Events;

/// Runs `app.on_promote`; ready with whether this node may take writes. It may write to the
/// database, hence `guard` is the application's.
pub fn run(
    config: &Config,
    env: Vec<(String, String)>,
    guard: Option<Guard>,
    events: Arc<Events>,
) -> impl Future<Output = bool> + Send + use<> {
    let hook = Launch {
        name: "on_promote",
        key: "app.on_promote",
        command: config.app.on_promote.clone(),
        user: config.app.user.clone(),
        env,
        log: app::log,
        guard,
    };
    let limit = config.app.hook_timeout;
    async move {
        if hook.command.is_empty() {
            return true;
        }
        match hook::run(&hook, limit).await {
            Ok(()) => {
                events.record("on-promote", "app.on_promote has run; this node takes writes");
                true
            }
            Err(why) => {
                let advice = "this node takes no writes; mend it and restart";
                events.record("on-promote", format!("app.on_promote: {why}; {advice}"));
                false
            }
        }
    }
}

/// A promotion, as often as there is one.
pub type Promotion = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// [`run`], each time it is asked for.
pub fn each_time(
    config: &Config,
    env: Vec<(String, String)>,
    guard: Option<Guard>,
    events: &Arc<Events>,
) -> Promotion {
    let (config, events) = (config.clone(), events.clone());
    Arc::new(move || Box::pin(run(&config, env.clone(), guard.clone(), events.clone())))
}
