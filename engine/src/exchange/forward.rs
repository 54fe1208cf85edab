//! Forwarding: owns the one loop in which a message is brought to an endpoint: which endpoint, how often, and until when;
//! and the translation of what can go wrong there. Never the answer's content.
//!
//! Invariants: the first attempt starts the clock for all; what a server may have received is sent again only where that
//! does no harm; every attempt but the first is paid for ([`crate::upstream::retry`]).

use std::cell::Cell;
use std::future::pending;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::Scan;
use mcp_shard_store::Owner;

use super::{Message, identify};
use crate::exchange::headers::write_request;
use crate::metrics::Retried;
use crate::peer::Unasked;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::shard::table::endpoints::Health;
use crate::upstream::answer::Answer;
use crate::upstream::call::{Ask, CallError, ask};
use crate::upstream::retry::{self, asks_for_retry, pause};
use crate::upstream::trial::Trial;
use crate::upstream::{Candidates, Endpoint, Upstream, Via, duplex};

/// How soon to ask again where health checks fail.
const UNHEALTHY_RETRY_MS: u64 = 1_000;

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
    /// Who holds the server's part of the session, where only one can.
    pub(super) owner: Option<&'a Owner>,
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
        matches!(self.outcome, Outcome::Error(CallError::Connect(_)))
    }

    /// Whether the endpoint was not asked at all.
    fn is_unasked(&self) -> bool {
        // Of an owner that is silent nobody knows whether it asked.
        matches!(self.outcome, Outcome::Error(ref error)
            if is_unasked(error) && !matches!(error, CallError::Owner(Unasked::Silent)))
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
    let place_by = shard.core.clock.after(shard.setup().config.connection_pool.max_wait);
    let (mut attempts, mut tried) = (0, 0u64);
    let mut failed: Option<Failed> = None;
    let closed = Closed::default();
    loop {
        let before = attempts;
        let any = bound.is_none().then(|| candidates(shard, request, upstream, &closed));
        let session_s = bound.map(|target| target.endpoint.clone());
        for endpoint in &mut session_s.into_iter().chain(any.into_iter().flatten()) {
            let endpoint = &endpoint;
            let mut trial = match Trial::begin(endpoint, shard.core.clock.now()) {
                Ok(trial) => trial,
                Err(wait_ms) => {
                    closed.note(wait_ms);
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
            if bound.is_some() && endpoint.via.is_a_sessions_own_process() {
                trial.exempt();
            }
            let outcome = attempt(shard, request, endpoint, bound, place_by, deadline).await;
            if !matches!(&outcome, Err(error) if is_unasked(error)) {
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
                None => Err(closed.refusal(upstream)),
            };
        }
    }
}

/// Until when none of the endpoints that were passed over takes requests.
#[derive(Default)]
struct Closed(Cell<Option<u64>>);

impl Closed {
    /// An endpoint was passed over, which takes requests after `wait_ms`.
    fn note(&self, wait_ms: u64) {
        self.0.set(Some(self.0.get().map_or(wait_ms, |known| known.min(wait_ms))));
    }

    fn refusal(&self, upstream: &Upstream) -> Refusal {
        let server = upstream.name.to_string();
        match self.0.get() {
            Some(retry_after_ms) => Refusal::NoEndpoint { server, retry_after_ms },
            // Its name stands for nothing at the moment.
            None => Refusal::UpstreamConnect { server },
        }
    }
}

/// The endpoints to try. A client keeps to one, where it is to, by what stays the same when it begins a new session: its
/// principal, and its address where nobody knows that.
fn candidates(shard: &Shard, request: &Request<'_>, upstream: &Upstream, closed: &Closed) -> Candidates {
    let now = shard.core.clock.now();
    let is_usable = |endpoint: &Endpoint| {
        let row = endpoint.place.row();
        let wait_ms =
            if row.health() == Health::Unhealthy { UNHEALTHY_RETRY_MS } else { row.breaker.wait_ms(now) };
        if wait_ms > 0 {
            closed.note(wait_ms);
        }
        wait_ms == 0
    };
    if !upstream.has_affinity {
        return upstream.candidates(shard, None, is_usable);
    }
    identify::with_principal(shard, request.message, |principal| {
        if identify::is_somebody(principal) {
            return upstream.candidates(shard, Some(principal.as_bytes()), is_usable);
        }
        let address = match request.peer {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        upstream.candidates(shard, Some(&address.octets()), is_usable)
    })
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
        // The gateway's own want of places, or of a way to the one that has the channel, is not the endpoint's fault.
        Err(error) if is_unasked(&error) => Verdict::Failed(error),
        Err(error) => {
            trial.failed(now);
            Verdict::Failed(error)
        }
    }
}

/// Whether nobody was asked, for want of a place, a process or a way to the one that has the channel.
fn is_unasked(error: &CallError) -> bool {
    matches!(error, CallError::Exhausted | CallError::Processes | CallError::Owner(_))
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
        if last.is_unasked() {
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

/// Sends a message to an endpoint once, and waits for the head of its answer; a place in its pool is waited for until
/// `place_by`. No breaker hears of it.
///
/// # Errors
/// [`CallError`].
pub(super) async fn attempt(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    endpoint: &Rc<Endpoint>,
    bound: Option<&Target<'_>>,
    place_by: Millis,
    deadline: Millis,
) -> Result<Answer, CallError> {
    let session = bound.and_then(|target| target.session);
    if !matches!(endpoint.via, Via::Http) {
        let ask = duplex::Ask {
            verb: request.verb,
            session,
            body: &request.message.body,
            authorization: request.message.authorization(),
            owner: bound.and_then(|target| target.owner),
        };
        let told = Box::pin(duplex::ask(shard, endpoint, &ask, deadline)).await;
        return told.map(|told| Answer::Told(Box::new(told)));
    }
    let mut head = shard.take_buffer();
    let (name, body): (&str, &[u8]) = match request.verb {
        Method::Get => ("GET", b""),
        Method::Delete => ("DELETE", b""),
        _ => ("POST", &request.message.body),
    };
    write_request(&mut head, name, endpoint, request.message, session, request.peer);
    let repeatable = matches!(request.again, Again::Harmless);
    let question = Ask { method: request.verb, head: &head, body, repeatable, place_by };
    let outcome = ask(shard, endpoint, &question, deadline).await;
    shard.give_buffer(head);
    outcome
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
        CallError::Processes => Refusal::ProcessesExhausted { server },
        CallError::Closed => Refusal::UpstreamClosed { server },
        CallError::Timeout => Refusal::UpstreamTimeout { server },
        CallError::Malformed(what) => Refusal::UpstreamMalformed { server, what },
        CallError::Owner(unasked) => unasked.refusal(),
    }
}
