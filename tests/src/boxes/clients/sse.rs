//! Owns a client of HTTP with SSE (2024-11-05): a stream, and a connection on which it posts. The stream is the session; when
//! it ends, the client opens another.

use serde_json::{Value, json};

use super::{Client, Era, Outcome, Target, Trouble, failed, judge, message};
use crate::boxes::ledger::Ledger;
use crate::mcp::{LEGACY, initialize};
use crate::sse::Stream;
use crate::{Connection, Response};

const PATH: &str = "/sse/legacy";

pub(super) struct Sse {
    target: Target,
    stream: Option<Stream>,
    posting: Option<Connection>,
}

impl Sse {
    pub(super) fn new(target: &Target) -> Self {
        Self { target: target.clone(), stream: None, posting: None }
    }

    fn connect(&self) -> Result<Connection, Trouble> {
        Connection::tls(self.target.https, &self.target.tls).map_err(|error| failed("connecting", error))
    }

    fn open(&mut self) -> Result<Stream, Trouble> {
        let mut stream = Stream::open(self.connect()?, PATH).map_err(|error| failed("no stream", error))?;
        let answer = self.ask(&mut stream, &initialize(LEGACY))?;
        if answer["result"]["protocolVersion"] != LEGACY {
            return Err(judge(answer).err().unwrap_or_else(|| failed("no session", PATH)));
        }
        self.post(&stream.endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(stream)
    }

    fn post(&mut self, endpoint: &str, message: &Value) -> Result<Response, Trouble> {
        if self.posting.as_mut().is_some_and(Connection::has_ended) {
            self.posting = None;
        }
        let mut connection = match self.posting.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let (kind, body) = (("content-type", "application/json"), message.to_string());
        let answer = connection
            .request("POST", endpoint, &[kind], body.as_bytes())
            .map_err(|error| failed("no answer to the POST", error))?;
        if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.posting = Some(connection);
        }
        Ok(answer)
    }

    fn ask(&mut self, stream: &mut Stream, request: &Value) -> Outcome {
        let answer = self.post(&stream.endpoint, request)?;
        if answer.status != 202 {
            let refused = super::http::judge_http(&answer);
            return Err(match refused {
                // Its client knows that a stream is over as soon as it is.
                Err(Trouble::SessionLost(_)) if stream.events.has_ended() => Trouble::NotTaken,
                Err(trouble) => trouble,
                Ok(answer) => failed("another answer", answer),
            });
        }
        loop {
            let event = stream.events.next_event().map_err(|error| failed("the stream broke", error))?;
            let event = event.ok_or_else(|| failed("no answer", "the stream ended before it"))?;
            let message: Value =
                serde_json::from_str(&event.data).map_err(|error| failed("no JSON", error))?;
            if message["id"] == request["id"] && message.get("method").is_none() {
                return Ok(message);
            }
        }
    }
}

impl Client for Sse {
    fn call(&mut self, _: &Ledger, number: u64) -> Outcome {
        if self.stream.as_mut().is_some_and(|stream| stream.events.has_ended()) {
            self.stream = None;
        }
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        // Ids of a client's requests are its own; `initialize` had the first.
        let answer = self.ask(&mut stream, &message(Era::Legacy, "where", number + 1)).and_then(judge);
        if matches!(answer, Ok(_) | Err(Trouble::Failed(_))) && !stream.events.has_ended() {
            self.stream = Some(stream);
        }
        answer
    }

    fn forget(&mut self) {
        self.stream = None;
    }
}
