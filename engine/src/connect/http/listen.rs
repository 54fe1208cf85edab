//! Streams: owns the reading of answers message by message, the stream on which a legacy server speaks by itself (GET), and
//! resuming what broke off by `Last-Event-ID`.

use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::http1::Method;
use mcp_protocol::sse::Decoder;

use super::line::{Answer, Content};
use super::request::Says;
use super::session::Session;
use super::{Http, Trouble};
use crate::connect::front::Flight;
use crate::connect::message::Fault;
use crate::connect::pace::Pace;
use crate::shard::core::Elapsed;

/// The pause before a stream that ended is asked for again, where the server names none, and the longest that it may name.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// A stream on which nothing comes for this long, not even a comment, is opened anew: servers send comments far more often,
/// and one that does not loses nothing.
const SILENCE: Duration = Duration::from_secs(300);
/// Tries in a row, none of which brings an event, before a request's stream is given up.
const MAX_RESUMES: usize = 5;
/// Bytes of an event besides its data.
const EVENT_OVERHEAD: usize = 64 << 10;
/// The longest event id that is sent back, in bytes; a longer one cannot be resumed from.
const MAX_EVENT_ID: usize = 4 << 10;

/// Where a stream can be taken up again.
#[derive(Default)]
pub(super) struct Cursor {
    last_id: String,
    retry: Option<Duration>,
    /// Something came.
    moved: bool,
}

impl Cursor {
    /// Whether the server can tell what was missed. An id that no header can hold is none.
    pub(super) fn can_resume(&self) -> bool {
        !self.last_id.is_empty()
            && self.last_id.len() <= MAX_EVENT_ID
            && self.last_id.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
    }

    fn retry(&self) -> Duration {
        self.retry.unwrap_or(DEFAULT_RETRY).min(MAX_RETRY)
    }
}

impl Http {
    /// Hands each message of an answer over as it comes, until `taken` says that it was the last or the answer ends. With
    /// `silence`, an answer on which nothing comes for so long counts as broken off.
    pub(super) async fn each_message(
        &self,
        answer: &mut Answer,
        cursor: &mut Cursor,
        silence: Option<Duration>,
        mut taken: impl AsyncFnMut(&[u8]) -> Result<bool, Trouble>,
    ) -> Result<(), Trouble> {
        let limit = self.front.max_message;
        let too_long = || Trouble::Final(Fault::lasting(format!("the answer is longer than {limit} bytes")));
        let mut decoder = Decoder::new(limit + EVENT_OVERHEAD);
        let mut whole = Vec::new();
        let mut events = Vec::new();
        loop {
            let content = answer.content;
            let next = match silence {
                None => answer.next().await?,
                Some(silence) => match self.front.host.within(silence, answer.next()).await {
                    Ok(next) => next?,
                    Err(Elapsed) => return Err(Trouble::Lost("the stream is silent".into())),
                },
            };
            let Some(piece) = next else { break };
            match content {
                Content::Events => {
                    let pushed = decoder.push(piece, &mut events);
                    for event in events.drain(..) {
                        cursor.moved = true;
                        cursor.retry = event.retry.map(Duration::from_millis).or(cursor.retry);
                        if let Some(id) = event.id {
                            cursor.last_id = id;
                        }
                        let is_message = event.event.is_none_or(|kind| kind == "message");
                        if is_message && !event.data.is_empty() && taken(event.data.as_bytes()).await? {
                            return Ok(());
                        }
                    }
                    pushed.map_err(|_| too_long())?;
                    // An event without data, which a server sends first so that its stream can be resumed.
                    cursor.last_id.clear();
                    cursor.last_id.push_str(decoder.last_event_id());
                    cursor.retry = decoder.retry_ms().map(Duration::from_millis);
                }
                Content::Json if whole.len() + piece.len() > limit => return Err(too_long()),
                Content::Json => whole.extend_from_slice(piece),
                Content::Other => {
                    return Err(Trouble::Final(Fault::lasting("the answer is neither JSON nor a stream")));
                }
            }
        }
        if !whole.is_empty() {
            taken(&whole).await?;
        }
        Ok(())
    }

    /// Takes a request's stream up where it broke off, until the request is answered.
    pub(super) async fn resume(
        self: &Rc<Self>,
        flight: &Flight,
        session: &Session,
        mut cursor: Cursor,
    ) -> Result<(), Trouble> {
        let mut pace = Pace::new();
        let mut vain = 0;
        self.front.host.sleep(cursor.retry()).await;
        while vain < MAX_RESUMES && !flight.is_cancelled() {
            vain += 1;
            match self.get(session, Some(&cursor)).await {
                Ok(mut answer) if answer.content == Content::Events => {
                    cursor.moved = false;
                    let taken = async |text: &[u8]| {
                        self.pass(text).await?;
                        Ok(flight.is_answered())
                    };
                    match self.each_message(&mut answer, &mut cursor, None, taken).await {
                        _ if flight.is_answered() => return Ok(()),
                        Ok(()) | Err(Trouble::Lost(_)) => {}
                        Err(other) => return Err(other),
                    }
                    if cursor.moved {
                        (vain, pace) = (0, Pace::new());
                    }
                    self.front.host.sleep(cursor.retry()).await;
                }
                Err(Trouble::NotSent(_) | Trouble::Lost(_) | Trouble::Busy(..)) => {
                    self.front.host.sleep(pace.next()).await;
                }
                Err(Trouble::SessionGone(generation)) => {
                    // Whether the request had an effect is not known any more.
                    self.renew(generation);
                    break;
                }
                Err(Trouble::ClientGone) => return Err(Trouble::ClientGone),
                Ok(_) | Err(_) => break,
            }
        }
        Err(Trouble::Lost("the stream broke off and could not be resumed; the outcome is not known".into()))
    }

    /// Listens to what the server says by itself in this session, as long as the session lasts.
    pub(super) fn listen(self: &Rc<Self>, session: Rc<Session>) {
        let door = self.clone();
        let task = self.front.host.spawn(async move { door.keep_listening(&session).await });
        if let Some(before) = self.listener.replace(Some(task)) {
            self.front.host.cancel(before);
        }
    }

    async fn keep_listening(self: &Rc<Self>, session: &Session) {
        let mut cursor = Cursor::default();
        let mut pace = Pace::new();
        while self.sessions.is_current(session.generation) {
            let answer = match self.get(session, Some(&cursor)).await {
                Ok(answer) => answer,
                Err(Trouble::NotSent(_) | Trouble::Lost(_)) => {
                    self.front.host.sleep(pace.next()).await;
                    continue;
                }
                Err(Trouble::Busy(after, _)) => {
                    self.front.host.sleep(after.min(MAX_RETRY) + pace.next()).await;
                    continue;
                }
                Err(Trouble::SessionGone(generation)) => return self.renew(generation),
                Err(Trouble::Unauthorized(used, _)) if self.token.has_other_than(used.as_deref()) => continue,
                // There may be another token later.
                Err(Trouble::Unauthorized(..)) => {
                    self.front.host.sleep(MAX_RETRY).await;
                    continue;
                }
                Err(trouble) => {
                    // 405 is how a server says that it has no such stream.
                    tracing::debug!(?trouble, "the server has no stream of its own");
                    return;
                }
            };
            match self.listen_once(answer, &mut cursor).await {
                Ok(()) | Err(Trouble::Lost(_)) => {}
                Err(Trouble::ClientGone) => return,
                Err(trouble) => tracing::warn!(?trouble, "the server's stream broke off"),
            }
            if cursor.moved {
                pace = Pace::new();
            }
            cursor.moved = false;
            self.front.host.sleep(cursor.retry().max(pace.next())).await;
        }
    }

    async fn listen_once(&self, mut answer: Answer, cursor: &mut Cursor) -> Result<(), Trouble> {
        if answer.content != Content::Events {
            return Err(Trouble::Final(Fault::lasting("the server's stream is none")));
        }
        let taken = async |text: &[u8]| {
            self.pass(text).await?;
            Ok(false)
        };
        self.each_message(&mut answer, cursor, Some(SILENCE), taken).await
    }

    async fn get(&self, session: &Session, cursor: Option<&Cursor>) -> Result<Answer, Trouble> {
        let token = self.token.now();
        let last_event_id = cursor.filter(|cursor| cursor.can_resume()).map(|cursor| cursor.last_id.as_str());
        let says = Says { token: token.as_deref(), session: Some(session), last_event_id };
        let head = self.heads.bare(Method::Get, &says);
        let answer = self.lines.ask(Method::Get, &head, b"", Some(SILENCE)).await?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(self.refusal(answer, Some(session), token).await),
        }
    }
}
