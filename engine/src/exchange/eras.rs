//! The eras of an exchange's two ends: owns what becomes of each pair, and how a server's era is found out. The same era
//! passes through; another one gets the specification's own error (versioning.mdx, "Compatibility Matrix"), and is where a
//! translation will stand.

use std::rc::Rc;

use mcp_protocol::jsonrpc::Scan;

use super::ask::{self, Asker};
use super::forward::{self, Sent};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::mailbox::Mail;
pub(super) use crate::shard::table::eras::Era;
use crate::shard::table::eras::Known;
use crate::upstream::Upstream;
use crate::upstream::answer::Answer;
use crate::upstream::call::CallError;

/// Errors by which a server of the modern era is recognised (versioning.mdx): they exist in no other.
const MODERN_ERRORS: &[i64] = &[-32020, -32021, -32022];
/// What a server without the modern endpoint says when it does not say it in JSON-RPC.
const LEGACY_STATUSES: &[u16] = &[400, 404, 405, 406, 415];
/// JSON-RPC: a server of the modern era has no `initialize`.
const METHOD_NOT_FOUND: i64 = -32601;

/// The two ends of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EraPair {
    pub(super) client: Era,
    /// What is known of the server and the client's era.
    server: Known,
}

/// What becomes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The message goes through as it is.
    Through,
    /// The server does not speak the client's era.
    Crossed,
    /// It did not when it was asked last: it is asked again, meanwhile that counts.
    CrossedSoFar,
    /// Nobody has asked the server.
    Unknown,
}

impl EraPair {
    pub(super) fn new(shard: &Shard, upstream: &Upstream, client: Era) -> Self {
        EraPair { client, server: upstream.shared().eras.get(client, shard.core.clock.now()) }
    }

    pub(super) fn way(self) -> Way {
        match (self.client, self.server) {
            (_, Known::Speaks) => Way::Through,
            (_, Known::Refuses) => Way::Crossed,
            (Era::Modern, Known::Refused) => Way::CrossedSoFar,
            (Era::Modern, Known::Nothing) => Way::Unknown,
            // `initialize` is the question itself.
            (Era::Legacy, Known::Refused | Known::Nothing) => Way::Through,
        }
    }
}

/// Whether a modern message may go to the server; asks the server where nobody has. `requested` is the client's revision.
///
/// # Errors
/// [`Refusal::LegacyServer`], or why the server could not be asked.
pub(super) async fn check_modern(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    asker: Asker<'_>,
    requested: &[u8],
) -> Result<(), Refusal> {
    let way = match EraPair::new(shard, upstream, Era::Modern).way() {
        Way::CrossedSoFar if upstream.is_probed() => {
            look_again(shard, upstream);
            Way::Crossed
        }
        Way::Unknown | Way::CrossedSoFar => {
            let Sent { answer, mut trial } = ask::discover(shard, upstream, asker).await?;
            trial.passed();
            match read_discovered(shard, upstream, answer).await {
                Ok(Some(false)) => Way::Crossed,
                // Where nothing is learned, the client's own request gets the server's own answer.
                Ok(Some(true) | None) => Way::Through,
                Err(error) => return Err(forward::refusal(upstream, &error)),
            }
        }
        known => known,
    };
    match way {
        Way::Through | Way::Unknown => Ok(()),
        Way::Crossed | Way::CrossedSoFar => Err(Refusal::LegacyServer {
            server: upstream.name.to_string(),
            requested: String::from_utf8_lossy(requested).into_owned(),
        }),
    }
}

/// Whether `initialize` may go to the server.
///
/// # Errors
/// [`Refusal::ModernServer`] where the server has just refused another one.
pub(super) fn check_legacy(shard: &Shard, upstream: &Upstream, requested: &str) -> Result<(), Refusal> {
    match EraPair::new(shard, upstream, Era::Legacy).way() {
        Way::Crossed | Way::CrossedSoFar => Err(modern_server(upstream, requested)),
        Way::Through | Way::Unknown => Ok(()),
    }
}

/// What a server's answer to a modern message shows of its era: one that is known to be modern and does not behave so is
/// asked again, because another may have taken its place.
pub(super) fn look_at_modern(shard: &Shard, upstream: &Upstream, status: u16) {
    let was_modern = upstream.shared().eras.get(Era::Modern, shard.core.clock.now()) == Known::Speaks;
    if was_modern && LEGACY_STATUSES.contains(&status) {
        look_again(shard, upstream);
    }
}

/// The answer to `initialize` is an error: whether the server is one that has no `initialize` at all.
///
/// # Errors
/// [`Refusal::ModernServer`] then.
pub(super) fn look_at_initialize(
    shard: &Shard,
    upstream: &Upstream,
    response: &Scan,
    requested: &str,
) -> Result<(), Refusal> {
    let eras = &upstream.shared().eras;
    let now = shard.core.clock.now();
    let refused =
        response.error_code.is_some_and(|code| code == METHOD_NOT_FOUND || MODERN_ERRORS.contains(&code));
    if refused {
        eras.learn(Era::Legacy, false, now);
        return Err(modern_server(upstream, requested));
    }
    if response.result.is_some() {
        eras.learn(Era::Legacy, true, now);
    }
    Ok(())
}

fn modern_server(upstream: &Upstream, requested: &str) -> Refusal {
    Refusal::ModernServer { server: upstream.name.to_string(), requested: requested.to_owned() }
}

/// Has the server asked in the background.
fn look_again(shard: &Shard, upstream: &Upstream) {
    // A mailbox that is full has others look; this server's turn comes with its next client.
    let _ = shard.process.mailboxes[0].send(Mail::Discover(upstream.index()));
}

/// What an answer to `server/discover` says: whether the server speaks the modern era, or `None` where that cannot be told.
/// All shards learn it.
///
/// # Errors
/// [`CallError`] when the answer is late, broken off or too large.
pub(super) async fn read_discovered(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    answer: Answer,
) -> Result<Option<bool>, CallError> {
    let status = answer.status();
    if matches!(status, 401 | 403 | 408 | 429) || status >= 500 {
        return Ok(None);
    }
    let speaks = match ask::read_answer(shard, upstream, answer).await? {
        Some((_, scan)) if !scan.is_error => true,
        Some((_, scan)) => scan.error_code.is_some_and(|code| MODERN_ERRORS.contains(&code)),
        None if LEGACY_STATUSES.contains(&status) => false,
        None => return Ok(None),
    };
    if upstream.shared().eras.learn(Era::Modern, speaks, shard.core.clock.now()) {
        tracing::debug!(server = &*upstream.name, speaks, "whether a server speaks 2026-07-28");
    }
    Ok(Some(speaks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_has_its_way() {
        let way = |client, server| EraPair { client, server }.way();
        for (known, modern, legacy) in [
            (Known::Nothing, Way::Unknown, Way::Through),
            (Known::Speaks, Way::Through, Way::Through),
            (Known::Refuses, Way::Crossed, Way::Crossed),
            (Known::Refused, Way::CrossedSoFar, Way::Through),
        ] {
            assert_eq!((way(Era::Modern, known), way(Era::Legacy, known)), (modern, legacy), "{known:?}");
        }
    }
}
