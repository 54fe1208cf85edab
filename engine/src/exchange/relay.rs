//! Relaying: owns bringing a server's answer to the client as it comes, whole JSON or event by event, and what is said when
//! it breaks off. Bytes pass unchanged.
//!
//! Invariants: an event leaves only when it is complete, so that a broken stream never shows half of one; nothing is
//! read from the server while the client is too slow.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mcp_protocol::http1::{is_event_stream, is_json, write_field};
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::sse::{Boundary, raw_events, write_event};
use mcp_shard_store::{Record, SessionId};

use super::eras;
use super::forward::{Sent, refusal};
use super::headers::write_answer_fields;
use super::legacy::{self, NewSession};
use super::watch::Watch;
use super::{Ended, same_id};
use crate::door::Reply;
use crate::door::reply::Framing;
use crate::respond::Refusal;
use crate::shard::clock::{Millis, NEVER};
use crate::shard::{Elapsed, Shard};
use crate::upstream::Upstream;
use crate::upstream::answer::Answer;
use crate::upstream::call::CallError;

/// How long a client may hold an answer up before the answer's place in the pool goes to others: clients that read nothing
/// must not keep calls from the server.
const READER_PATIENCE: Duration = Duration::from_millis(250);

/// What kind of answer is due.
pub(super) struct Opening {
    /// The client sent a request; else 202 is all it gets.
    pub(super) expects_answer: bool,
    /// The stream has no end of its own.
    pub(super) listens: bool,
    /// `tools/list`: the answer says which tools may be called twice.
    pub(super) lists_tools: bool,
    /// `initialize`: the session to open when it succeeds.
    pub(super) session: Option<NewSession>,
}

/// Brings an answer back.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    sent: Sent,
    opening: Opening,
    request_id: Option<&[u8]>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let Sent { answer, trial } = sent;
    let mut watch = Watch::new(upstream, trial, opening.lists_tools);
    let status = answer.status();
    let kind = answer.content_type();
    let malformed = |what| Err(Refusal::UpstreamMalformed { server: upstream.name.to_string(), what }.into());
    let coded = answer.is_coded();
    let (json, events) = (is_json(kind) && !coded, is_event_stream(kind) && !coded);
    match status {
        200..=299 if !opening.expects_answer && !opening.listens => {
            watch.answered();
            reply.full(202, b"", b"");
            Ok(())
        }
        200 if coded => malformed("a coded body, for which nobody asked"),
        200 if events => stream(shard, upstream, answer, opening, request_id, watch, reply).await,
        _ if json && opening.session.is_some() => {
            whole_initialize(shard, upstream, answer, opening, watch, reply).await
        }
        200 if json && !opening.listens => json_body(shard, upstream, answer, watch, reply).await,
        200..=399 => malformed("neither JSON nor an event stream"),
        _ if json => json_body(shard, upstream, answer, watch, reply).await,
        // The client must see these as they are: authorization, "no stream here", and when to come back.
        401 | 403 | 405 | 429 => {
            watch.answered();
            shard.with_scratch(|fields| {
                write_answer_fields(fields, &answer);
                reply.full(status, &without_type(fields), b"");
            });
            Ok(())
        }
        _ => {
            if status < 500 {
                watch.answered();
            }
            Err(Refusal::UpstreamStatus { server: upstream.name.to_string(), status }.into())
        }
    }
}

/// Drops the content type of a body that is not passed on.
fn without_type(fields: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(fields.len());
    for line in fields.split_inclusive(|&byte| byte == b'\n') {
        if !line.get(..13).is_some_and(|name| name.eq_ignore_ascii_case(b"content-type:")) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

async fn json_body(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    mut answer: Answer,
    mut watch: Watch<'_>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let framing = answer.length().map_or(Framing::Stream, Framing::Length);
    let mut begun = false;
    shard.with_scratch(|fields| {
        write_answer_fields(fields, &answer);
        reply.begin(answer.status(), fields, framing);
    });
    loop {
        let next = {
            let next = pin!(answer.next());
            shard.deadline(shard.core.clock.after(upstream.timeout), next).await
        };
        let error = match next {
            Ok(Ok(Some(piece))) if answer.is_complete() => {
                watch.piece(answer.bytes(piece.clone()), true, shard.core.clock.now());
                return Ok(reply.last(answer.bytes(piece)).await?);
            }
            Ok(Ok(Some(piece))) => {
                begun = true;
                watch.piece(answer.bytes(piece.clone()), false, shard.core.clock.now());
                // What is too long here is the waiting; the piece itself was taken at once.
                let passed = {
                    let passing = pin!(reply.data(answer.bytes(piece)));
                    shard.deadline(shard.core.clock.after(READER_PATIENCE), passing).await
                };
                match passed {
                    Ok(passed) => passed?,
                    Err(Elapsed) => {
                        answer.detach();
                        reply.caught_up().await?;
                    }
                }
                continue;
            }
            Ok(Ok(None)) if !begun && answer.status() == 200 => CallError::Malformed("an empty body"),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => error,
            Err(Elapsed) => CallError::Timeout,
        };
        watch.broken(&error, shard.core.clock.now());
        let refusal = refusal(upstream, &error);
        // A head is kept back until the body begins: until then an answer can be another one.
        return Err(if begun { Ended::Broken(refusal) } else { Ended::Refused(refusal) });
    }
    watch.end(shard.core.clock.now());
    reply.end();
    Ok(())
}

/// The answer to `initialize` as JSON: read whole, because the session's id goes into the head.
async fn whole_initialize(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    mut answer: Answer,
    opening: Opening,
    mut watch: Watch<'_>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let mut fields = Vec::new();
    let status = answer.status();
    write_answer_fields(&mut fields, &answer);
    let by = shard.core.clock.after(upstream.timeout);
    let limit = shard.setup().config.server.max_body_bytes;
    let mut body = shard.take_buffer();
    loop {
        let next = {
            let next = pin!(answer.next());
            shard.deadline(by, next).await
        };
        let piece = match next.unwrap_or(Err(CallError::Timeout)) {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                watch.broken(&error, shard.core.clock.now());
                return Err(refusal(upstream, &error).into());
            }
        };
        body.extend_from_slice(answer.bytes(piece));
        if body.len() > limit {
            let what = "an answer to initialize that is too large";
            return Err(Refusal::UpstreamMalformed { server: upstream.name.to_string(), what }.into());
        }
    }
    watch.whole(&body, shard.core.clock.now());
    if let (Some(new), Some(response)) = (opening.session, response(&body)) {
        eras::look_at_initialize(shard, upstream, &response, &new.requested)?;
        if let Some(revision) = negotiated(&response, &body).filter(|_| status == 200) {
            let record = Record { revision: Some(revision), ..new.record };
            let id = legacy::open_claimed(shard, new.of_stream, record).await?;
            write_session(&mut fields, &id);
        }
    }
    reply.full(status, &fields, &body);
    shard.give_buffer(body);
    Ok(())
}

/// What is known of a stream so far.
struct Seen<'a> {
    /// The response that ends the stream has passed.
    response: bool,
    /// An event had an id: the client can resume, and must not be told otherwise.
    resumable: bool,
    session: Option<(SessionId, NewSession)>,
    /// The request for whose response the stream is there.
    request_id: Option<&'a [u8]>,
    watch: Watch<'a>,
}

impl<'a> Seen<'a> {
    /// The request that nothing but an error can answer any more when the stream ends now.
    fn unanswered(&self) -> Option<&'a [u8]> {
        self.request_id.filter(|_| !self.response && !self.resumable)
    }
}

async fn stream(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    mut answer: Answer,
    opening: Opening,
    request_id: Option<&[u8]>,
    mut watch: Watch<'_>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    // A stream may be long: a breaker that probes does not wait for its end.
    watch.answered();
    let awaited = request_id.filter(|_| !opening.listens);
    let mut seen = Seen { response: false, resumable: false, session: None, request_id: awaited, watch };
    let mut fields = shard.take_buffer();
    write_answer_fields(&mut fields, &answer);
    add_unless_there(&mut fields, b"Cache-Control", b"no-cache");
    add_unless_there(&mut fields, b"X-Accel-Buffering", b"no");
    if let Some(new) = opening.session {
        let id = legacy::open_claimed(shard, new.of_stream, new.record.clone()).await?;
        write_session(&mut fields, &id);
        seen.session = Some((id, new));
    }
    answer.detach();
    reply.begin(200, &fields, Framing::Stream);
    shard.give_buffer(fields);
    if !answer.has_more() {
        reply.flush_head()?;
    }
    let ended = events(shard, upstream, &mut answer, opening.listens, &mut seen, reply).await?;
    match ended {
        StreamEnd::Whole => {}
        StreamEnd::Drained => {
            if let Some(id) = request_id {
                graceful_end(reply, id).await?;
            }
        }
        StreamEnd::Unanswered => {
            say_broken(shard, upstream, &CallError::Closed, seen.unanswered(), reply).await?;
        }
        StreamEnd::Broken(error) => {
            // Servers and what stands before them cut idle streams as a matter of course.
            if !opening.listens && !seen.response {
                seen.watch.broken(&error, shard.core.clock.now());
            }
            say_broken(shard, upstream, &error, seen.unanswered(), reply).await?;
        }
    }
    if let Some((id, new)) = seen.session.take()
        && !seen.response
        && new.of_stream.is_none()
    {
        settle(shard, &id, None).await;
    }
    reply.end();
    Ok(())
}

enum StreamEnd {
    Whole,
    /// The gateway shuts down, or the server was taken off.
    Drained,
    /// In good order, but without the response. The client may have cancelled its request: no fault of the server's that
    /// its breaker counts.
    Unanswered,
    Broken(CallError),
}

/// Passes events on until the stream ends.
async fn events(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    answer: &mut Answer,
    listens: bool,
    seen: &mut Seen<'_>,
    reply: &mut Reply,
) -> Result<StreamEnd, Ended> {
    let mut boundary = Boundary::new();
    let mut held = shard.take_buffer();
    let limit = shard.setup().config.server.max_body_bytes;
    let silence = || shard.core.clock.after(shard.setup().config.server.idle_timeout);
    let (mut silent_until, mut comment_at) = (silence(), comment_after(shard, reply));
    let end = loop {
        let piece = match next_or_drain(shard, upstream, answer, listens, silent_until.min(comment_at)).await
        {
            Next::Piece(piece) => piece,
            Next::Silent if shard.core.clock.now() < silent_until => {
                reply.comment()?;
                comment_at = comment_after(shard, reply);
                continue;
            }
            Next::Silent => break StreamEnd::Broken(CallError::Timeout),
            Next::End if held.is_empty() && seen.unanswered().is_none() => break StreamEnd::Whole,
            Next::End if held.is_empty() => break StreamEnd::Unanswered,
            // What an end of file cuts off is no event (the SSE standard drops it, too).
            Next::End => break StreamEnd::Broken(CallError::Closed),
            Next::Failed(error) => break StreamEnd::Broken(error),
            Next::Drain => break StreamEnd::Drained,
        };
        (silent_until, comment_at) = (silence(), comment_after(shard, reply));
        // Not while a session is still to be settled, which comes before the end.
        let is_last = answer.is_complete() && seen.session.is_none();
        let bytes = answer.bytes(piece);
        let Some(complete) = boundary.push(bytes) else {
            held.extend_from_slice(bytes);
            if held.len() > limit {
                break StreamEnd::Broken(CallError::Malformed("an event that is too large"));
            }
            continue;
        };
        if held.is_empty() {
            look(shard, &bytes[..complete], seen).await?;
            if is_last && complete == bytes.len() && seen.unanswered().is_none() {
                reply.last(bytes).await?;
            } else {
                reply.data(&bytes[..complete]).await?;
            }
        } else {
            held.extend_from_slice(&bytes[..complete]);
            look(shard, &held, seen).await?;
            reply.data(&held).await?;
            held.clear();
        }
        held.extend_from_slice(&bytes[complete..]);
    };
    tracing::trace!(server = &*upstream.name, "a stream ended");
    shard.give_buffer(held);
    Ok(end)
}

enum Next {
    Piece(Range<usize>),
    End,
    Failed(CallError),
    /// The time is over.
    Silent,
    Drain,
}

/// When a client that has heard nothing since now is to be told that its stream is alive.
pub(super) fn comment_after(shard: &Shard, reply: &Reply) -> Millis {
    let keep_alive = shard.setup().config.server.sse_keep_alive;
    if reply.wants_comments() { shard.core.clock.after(keep_alive) } else { NEVER }
}

async fn next_or_drain(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    answer: &mut Answer,
    listens: bool,
    by: Millis,
) -> Next {
    let mut next = pin!(answer.next());
    let step = poll_fn(|cx| {
        if listens && (shard.is_draining() || shard.upstream(upstream.index()).server().is_gone) {
            return Poll::Ready(Next::Drain);
        }
        next.as_mut().poll(cx).map(|next| match next {
            Ok(Some(piece)) => Next::Piece(piece),
            Ok(None) => Next::End,
            Err(error) => Next::Failed(error),
        })
    });
    match shard.deadline(by, step).await {
        Ok(next) => next,
        Err(Elapsed) => Next::Silent,
    }
}

/// Looks at complete events on their way, without holding them up: is the response among them, can the stream be resumed?
async fn look(shard: &Rc<Shard>, events: &[u8], seen: &mut Seen<'_>) -> Result<(), Ended> {
    seen.watch.said(events);
    for event in raw_events(events) {
        seen.resumable = seen.resumable || has_id(event.bytes);
        let Some(data) = event.data else { continue };
        if seen.response {
            continue;
        }
        let Some(response) = response(&data) else { continue };
        let is_another_s = |awaited| response.id.is_some_and(|id| !same_id(awaited, id.of(&data)));
        if seen.request_id.is_some_and(is_another_s) {
            continue;
        }
        seen.response = true;
        seen.watch.response(&response, &data, shard.core.clock.now());
        if let Some((id, new)) = seen.session.take() {
            let of_stream = new.of_stream.is_some();
            let settled = negotiated(&response, &data)
                .map(|revision| Record { revision: Some(revision), ..new.record });
            if settled.is_some() || !of_stream {
                settle(shard, &id, settled).await;
            }
        }
    }
    Ok(())
}

/// Settles a session whose id the client has already. Where the store fails, the session lives on as it was opened: without
/// its revision, so without batches; one that nobody uses ends by itself.
async fn settle(shard: &Rc<Shard>, id: &SessionId, record: Option<Record>) {
    if let Err(refusal) = legacy::settle_session(shard, id, record).await {
        shard.metrics.refused(refusal.row().reason);
    }
}

/// Whether an event has an `id` line: the client can come back for what follows it.
fn has_id(event: &[u8]) -> bool {
    event.starts_with(b"id:")
        || memchr::memmem::find(event, b"\nid:").is_some()
        || memchr::memmem::find(event, b"\rid:").is_some()
}

/// The scan of a message that is a response; of a batch, its first.
fn response(bytes: &[u8]) -> Option<Scan> {
    match scan(bytes, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) if scan.kind == Kind::Response => Some(scan),
        Ok(Payload::Batch(batch)) => batch.into_iter().find(|scan| scan.kind == Kind::Response),
        Ok(Payload::Single(_)) | Err(_) => None,
    }
}

fn negotiated(response: &Scan, bytes: &[u8]) -> Option<Box<str>> {
    Some(response.result_protocol_version?.decode(bytes).into())
}

/// Counts an end that was none, and tells whoever still waits for the response of this request.
async fn say_broken(
    shard: &Shard,
    upstream: &Upstream,
    error: &CallError,
    id: Option<&[u8]>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let refusal = refusal(upstream, error);
    shard.metrics.refused(refusal.row().reason);
    let Some(id) = id else { return Ok(()) };
    let mut message = Vec::new();
    refusal.write_json(Some(id), &mut message);
    let mut event = Vec::new();
    write_event(&mut event, Some("message"), None, &message);
    Ok(reply.data(&event).await?)
}

/// 2026-07-28, "Graceful Closure": the subscription's response says that it ended in good order.
pub(super) async fn graceful_end(reply: &mut Reply, id: &[u8]) -> Result<(), Ended> {
    let mut message = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    message.extend_from_slice(id);
    message.extend_from_slice(
        b",\"result\":{\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":",
    );
    message.extend_from_slice(id);
    message.extend_from_slice(b"}}}");
    let mut event = Vec::new();
    write_event(&mut event, Some("message"), None, &message);
    Ok(reply.data(&event).await?)
}

fn add_unless_there(fields: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let there = fields
        .split(|&byte| byte == b'\n')
        .any(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
    if !there {
        write_field(fields, name, value);
    }
}

fn write_session(fields: &mut Vec<u8>, id: &SessionId) {
    write_field(fields, b"Mcp-Session-Id", &id.text());
}
