//! Greetings of all servers: owns who is greeted, and the session that `initialize` opens with those that answered.

use std::rc::Rc;

use mcp_protocol::jsonrpc::Scan;
use mcp_protocol::mcp::federation::{Hello, write_discover, write_initialize};

use super::gather::{Outcome, Outcomes, gather};
use super::{INFO, Way, count_missing, json, legacy, part};
use crate::door::Reply;
use crate::exchange::{Ended, Inbound};
use crate::shard::Shard;

/// `server/discover`: what those servers say that speak the modern era.
pub(super) async fn discover(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    id: &[u8],
    reply: &mut Reply,
) -> Result<(), Ended> {
    let (hellos, failed) = sorted(
        gather(shard, part::for_each(shard, inbound, shard.setup().federation.numbers())?, Way::Modern).await,
    );
    let missing: Vec<usize> = failed.iter().map(|(server, _)| *server).collect();
    count_missing(shard, &missing, "server/discover");
    if hellos.is_empty()
        && let Some((_, outcome)) = failed.into_iter().next()
    {
        return outcome.pass_on(reply);
    }
    json(reply, &write_discover(&shard.setup().federation, id, &hellos, &missing, INFO));
    Ok(())
}

/// `initialize`: the servers that answer each open a session of their own, and the client gets one of ours.
pub(super) async fn initialize(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    scan: &Scan,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let opening = legacy::Opening::begin(shard, inbound, scan).await?;
    let outcomes =
        gather(shard, part::for_each(shard, inbound, shard.setup().federation.numbers())?, Way::Entered)
            .await;
    let sessions = legacy::sessions(&outcomes);
    let (hellos, failed) = sorted(outcomes);
    let id = scan.id.map(|id| id.of(&inbound.message.body)).unwrap_or_default();
    let missing: Vec<usize> = failed.iter().map(|(server, _)| *server).collect();
    count_missing(shard, &missing, "initialize");
    let Some((response, revision)) = write_initialize(&shard.setup().federation, id, &hellos, &missing, INFO)
    else {
        let first = failed.into_iter().next().map_or(Outcome::Silent, |(_, outcome)| outcome);
        return first.pass_on(reply);
    };
    let session = opening.finish(shard, sessions, revision).await?;
    let fields = format!(
        "Content-Type: application/json\r\nMcp-Session-Id: {}\r\n",
        String::from_utf8_lossy(&session.text())
    );
    reply.full(200, fields.as_bytes(), &response);
    Ok(())
}

/// Those that said hello, and those that did not.
fn sorted(outcomes: Outcomes) -> (Vec<(usize, Hello)>, Outcomes) {
    let mut hellos = Vec::new();
    let mut failed = Vec::new();
    for (server, outcome) in outcomes {
        let hello = match &outcome {
            Outcome::Said { response, .. } => Hello::read(response),
            Outcome::Answered { .. } | Outcome::Refused(_) | Outcome::Silent => None,
        };
        match hello {
            Some(hello) => hellos.push((server, hello)),
            None => failed.push((server, outcome)),
        }
    }
    (hellos, failed)
}
