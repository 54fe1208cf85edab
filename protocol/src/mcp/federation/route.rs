//! A client's message on its way to the servers: owns which of them it is for, and what each of them gets.

use std::borrow::Cow;

use thiserror::Error;

use super::list::List;
use super::listen::{self, Listening};
use super::splice::Splices;
use super::{Asked, Federation, cursor};
use crate::Span;
use crate::jsonrpc::{Kind, Scan, Shape, as_string, walk, write_json_string};

/// The longest name or URI that an error repeats, in characters.
const MAX_TOLD_CHARS: usize = 128;
const INVALID_PARAMS: i64 = -32602;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_REQUEST: i64 = -32600;

/// Where a message goes.
#[derive(PartialEq, Eq, Debug)]
pub enum Route<'m> {
    /// To one server, which gets `body`; its answer is told by [`Federation::outward`].
    One {
        /// The server's number.
        server: usize,
        /// What the server gets.
        body: Cow<'m, [u8]>,
        /// What is asked for.
        asked: Asked,
    },
    /// To all servers as it is; nobody answers.
    Notify,
    /// To all servers as it is; one success is the answer.
    Each,
    /// `initialize` or `server/discover`: to all servers as it is, and their answers make one.
    Hello,
    /// To these servers, whose pages make one.
    List(List, Vec<(usize, Cow<'m, [u8]>)>),
    /// `subscriptions/listen`: to these servers, whose streams make one.
    Listen(Vec<(usize, Cow<'m, [u8]>)>),
    /// `ping`: answered here.
    Ping,
}

/// Why a message is for no server.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Unroutable {
    /// A name that has no server's prefix.
    #[error("Unknown {what}: {name} (names have the form server__name)")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, shortened.
        name: String,
    },
    /// A URI that has no server's scheme.
    #[error("Unknown resource: {uri} (URIs have the form mcp+server:uri)")]
    Uri {
        /// The URI, shortened.
        uri: String,
    },
    /// The member that says which server is meant is not there, is no string, or stands twice.
    #[error("Invalid params: {member} must be one string")]
    Member {
        /// The member.
        member: &'static str,
    },
    /// The parts of a message belong to several servers.
    #[error("Invalid params: {member} name several servers")]
    Several {
        /// The members.
        member: &'static str,
    },
    /// A cursor that is not one of this gateway's, is another list's, or names a server that is no longer there.
    #[error("Invalid cursor")]
    Cursor,
    /// A method that says nothing of a server.
    #[error("Method not found: {method}")]
    Method {
        /// The method, shortened.
        method: String,
    },
    /// A response to no request that a server sent.
    #[error("Unexpected response: no server asked by this id")]
    Response,
}

impl Unroutable {
    /// The JSON-RPC code of the answer.
    pub fn code(&self) -> i64 {
        match self {
            Unroutable::Name { .. }
            | Unroutable::Uri { .. }
            | Unroutable::Member { .. }
            | Unroutable::Several { .. }
            | Unroutable::Cursor => INVALID_PARAMS,
            Unroutable::Method { .. } => METHOD_NOT_FOUND,
            Unroutable::Response => INVALID_REQUEST,
        }
    }
}

/// What stands at a place of a client's message.
#[derive(Clone, Copy)]
enum Part {
    Name,
    Uri,
    Mark,
}

const REFERENCE: Shape<Part> = Shape::Members(&[(
    "params",
    Shape::Members(&[(
        "ref",
        Shape::Members(&[("name", Shape::Here(Part::Name)), ("uri", Shape::Here(Part::Uri))]),
    )]),
)]);
const TASK: Shape<Part> =
    Shape::Members(&[("params", Shape::Members(&[("taskId", Shape::Here(Part::Name))]))]);
const NAME: Shape<Part> = Shape::Members(&[("params", Shape::Members(&[("name", Shape::Here(Part::Name))]))]);
const URI: Shape<Part> = Shape::Members(&[("params", Shape::Members(&[("uri", Shape::Here(Part::Uri))]))]);
const PROGRESS: Shape<Part> =
    Shape::Members(&[("params", Shape::Members(&[("progressToken", Shape::Here(Part::Mark))]))]);
const RESPONSE: Shape<Part> = Shape::Members(&[("id", Shape::Here(Part::Mark))]);
const RELATED: Shape<Part> = Shape::Members(&[(
    "result",
    Shape::Members(&[(
        "_meta",
        Shape::Members(&[(
            "io.modelcontextprotocol/related-task",
            Shape::Members(&[("taskId", Shape::Here(Part::Name))]),
        )]),
    )]),
)]);

impl Federation {
    /// Says where a client's message goes. `scan` is the message's own.
    ///
    /// # Errors
    /// [`Unroutable`], where it is for no server.
    pub fn route<'m>(&self, body: &'m [u8], scan: &Scan) -> Result<Route<'m>, Unroutable> {
        let method = scan.method.map(|method| method.decode(body)).unwrap_or_default();
        match scan.kind {
            Kind::Response => self.response(body),
            Kind::Notification if method == "notifications/progress" => {
                let one = self.one(body, &PROGRESS, "params.progressToken", "task", Asked::Other);
                // A token that no server gave: each may judge.
                Ok(one.unwrap_or(Route::Notify))
            }
            Kind::Notification => Ok(Route::Notify),
            Kind::Request => self.request(body, scan, &method),
        }
    }

    fn request<'m>(&self, body: &'m [u8], scan: &Scan, method: &str) -> Result<Route<'m>, Unroutable> {
        let asked = Asked::of(method);
        match method {
            "tools/call" => self.one(body, &NAME, "params.name", "tool", asked),
            "prompts/get" => self.one(body, &NAME, "params.name", "prompt", asked),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                self.one(body, &URI, "params.uri", "resource", asked)
            }
            "completion/complete" => self.one(body, &REFERENCE, "params.ref", "prompt", asked),
            "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => {
                self.one(body, &TASK, "params.taskId", "task", asked)
            }
            "initialize" | "server/discover" => Ok(Route::Hello),
            "logging/setLevel" => Ok(Route::Each),
            "ping" => Ok(Route::Ping),
            "subscriptions/listen" => {
                Ok(Route::Listen(self.each_listening(body, &listen::read(self, body)?)))
            }
            _ => match List::of(method) {
                Some(list) => self.list(body, scan, list),
                None => Err(Unroutable::Method { method: shortened(method) }),
            },
        }
    }

    /// A message for one server, which the members at `shape` name; they lose what the gateway put in front.
    fn one<'m>(
        &self,
        body: &'m [u8],
        shape: &Shape<Part>,
        member: &'static str,
        what: &'static str,
        asked: Asked,
    ) -> Result<Route<'m>, Unroutable> {
        let mut splices = Splices::default();
        let server = self.take_off(body, shape, member, what, &mut splices)?;
        Ok(Route::One { server, body: splices.apply(body), asked })
    }

    fn response<'m>(&self, body: &'m [u8]) -> Result<Route<'m>, Unroutable> {
        let mut splices = Splices::default();
        let server = self
            .take_off(body, &RESPONSE, "id", "request", &mut splices)
            .map_err(|_| Unroutable::Response)?;
        // Where the client tells of the server's task by a name that is not the server's, it stays.
        let mut related = Splices::default();
        if self.take_off(body, &RELATED, "taskId", "task", &mut related) == Ok(server) {
            splices.append(related);
        }
        Ok(Route::One { server, body: splices.apply(body), asked: Asked::Other })
    }

    /// Notes the taking off of the prefixes at `shape`; says whose they are.
    fn take_off(
        &self,
        body: &[u8],
        shape: &Shape<Part>,
        member: &'static str,
        what: &'static str,
        splices: &mut Splices<'_>,
    ) -> Result<usize, Unroutable> {
        let mut found = Ok(None);
        // The message has been scanned, so it is JSON.
        let _ = walk(body, shape, |part, value| {
            let one = self.take_off_one(body, part, value, member, what, splices);
            found = match (std::mem::replace(&mut found, Ok(None)), one) {
                (Ok(None), Ok(server)) => Ok(Some(server)),
                (Ok(Some(one)), Ok(other)) if one == other => Ok(Some(one)),
                (Ok(Some(_)), Ok(_)) => Err(Unroutable::Several { member }),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            };
        });
        found?.ok_or(Unroutable::Member { member })
    }

    fn take_off_one(
        &self,
        body: &[u8],
        part: Part,
        value: Span,
        member: &'static str,
        what: &'static str,
        splices: &mut Splices<'_>,
    ) -> Result<usize, Unroutable> {
        let string = as_string(body, value).ok_or(Unroutable::Member { member })?;
        let text = string.decode(body);
        let split = match part {
            Part::Name => self.split_name(&text),
            Part::Uri => self.split_uri(&text),
            Part::Mark => self.split_mark(&text).filter(|(_, raw)| is_id(raw)),
        };
        let (server, own) = split.ok_or_else(|| match part {
            Part::Name => Unroutable::Name { what, name: shortened(&text) },
            Part::Uri => Unroutable::Uri { uri: shortened(&text) },
            Part::Mark => Unroutable::Response,
        })?;
        let prefix = &text[..text.len() - own.len()];
        if matches!(part, Part::Mark) {
            splices.replace(value, own.as_bytes().to_vec());
        } else if string.span.of(body).starts_with(prefix.as_bytes()) {
            let start = string.span.start;
            splices.replace(Span { start, end: start + prefix.len() as u32 }, &b""[..]);
        } else {
            // The client has escaped the prefix itself.
            let mut anew = Vec::new();
            write_json_string(&mut anew, own);
            splices.replace(value, anew);
        }
        Ok(server)
    }

    fn list<'m>(&self, body: &'m [u8], scan: &Scan, list: List) -> Result<Route<'m>, Unroutable> {
        let Some(client) = scan.cursor else {
            let all = self.numbers().map(|server| (server, Cow::Borrowed(body))).collect();
            return Ok(Route::List(list, all));
        };
        let next = cursor::read(self, list, &client.decode(body)).ok_or(Unroutable::Cursor)?;
        let contents = Span { start: client.span.start - 1, end: client.span.end + 1 };
        let with_cursor = |cursor: &str| {
            let mut own = Vec::new();
            write_json_string(&mut own, cursor);
            let mut splices = Splices::default();
            splices.replace(contents, own);
            splices.apply(body)
        };
        Ok(Route::List(list, next.iter().map(|(server, cursor)| (*server, with_cursor(cursor))).collect()))
    }

    fn each_listening<'m>(&self, body: &'m [u8], listening: &Listening) -> Vec<(usize, Cow<'m, [u8]>)> {
        self.numbers()
            .filter(|&server| listening.is_for(server))
            .map(|server| (server, listening.body_for(server, body)))
            .collect()
    }
}

/// Whether a raw text is an id: a whole string or number, so that nobody can put anything else in an id's place.
fn is_id(raw: &str) -> bool {
    let mut is_whole = false;
    let is_json = walk(raw.as_bytes(), &Shape::Here(()), |(), value| is_whole = value.len() == raw.len());
    is_json.is_ok() && is_whole && raw.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9'))
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TOLD_CHARS).collect()
}
