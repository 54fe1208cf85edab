//! Lists of all servers: owns who is asked for a page and what the client gets of those that came. Pages are put together by
//! `protocol`.

use std::rc::Rc;

use mcp_protocol::mcp::federation::{List, Page, write_list};

use super::gather::{Outcome, gather};
use super::{Bodies, Way, count_missing, json, part};
use crate::door::Reply;
use crate::exchange::{Ended, Inbound};
use crate::shard::Shard;

/// Asks these servers for their page, and answers with what came. Where nothing came, the first failure is the answer.
pub(super) async fn list(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    (list, asked): (List, Bodies<'_>),
    way: Way,
    id: &[u8],
    reply: &mut Reply,
) -> Result<(), Ended> {
    let mut parts = Vec::with_capacity(asked.len());
    for (server, body) in asked {
        parts.push((server, part::message(shard, inbound, server, body.into_owned())?));
    }
    let setup = shard.setup();
    let federation = &setup.federation;
    let mut pages = Vec::new();
    let mut failed = Vec::new();
    for (server, outcome) in gather(shard, parts, way).await {
        let page = match &outcome {
            Outcome::Said { response, .. } => Page::read(federation, server, list, response),
            Outcome::Answered { .. } | Outcome::Refused(_) | Outcome::Silent => None,
        };
        match page {
            Some(page) => pages.push((server, page)),
            None => failed.push((server, outcome)),
        }
    }
    let missing: Vec<usize> = failed.iter().map(|(server, _)| *server).collect();
    count_missing(shard, &missing, list.method());
    if pages.is_empty()
        && let Some((_, outcome)) = failed.into_iter().next()
    {
        return outcome.pass_on(reply);
    }
    json(reply, &write_list(federation, list, id, &pages, &missing, way == Way::Modern));
    Ok(())
}
