//! Owns clients of Streamable HTTP: over HTTP/1.1 with connections that are kept or not, over HTTP/2, and one that opens
//! sessions for others to ask.

use serde_json::{Value, json};

use super::{Client, Era, Outcome, Target, Trouble, failed, judge, message};
use crate::boxes::ledger::{Ledger, Way};
use crate::h2::{H2Connection, Outcome as Ended, code};
use crate::mcp::{LEGACY, in_session, initialize, mirrored};
use crate::{Connection, Response};

const TOOL: &str = "where";

/// Over HTTP/1.1.
pub(super) struct Http1 {
    target: Target,
    era: Era,
    kept: bool,
    connection: Option<Connection>,
    session: Option<String>,
}

/// Over HTTP/2.
pub(super) struct Http2 {
    target: Target,
    era: Era,
    connection: Option<H2Connection>,
    session: Option<String>,
}

/// Opens a session with every call.
pub(super) struct Opener {
    inner: Http1,
}

impl Http1 {
    /// With a connection that is kept, or with one for each call.
    pub(super) fn new(target: &Target, era: Era, kept: bool) -> Self {
        Self { target: target.clone(), era, kept, connection: None, session: None }
    }

    fn post(&mut self, path: &str, headers: &[(&str, &str)], message: &Value) -> Result<Response, Trouble> {
        if self.connection.as_mut().is_some_and(Connection::has_ended) {
            self.connection = None;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::tls(self.target.https, &self.target.tls)
                .map_err(|error| failed("connecting", error))?,
        };
        let close: &[(&str, &str)] = if self.kept { &[] } else { &[("connection", "close")] };
        let answer = connection
            .post(path, &[headers, close].concat(), message)
            .map_err(|error| failed("no answer", error))?;
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if self.kept && !closes {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn open(&mut self, ledger: &Ledger) -> Result<String, Trouble> {
        let answer = self.post("/mcp/legacy", &[], &initialize(LEGACY))?;
        let session = opened(&answer)?;
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.post("/mcp/legacy", &in_session(&session, LEGACY), &initialized)?;
        ledger.opened(&session, Way::One);
        Ok(session)
    }
}

impl Client for Http1 {
    fn call(&mut self, ledger: &Ledger, number: u64) -> Outcome {
        let message = message(self.era, TOOL, number);
        let answer = match self.era {
            Era::Modern => self.post("/mcp/modern", &mirrored("tools/call", Some(TOOL)), &message)?,
            Era::Legacy => {
                let session = match self.session.clone() {
                    Some(session) => session,
                    None => self.open(ledger)?,
                };
                self.session = Some(session.clone());
                self.post("/mcp/legacy", &in_session(&session, LEGACY), &message)?
            }
        };
        judge_http(&answer)
    }

    fn forget(&mut self) {
        self.session = None;
    }
}

impl Http2 {
    pub(super) fn new(target: &Target, era: Era) -> Self {
        Self { target: target.clone(), era, connection: None, session: None }
    }

    fn post(&mut self, path: &str, headers: &[(&str, &str)], message: &Value) -> Result<Response, Trouble> {
        let over = self.connection.as_mut().map(|connection| connection.is_over().unwrap_or(true));
        if over == Some(true) {
            self.connection = None;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => H2Connection::open_at(self.target.https, &self.target.tls)
                .map_err(|error| failed("connecting", error))?,
        };
        let stream = connection.post(path, headers, message).map_err(|error| failed("sending", error))?;
        match connection.outcome(stream) {
            Ok(Ended::Answer(answer)) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(Ended::Reset(code::REFUSED_STREAM)) => Err(Trouble::NotTaken),
            Ok(Ended::GoneAway(_)) if connection.is_untouched(stream) => Err(Trouble::NotTaken),
            Ok(other) => Err(failed("no answer", format!("{other:?}"))),
            Err(_) if connection.is_untouched(stream) => Err(Trouble::NotTaken),
            Err(error) => Err(failed("no answer", error)),
        }
    }
}

impl Client for Http2 {
    fn call(&mut self, ledger: &Ledger, number: u64) -> Outcome {
        let message = message(self.era, TOOL, number);
        if self.era == Era::Modern {
            return judge_http(&self.post("/mcp/modern", &mirrored("tools/call", Some(TOOL)), &message)?);
        }
        if self.session.is_none() {
            let session = opened(&self.post("/mcp/legacy", &[], &initialize(LEGACY))?)?;
            let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            self.post("/mcp/legacy", &in_session(&session, LEGACY), &initialized)?;
            ledger.opened(&session, Way::One);
            self.session = Some(session);
        }
        let session = self.session.clone().unwrap_or_default();
        judge_http(&self.post("/mcp/legacy", &in_session(&session, LEGACY), &message)?)
    }

    fn forget(&mut self) {
        self.session = None;
    }
}

impl Opener {
    pub(super) fn new(target: &Target) -> Self {
        Self { inner: Http1::new(target, Era::Legacy, true) }
    }
}

impl Client for Opener {
    fn call(&mut self, ledger: &Ledger, number: u64) -> Outcome {
        self.inner.forget();
        self.inner.call(ledger, number)
    }

    fn forget(&mut self) {
        self.inner.forget();
    }
}

/// The session that an answer to `initialize` opened.
fn opened(answer: &Response) -> Result<String, Trouble> {
    match answer.header("mcp-session-id") {
        Some(session) if answer.status == 200 => Ok(session.to_owned()),
        // The only responses to it that are no refusals name a session.
        _ => Err(judge_http(answer).err().unwrap_or_else(|| failed("no session", answer.text()))),
    }
}

/// What a whole answer means.
pub(super) fn judge_http(answer: &Response) -> Outcome {
    match answer.try_json() {
        Ok(json) if answer.status == 404 => Err(Trouble::SessionLost(json.to_string())),
        Ok(json) => judge(json),
        Err(_) => Err(failed("no JSON", format!("{} {}", answer.status, answer.text()))),
    }
}
