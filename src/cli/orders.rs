//! What a running node is told by signals.

use std::future::pending;
use std::io;
use std::path::Path;

use rustix::process::Signal as Number;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::lifeline;
use crate::config::{Source, environment};
use crate::node::{self, Node};
use crate::shutdown::Urgency;

/// Meant for the application: many servers reopen logs or change their number of workers by these.
const FOR_THE_APP: [Number; 3] = [Number::USR1, Number::USR2, Number::WINCH];

/// Waits for signals.
pub(super) struct Orders {
    runtime: Runtime,
    stop: [Signal; 3],
    hang_up: Signal,
    for_the_app: mpsc::Receiver<Number>,
    /// The configuration with which the node was started.
    source: Source,
}

impl Orders {
    /// From now on signals are kept until they are obeyed.
    pub(super) fn take(source: Source) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let stop = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ];
        let hang_up = signal(SignalKind::hangup())?;
        let for_the_app = passed_on()?;
        drop(context);
        Ok(Self { runtime, stop, hang_up, for_the_app, source })
    }

    /// SIGTERM, SIGINT or SIGQUIT: stop, a second one: at once. SIGHUP: reload. Returns once the node
    /// stops. With `until_stdin_ends`, that end is as a SIGTERM.
    pub(super) fn obey(self, node: &Node, until_stdin_ends: bool) -> io::Result<()> {
        let Self { runtime, stop: [mut term, mut int, mut quit], mut hang_up, .. } = self;
        let (mut for_the_app, source) = (self.for_the_app, self.source);
        runtime.block_on(async {
            let mut alone = std::pin::pin!(left_alone(until_stdin_ends)?);
            let mut urgency = Urgency::Graceful;
            loop {
                tokio::select! {
                    () = node.stopped() => return Ok(()),
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = quit.recv() => {}
                    () = &mut alone => alone.set(left_alone(false)?),
                    _ = hang_up.recv() => {
                        reload(node, &source);
                        continue;
                    }
                    Some(number) = for_the_app.recv() => {
                        node.signal_app(number);
                        continue;
                    }
                }
                node.stop(urgency);
                urgency = Urgency::AtOnce;
            }
        })
    }
}

/// The signals for the application, in one stream. Equal ones that come faster than they are taken may
/// merge, as signals do.
fn passed_on() -> io::Result<mpsc::Receiver<Number>> {
    let (sender, receiver) = mpsc::channel(FOR_THE_APP.len());
    for number in FOR_THE_APP {
        let mut source = signal(SignalKind::from_raw(number.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while source.recv().await.is_some() && sender.send(number).await.is_ok() {}
        });
    }
    Ok(receiver)
}

/// Reads the configuration again, and the files that it names. What a running node does not take over
/// is said.
fn reload(node: &Node, source: &Source) {
    let read = Source::open(Some(Path::new(&source.file)))
        .and_then(|newer| newer.check(&environment).map(|config| (newer, config)));
    match read {
        Ok((newer, config)) => {
            say_what_waits(source, &newer);
            node.reload_as(&config);
        }
        Err(problems) => {
            node.refuse(&problems);
            // Certificates that were renewed must not wait for somebody to finish a configuration.
            node.reload();
        }
    }
}

fn say_what_waits(old: &Source, new: &Source) {
    let waits = |key: &String| {
        !node::RELOADED
            .iter()
            .any(|reloaded| key == reloaded || key.starts_with(&format!("{reloaded}.")))
    };
    let waiting: Vec<String> = old.changed_in(new).into_iter().filter(waits).collect();
    if !waiting.is_empty() {
        tracing::warn!("changed, but in force only after a restart: {}", waiting.join(", "));
    }
}

/// Ready when standard input ends, if that is waited for.
fn left_alone(wanted: bool) -> io::Result<impl Future<Output = ()>> {
    let end = if wanted { Some(lifeline::stdin_ends()?) } else { None };
    Ok(async move {
        match end {
            Some(end) => end.await,
            None => pending().await,
        }
    })
}
