//! The command, run on the primary's machine.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Error, anyhow, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};

use super::{OnPrimaryArgs, say};
use crate::admin::client::Node;
use crate::cluster::NodeId;
use crate::control::command::{ForwardedCommand, Said};

/// Bytes of one line: a line of a command's output, as JSON.
const MAX_LINE: usize = 1024 * 1024;

/// Has `primary` run it; says what it says, and how it ended.
pub(super) async fn run(
    node: &Node,
    primary: &NodeId,
    args: &OnPrimaryArgs,
) -> anyhow::Result<ExitCode> {
    let words = args.command.iter().map(|word| word.to_str().map(str::to_owned));
    let command = words.collect::<Option<_>>();
    let command = command.context("only a command in UTF-8 can be forwarded")?;
    let asked = ForwardedCommand { command, once: args.once.as_ref().map(ToString::to_string) };
    let asked = serde_json::to_vec(&asked)?;
    say(format_args!("{primary} is the primary: the command runs there"));
    let answer = node.converse("/on-primary/forward", Full::new(Bytes::from(asked))).await;
    let (answer, _connection) = answer?;
    let mut body = answer.into_body();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| lost(&why))?;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end + 1);
            if let Some(ended) = heard(primary, &line)? {
                return Ok(ended);
            }
        }
        if rest.len() > MAX_LINE {
            bail!("the node says more than it should");
        }
    }
    Err(lost(&"the connection has ended"))
}

/// One line; the exit code, if it was the last.
fn heard(primary: &NodeId, line: &[u8]) -> anyhow::Result<Option<ExitCode>> {
    let said = serde_json::from_slice(line)
        .with_context(|| format!("{primary} says something that this version does not know"))?;
    match said {
        Said::Out(line) => drop(writeln!(io::stdout(), "{line}")),
        Said::Err(line) => drop(writeln!(io::stderr(), "{line}")),
        Said::Waits(why) => say(why),
        Said::Exit(code) => return Ok(Some(ExitCode::from(code))),
        Said::AlreadyDone => {
            say("done before, under this key: there is nothing to do");
            return Ok(Some(ExitCode::SUCCESS));
        }
        Said::Refused(why) => bail!("{primary} refuses: {why}"),
    }
    Ok(None)
}

fn lost(why: &dyn std::fmt::Display) -> Error {
    anyhow!("how the command ended is not known: {why}; look before you give it again")
}
