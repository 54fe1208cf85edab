//! Forwarding: owns the one loop in which a message is brought to an endpoint: which endpoint, how often, and until when;
//! and the translation of what can go wrong there. Never the answer's content.
//!
//! Invariants: the first attempt starts the clock for all; what a server may have received is sent again only where that
//! does no harm; every attempt but the first is paid for ([`crate::upstream::retry`]).

use std::future::pending;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::Scan;

use super::Message;
use crate::exchange::headers::write_request;
use crate::metrics::Retried;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::shard::table::endpoints::Health;
use crate::upstream::answer::Answer;
use crate::upstream::call::{Ask, CallError, ask};
use crate::upstream::retry::{self, asks_for_retry, pause};
use crate::upstream::trial::Trial;
use crate::upstream::{Endpoint, Upstream};

/// A message on its way to a server.
pub(super) struct Request<'a> {
    pub(super) verb: Method,
    pub(super) message: &'a Message,
    pub(super) peer: IpAddr,
    pub(super) again: Again<'a>,
}

/// Whether a message may be sent again although the server may have acted on it.
#[derive(Clone, Copy)]
pub(super) enum Again<'a> {
    Harmless,
    /// A call of a tool: if the tool's own hints say so.
    Tool(&'a Scan),
    Never,
}

/// Where a message goes that belongs to a session.
pub(super) struct Target<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) endpoint: &'a Rc<Endpoint>,
    /// The server's own session id.
    pub(super) session: Option<&'a [u8]>,
}

/// An answer whose head is here, and the trial of its endpoint, which the answer's end decides.
pub(super) struct Sent {
    pub(super) answer: Answer,
    pub(super) trial: Trial,
}

/// Sends a message to the endpoint that its session is bound to.
///
/// # Errors
/// What went wrong in the last attempt, or [`Refusal::NoEndpoint`] where there was none.
pub(super) async fn to_endpoint(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    target: &Target<'_>,
) -> Result<Sent, Refusal> {
    send(shard, target.upstream, request, Some(target)).await
}

/// Sends a message that no endpoint is bound to: to the next in turn, and to others while it may be sent again.
///
/// # Errors
/// As [`to_endpoint`].
pub(super) async fn to_any(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    upstream: &Upstream,
) -> Result<Sent, Refusal> {
    send(shard, upstream, request, None).await
}

/// An attempt that another may follow.
struct Failed {
    endpoint: Rc<Endpoint>,
    outcome: Outcome,
}

enum Outcome {
    /// The server says that another time is better.
    Answer(Sent),
    Error(CallError),
}

impl Failed {
    /// Whether the server cannot have acted on the message.
    fn left_nothing(&self) -> bool {
        matches!(self.outcome, Outcome::Error(CallError::Connect(_) | CallError::Exhausted))
    }

    fn is_exhausted(&self) -> bool {
        matches!(self.outcome, Outcome::Error(CallError::Exhausted))
    }

    /// How long the server asked to be left alone.
    fn retry_after(&self) -> Duration {
        match &self.outcome {
            Outcome::Answer(Sent { answer, .. }) => retry::retry_after(answer),
            Outcome::Error(_) => None,
        }
        .unwrap_or_default()
    }

    /// What the client gets when it stays the last.
    fn into_result(self, upstream: &Upstream) -> Result<Sent, Refusal> {
        match self.outcome {
            Outcome::Answer(sent) => Ok(sent),
            Outcome::Error(error) => Err(refusal(upstream, &error)),
        }
    }
}

async fn send(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    request: &Request<'_>,
    bound: Option<&Target<'_>>,
) -> Result<Sent, Refusal> {
    let deadline = shard.core.clock.after(upstream.timeout);
    upstream.retries.on_request();
    let (mut attempts, mut tried) = (0, 0u64);
    let mut failed: Option<Failed> = None;
    let mut closed_ms = u64::MAX;
    loop {
        let before = attempts;
        let any = bound.is_none().then(|| upstream.rotation());
        for endpoint in bound.map(|target| target.endpoint).into_iter().chain(any.into_iter().flatten()) {
            if bound.is_none() && endpoint.place.row().health() == Health::Unhealthy {
                continue;
            }
            let mut trial = match Trial::begin(endpoint, shard.core.clock.now()) {
                Ok(trial) => trial,
                Err(wait_ms) => {
                    closed_ms = closed_ms.min(wait_ms);
                    continue;
                }
            };
            let mark = 1u64 << (endpoint.index % 64);
            if let Some(last) = failed.take() {
                let again =
                    Attempt { shard, upstream, request, attempts, deadline, tried: tried & mark != 0 };
                if !again.may_follow(&last, endpoint) {
                    return last.into_result(upstream);
                }
                again.wait(last, endpoint).await;
            }
            tried |= mark;
            let session = bound.and_then(|target| target.session);
            let outcome = attempt(shard, request, endpoint, session, deadline).await;
            if !matches!(outcome, Err(CallError::Exhausted)) {
                attempts += 1;
            }
            let verdict = judge(shard, &mut trial, outcome);
            if attempts > 1 {
                let done = matches!(verdict, Verdict::Done(_));
                let result = if done { Retried::Success } else { Retried::Failure };
                shard.metrics.retried(endpoint.server, result);
            }
            let outcome = match verdict {
                Verdict::Done(answer) => return Ok(Sent { answer, trial }),
                Verdict::Later(answer) => Outcome::Answer(Sent { answer, trial }),
                Verdict::Failed(error) => Outcome::Error(error),
            };
            failed = Some(Failed { endpoint: endpoint.clone(), outcome });
        }
        if attempts == before {
            // Nobody is left who could be asked.
            return match failed {
                Some(last) => last.into_result(upstream),
                None => Err(Refusal::NoEndpoint {
                    server: upstream.name.to_string(),
                    retry_after_ms: if closed_ms == u64::MAX { 0 } else { closed_ms },
                }),
            };
        }
    }
}

enum Verdict {
    Done(Answer),
    /// Another time is better, says the server.
    Later(Answer),
    Failed(CallError),
}

/// What an attempt says of its endpoint, as far as the answer's head tells, and whether another attempt may go better.
fn judge(shard: &Shard, trial: &mut Trial, outcome: Result<Answer, CallError>) -> Verdict {
    let now = shard.core.clock.now();
    match outcome {
        Ok(answer) if answer.status() >= 500 => {
            trial.failed(now);
            if asks_for_retry(answer.status()) { Verdict::Later(answer) } else { Verdict::Done(answer) }
        }
        Ok(answer) => Verdict::Done(answer),
        // The gateway's own want of places is not the endpoint's fault.
        Err(CallError::Exhausted) => Verdict::Failed(CallError::Exhausted),
        Err(error) => {
            trial.failed(now);
            Verdict::Failed(error)
        }
    }
}

/// The attempt that is to be made after one that failed.
struct Attempt<'a> {
    shard: &'a Rc<Shard>,
    upstream: &'a Upstream,
    request: &'a Request<'a>,
    /// How many there were.
    attempts: u32,
    deadline: Millis,
    /// The endpoint was asked before.
    tried: bool,
}

impl Attempt<'_> {
    /// Whether the message may go to `endpoint` now that `last` failed; pays for it.
    fn may_follow(&self, last: &Failed, endpoint: &Rc<Endpoint>) -> bool {
        if last.is_exhausted() {
            return !self.tried;
        }
        let server = endpoint.server;
        let budget = &self.upstream.retries;
        let may_repeat = last.left_nothing()
            || (!matches!(last.outcome, Outcome::Error(CallError::Malformed(_))) && self.is_harmless());
        if !may_repeat || self.attempts >= budget.max_attempts() {
            return false;
        }
        let now = self.shard.core.clock.now();
        if now.saturating_add(self.shortest_pause(last, endpoint).as_millis() as Millis) >= self.deadline {
            self.shard.metrics.retried(server, Retried::NoTime);
            return false;
        }
        let paid = budget.pay(now);
        if !paid {
            self.shard.metrics.retried(server, Retried::NoBudget);
        }
        paid
    }

    fn is_harmless(&self) -> bool {
        match self.request.again {
            Again::Harmless => true,
            Again::Tool(scan) => scan.name.is_some_and(|name| {
                self.upstream.shared().hints.is_harmless(&name.decode(&self.request.message.body))
            }),
            Again::Never => false,
        }
    }

    fn shortest_pause(&self, last: &Failed, endpoint: &Rc<Endpoint>) -> Duration {
        if Rc::ptr_eq(&last.endpoint, endpoint) { last.retry_after() } else { Duration::ZERO }
    }

    /// Waits before an endpoint is asked again; what failed is let go of before.
    async fn wait(&self, last: Failed, endpoint: &Rc<Endpoint>) {
        if !self.tried {
            return;
        }
        // Where the system gives no random number, the pause is whole.
        let chance = getrandom::u64().unwrap_or_default();
        let pause = pause(self.attempts.saturating_sub(1), chance).max(self.shortest_pause(&last, endpoint));
        drop(last);
        let until = self.shard.core.clock.after(pause).min(self.deadline);
        // The pause ends by its time alone.
        let _ = self.shard.deadline(until, pin!(pending::<()>())).await;
    }
}

/// Sends a message to an endpoint once, and waits for the head of its answer. No breaker hears of it.
///
/// # Errors
/// [`CallError`].
pub(super) async fn attempt(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    endpoint: &Rc<Endpoint>,
    session: Option<&[u8]>,
    deadline: Millis,
) -> Result<Answer, CallError> {
    let mut head = shard.take_buffer();
    let (name, body): (&str, &[u8]) = match request.verb {
        Method::Get => ("GET", b""),
        Method::Delete => ("DELETE", b""),
        _ => ("POST", &request.message.body),
    };
    write_request(&mut head, name, endpoint, request.message, session, request.peer);
    let repeatable = matches!(request.again, Again::Harmless);
    let outcome =
        ask(shard, endpoint, &Ask { method: request.verb, head: &head, body, repeatable }, deadline).await;
    shard.give_buffer(head);
    outcome.map(Answer::Http1)
}

/// What a failed call means to the client.
pub(super) fn refusal(upstream: &Upstream, error: &CallError) -> Refusal {
    let server = upstream.name.to_string();
    match error {
        CallError::Connect(cause) => {
            tracing::debug!(server, %cause, "an endpoint cannot be reached");
            Refusal::UpstreamConnect { server }
        }
        CallError::Exhausted => Refusal::PoolExhausted { server },
        CallError::Closed => Refusal::UpstreamClosed { server },
        CallError::Timeout => Refusal::UpstreamTimeout { server },
        CallError::Malformed(what) => Refusal::UpstreamMalformed { server, what },
    }
}
