//! Streamable HTTP towards the gateway: owns a message's way there and back, what is tried again and what is not. A message is
//! a POST and a task; the server's own stream is a task as well ([`listen`]).
//!
//! Invariants: a request is answered once; what may have had an effect is not sent again unless the gateway said that it
//! refused it (404 for the session, 429, 503).

mod line;
mod listen;
mod request;
mod session;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use mcp_config::Endpoint;
use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::Scan;
use mcp_shard_store::runtime::Address;
use rustls_pki_types::ServerName;

use super::front::{Flight, Front, Stuck};
use super::message::{Fault, Message};
use super::pace::Pace;
use super::token::Token;
use crate::shard::clock::Millis;
use crate::shard::tasks::TaskId;
use line::{Answer, Content, LineError, Lines};
use listen::Cursor;
use request::{Heads, Says};
use session::Sessions;

/// How long a message is tried again while the gateway cannot be reached or asks to wait: a gateway that restarts is back
/// within this.
const PATIENCE_MS: Millis = 30_000;
/// How long the gateway may take to accept what has no answer.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of an answer may take once the request in it is answered; later ends are not waited for.
const TAIL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a cancelled legacy request may still bring an answer.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes of a refusal.
const MAX_REFUSAL_BYTES: usize = 1 << 20;
/// Sessions that one message may outlive.
const MAX_RENEWALS: usize = 2;
/// Pages of a tool list that is asked for on `connect`'s own account.
const MAX_PAGES: usize = 16;

/// Why an exchange did not succeed.
#[derive(Debug)]
enum Trouble {
    /// No byte was sent.
    NotSent(String),
    /// Nobody knows what became of it.
    Lost(String),
    /// The gateway does not know the session of this generation; nothing was done.
    SessionGone(u64),
    /// The gateway asks to come back later; nothing was done.
    Busy(Duration, Fault),
    /// The gateway does not take the token that was sent.
    Unauthorized(Option<Rc<str>>, Fault),
    /// The headers do not mirror the body: the tool asks for more than is known of it.
    Unmirrored(Fault),
    Final(Fault),
    ClientGone,
}

impl From<LineError> for Trouble {
    fn from(error: LineError) -> Self {
        match error {
            // Trying again does not mend a certificate.
            LineError::NotSent(error) if error.kind() == io::ErrorKind::InvalidData => {
                Trouble::Final(Fault::lasting(format!("the gateway cannot be trusted: {error}")))
            }
            LineError::NotSent(error) => Trouble::NotSent(format!("the gateway cannot be reached: {error}")),
            LineError::Lost(error) => Trouble::Lost(format!(
                "the connection to the gateway broke ({error}); the outcome is not known"
            )),
            LineError::Malformed(what) => {
                Trouble::Final(Fault::lasting(format!("the gateway answered with {what}")))
            }
        }
    }
}

impl From<Stuck> for Trouble {
    fn from(stuck: Stuck) -> Self {
        match stuck {
            Stuck::ClientGone => Trouble::ClientGone,
            Stuck::Malformed(what) => Trouble::Final(Fault::lasting(format!(
                "the gateway answered with what is no message: {what}"
            ))),
        }
    }
}

/// The door over HTTP.
pub(super) struct Http {
    front: Rc<Front>,
    lines: Rc<Lines>,
    heads: Heads,
    token: Token,
    sessions: Sessions,
    listener: Cell<Option<TaskId>>,
}

impl Http {
    pub(super) fn new(
        front: &Rc<Front>,
        endpoint: &Endpoint,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        token: Token,
        headers: &[u8],
    ) -> Rc<Self> {
        let address = Address { host: endpoint.host.as_str().into(), port: endpoint.port };
        Rc::new(Http {
            front: front.clone(),
            lines: Lines::new(front.host.clone(), address, tls),
            heads: Heads::new(endpoint, headers),
            token,
            sessions: Sessions::new(),
            listener: Cell::new(None),
        })
    }

    /// Takes a message of the client's. What it comes to is told by the front.
    ///
    /// # Errors
    /// It cannot be taken now.
    pub(super) fn take(self: &Rc<Self>, message: Message) -> Result<(), Fault> {
        if let Some(id) = message.cancels()
            && !self.cancel(id)
        {
            return Ok(());
        }
        let flight = self.front.take_off(&message)?;
        let message = Rc::new(message);
        if flight.is_initialize {
            self.sessions.begin(&message);
        } else if message.is("notifications/initialized") {
            self.sessions.settle(&message);
        }
        let (door, carried) = (self.clone(), flight.clone());
        let task = self.front.host.spawn(async move { door.deliver(&carried, &message).await });
        flight.carried_by(task);
        Ok(())
    }

    /// The client leaves: the session ends. The caller bounds the time.
    pub(super) async fn end(&self) {
        let Some(session) = self.sessions.open().filter(|session| session.id.is_some()) else { return };
        let token = self.token.now();
        let says = Says { token: token.as_deref(), session: Some(&session), last_event_id: None };
        let head = self.heads.bare(Method::Delete, &says);
        match self.lines.ask(Method::Delete, &head, b"", Some(ACCEPT_TIMEOUT)).await {
            Ok(answer) => tracing::debug!(status = answer.status, "the session has ended"),
            Err(error) => tracing::debug!(?error, "the gateway did not hear of the session's end"),
        }
    }

    /// Whether a cancellation is to be told to the server: a modern request is cancelled by ending its exchange, a legacy
    /// one by the notification.
    fn cancel(self: &Rc<Self>, id: &[u8]) -> bool {
        let Some(flight) = self.front.flight_of(id) else { return self.sessions.open().is_some() };
        if flight.is_initialize {
            return false;
        }
        self.front.cancel(&flight);
        if flight.is_modern {
            self.front.drop_flight(&flight);
            return false;
        }
        let front = self.front.clone();
        self.front.host.spawn(async move {
            front.host.sleep(LINGER).await;
            front.drop_flight(&flight);
        });
        true
    }

    async fn deliver(self: &Rc<Self>, flight: &Rc<Flight>, message: &Rc<Message>) {
        let outcome = self.carry(flight, message).await;
        let fault = match outcome {
            Ok(()) if flight.is_answered() => None,
            Ok(()) => Some(Fault::lasting("the server accepted the request and answered nothing")),
            Err(Trouble::ClientGone) => None,
            Err(Trouble::NotSent(why) | Trouble::Lost(why)) => Some(Fault::retryable(why)),
            Err(Trouble::SessionGone(_)) => Some(Fault::retryable("the session has ended again and again")),
            Err(
                Trouble::Busy(_, fault)
                | Trouble::Unauthorized(_, fault)
                | Trouble::Unmirrored(fault)
                | Trouble::Final(fault),
            ) => Some(fault),
        };
        if flight.is_initialize {
            // Where it succeeded there is nothing left to open.
            let why = fault.clone().unwrap_or_else(|| Fault::lasting("the server refused to initialize"));
            self.sessions.not_opened(why);
        }
        if message.is("notifications/initialized") {
            self.sessions.settled();
            if fault.is_none()
                && let Some(session) = self.sessions.open()
            {
                self.listen(session);
            }
        }
        match fault {
            None => self.front.land(flight),
            Some(fault) => {
                if flight.is_answered() {
                    tracing::warn!(message = message.name(), "not delivered: {}", fault.message);
                }
                self.front.fail(flight, &fault).await;
            }
        }
    }

    /// Carries a message until it is answered or accepted, through lost connections and lost sessions.
    async fn carry(self: &Rc<Self>, flight: &Rc<Flight>, message: &Message) -> Result<(), Trouble> {
        let mut renewals = 0;
        let mut asked_tools = false;
        loop {
            let repeatable = message.is_repeatable();
            let outcome =
                self.persist(Some(flight), repeatable, async || self.once(flight, message).await).await;
            match outcome {
                Err(Trouble::SessionGone(generation)) if renewals < MAX_RENEWALS => {
                    renewals += 1;
                    self.renew(generation);
                    self.sessions.follows(generation).await.map_err(Trouble::Final)?;
                }
                Err(Trouble::Unmirrored(_)) if !asked_tools && message.is("tools/call") => {
                    asked_tools = true;
                    self.ask_tools(message).await?;
                }
                other => return other,
            }
        }
    }

    /// Tries again what may be tried again, with growing pauses, until it succeeds or patience ends.
    async fn persist<T>(
        &self,
        flight: Option<&Flight>,
        repeatable: bool,
        mut attempt: impl AsyncFnMut() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut pace = Pace::new();
        let mut failing_since = None;
        let mut refused = false;
        loop {
            let trouble = match attempt().await {
                Err(trouble) => trouble,
                done => return done,
            };
            let pause = match &trouble {
                Trouble::NotSent(_) => pace.next(),
                Trouble::Lost(_) if repeatable => pace.next(),
                Trouble::Busy(after, _) => *after + pace.next(),
                Trouble::Unauthorized(used, _) if !refused && self.token.has_other_than(used.as_deref()) => {
                    refused = true;
                    continue;
                }
                _ => return Err(trouble),
            };
            let now = self.front.host.now();
            let since = *failing_since.get_or_insert(now);
            if (now - since).saturating_add(pause.as_millis() as Millis) > PATIENCE_MS
                || flight.is_some_and(Flight::is_cancelled)
            {
                return Err(trouble);
            }
            tracing::debug!(?trouble, ?pause, "trying again");
            self.front.host.sleep(pause).await;
        }
    }

    /// One POST, and its answer up to the end.
    async fn once(self: &Rc<Self>, flight: &Rc<Flight>, message: &Message) -> Result<(), Trouble> {
        let opens = flight.is_initialize;
        let session = if flight.is_modern || opens {
            None
        } else {
            self.sessions.current(!message.is("notifications/initialized")).await
        };
        let limit = flight.is_answered().then_some(ACCEPT_TIMEOUT);
        let mut answer = self.post(message, session.as_deref(), limit).await?;
        if flight.is_answered() {
            return Ok(());
        }
        let opened = answer.session_id.take();
        let mut cursor = Cursor::default();
        let taken = async |text: &[u8]| {
            if let Some(scan) = self.pass(text).await?
                && opens
                && let Some(revision) = scan.result_protocol_version
            {
                let session = self.sessions.opened(opened.clone(), revision.decode(text).into_owned());
                tracing::debug!(revision = session.revision, "a session is open");
            }
            Ok(flight.is_answered())
        };
        let read = self.each_message(&mut answer, &mut cursor, None, taken).await;
        if flight.is_answered() {
            self.front.land(flight);
            // Its end frees the connection for the next message; nobody waits for it.
            let _ = self
                .front
                .host
                .within(TAIL_TIMEOUT, async { while let Ok(Some(_)) = answer.next().await {} })
                .await;
            return Ok(());
        }
        match (read, session) {
            // The stream goes on elsewhere: the server closed the connection, or it broke.
            (Ok(()) | Err(Trouble::Lost(_)), Some(session)) if cursor.can_resume() => {
                drop(answer);
                self.resume(flight, &session, cursor).await
            }
            (Ok(()), _) if answer.content == Content::Events => {
                Err(Trouble::Lost("the stream ended without an answer".into()))
            }
            (read, _) => read,
        }
    }

    /// Posts a message; what comes back is an answer to read or an acceptance.
    async fn post(
        &self,
        message: &Message,
        session: Option<&session::Session>,
        limit: Option<Duration>,
    ) -> Result<Answer, Trouble> {
        let token = self.token.now();
        let says = Says { token: token.as_deref(), session, last_event_id: None };
        let head = self.heads.post(message, &says).map_err(Trouble::Final)?;
        let answer = self.lines.ask(Method::Post, &head, &message.body, limit).await?;
        match answer.status {
            200..300 => Ok(answer),
            _ => Err(self.refusal(answer, session, token).await),
        }
    }

    /// What a status says that is no success.
    async fn refusal(
        &self,
        answer: Answer,
        session: Option<&session::Session>,
        token: Option<Rc<str>>,
    ) -> Trouble {
        let (status, retry_after, content) = (answer.status, answer.retry_after, answer.content);
        if let (404, Some(session)) = (status, session.filter(|session| session.id.is_some())) {
            return Trouble::SessionGone(session.generation);
        }
        let body = match content {
            Content::Json => answer.whole(MAX_REFUSAL_BYTES).await,
            Content::Events | Content::Other => Ok(None),
        };
        let body = match body {
            Ok(body) => body.unwrap_or_default(),
            Err(error) => return error.into(),
        };
        let fault = Fault::of_answer(&body, || match status {
            401 => Fault::lasting("the gateway asks for a valid token (401)"),
            502..=504 => Fault::retryable(format!("the gateway answered with status {status}")),
            _ => Fault::lasting(format!("the gateway answered with status {status}")),
        });
        match (status, retry_after) {
            (401, _) => Trouble::Unauthorized(token, fault),
            (429 | 503, Some(after)) => Trouble::Busy(after, fault),
            (400, _) if fault.code == mcp_protocol::mcp::HEADER_MISMATCH => Trouble::Unmirrored(fault),
            _ => Trouble::Final(fault),
        }
    }

    /// Passes a message on to the client, and learns from it what later requests need.
    async fn pass(&self, text: &[u8]) -> Result<Option<Scan>, Trouble> {
        let scan = self.front.pass(text).await?;
        if scan.is_some_and(|scan| scan.result.is_some()) {
            self.heads.learn(text);
        }
        Ok(scan)
    }

    /// The gateway has lost the session: opens another with the client's own handshake, unless somebody does already.
    fn renew(self: &Rc<Self>, lost: u64) {
        let Some((initialize, initialized)) = self.sessions.replace(lost) else { return };
        tracing::info!("the session has ended: opening another");
        let door = self.clone();
        self.front.host.spawn(async move {
            match door.handshake(&initialize, initialized.as_deref()).await {
                Ok((id, revision)) => {
                    let session = door.sessions.opened(id, revision);
                    if initialized.is_some() {
                        door.listen(session.clone());
                    }
                    door.set_again(&session).await;
                }
                Err(trouble) => {
                    tracing::warn!(?trouble, "no session could be opened");
                    let fault = match trouble {
                        Trouble::Unauthorized(_, fault) | Trouble::Final(fault) | Trouble::Busy(_, fault) => {
                            fault
                        }
                        _ => Fault::retryable("the session has ended and could not be opened again"),
                    };
                    door.sessions.not_opened(fault);
                }
            }
        });
    }

    /// Sets in a session that was opened again what the client had set in the one before.
    async fn set_again(self: &Rc<Self>, session: &session::Session) {
        for setting in self.front.settings.requests() {
            let asked = async || self.own_question(&setting, Some(session)).await;
            match self.persist(None, true, asked).await {
                Ok((_, answer)) => {
                    if let Ok(answer) = Message::parse(answer)
                        && let Some(scan) = answer.single().filter(|scan| scan.is_error)
                    {
                        self.front.on_unawaited(&answer.body, scan);
                    }
                }
                // The next one is told.
                Err(Trouble::SessionGone(generation)) => return self.renew(generation),
                Err(trouble) => tracing::warn!(?trouble, "{} could not be said again", setting.name()),
            }
        }
    }

    /// Says the client's handshake again; the server's answer is not shown to the client, who has had one.
    async fn handshake(
        &self,
        initialize: &Message,
        initialized: Option<&Message>,
    ) -> Result<(Option<String>, String), Trouble> {
        let (id, text) = self.persist(None, true, async || self.own_question(initialize, None).await).await?;
        let answer = Message::parse(text).map_err(|(_, failure)| Stuck::Malformed(failure.to_string()))?;
        let agreed = answer.single().and_then(|scan| scan.result_protocol_version);
        let Some(agreed) = agreed else {
            let refused = || Fault::lasting("the server refused to initialize again");
            return Err(Trouble::Final(Fault::of_answer(&answer.body, refused)));
        };
        let revision = agreed.decode(&answer.body).into_owned();
        if let Some(initialized) = initialized {
            let session = session::Session { generation: 0, id: id.clone(), revision: revision.clone() };
            let told = async || self.post(initialized, Some(&session), Some(ACCEPT_TIMEOUT)).await;
            self.persist(None, true, told).await?;
        }
        Ok((id, revision))
    }

    /// Asks on `connect`'s own account: the answer comes back instead of going to the client.
    async fn own_question(
        &self,
        question: &Message,
        session: Option<&session::Session>,
    ) -> Result<(Option<String>, Vec<u8>), Trouble> {
        let id = question.requests().into_iter().next();
        let mut answer = self.post(question, session, Some(ACCEPT_TIMEOUT)).await?;
        let mut found = None;
        let taken = async |text: &[u8]| {
            let response = Message::parse(text.to_vec()).ok().filter(|message| {
                let response = message.single().filter(|scan| scan.method.is_none()).and_then(|scan| scan.id);
                response.is_some_and(|found| id.as_ref().is_some_and(|id| id.is(found.of(text))))
            });
            match response {
                Some(response) => found = Some(response.body),
                None => drop(self.pass(text).await?),
            }
            Ok(found.is_some())
        };
        self.each_message(&mut answer, &mut Cursor::default(), Some(ACCEPT_TIMEOUT), taken).await?;
        let found = found.ok_or_else(|| Trouble::Lost("a question without an answer".into()))?;
        Ok((answer.session_id.take(), found))
    }

    /// Asks for the tool list, to learn what a call must mirror.
    async fn ask_tools(&self, call: &Message) -> Result<(), Trouble> {
        let meta = call.single().and_then(|scan| scan.meta).map(|meta| meta.of(&call.body)).unwrap_or(b"{}");
        let meta = String::from_utf8_lossy(meta);
        let mut cursor = String::new();
        for _ in 0..MAX_PAGES {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":"mcp-gateway-connect","method":"tools/list","params":{{"_meta":{meta}{cursor}}}}}"#
            );
            let question = Message::parse(text.into_bytes())
                .map_err(|(_, failure)| Stuck::Malformed(failure.to_string()))?;
            let (_, answer) =
                self.persist(None, true, async || self.own_question(&question, None).await).await?;
            self.heads.learn(&answer);
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
            match answer["result"]["nextCursor"].as_str() {
                Some(next) => cursor = format!(",\"cursor\":{}", serde_json::Value::from(next)),
                None => break,
            }
        }
        Ok(())
    }
}
