//! What the upstream answers: one JSON-RPC message in, the bytes of one HTTP answer out.
//!
//! Pure but for the count of sessions. Ids and texts are passed on as received, escapes and all; nothing is decoded.
//! Modern requests are checked as the specification demands of servers (2026-07-28, basic/transports/streamable-http,
//! Server Validation). JSON-RPC batches are refused.

use std::io::Write;

use super::Options;
use super::sessions::{Sessions, Standing};
use super::stream::{Stream, StreamArguments, push_head};
use crate::http::RequestHead;
use crate::json::{members, string_content};
use crate::mcp::{META_VERSION, Revision};

const SERVER_INFO: &str = r#"{"name":"mcp-bench-upstream","version":"0.1.0"}"#;
const META: &str =
    r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mcp-bench-upstream","version":"0.1.0"}}"#;
const TOOLS: &str = r#"[{"name":"echo","description":"Returns its text","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}},{"name":"fixed","description":"Returns a text of a fixed size","inputSchema":{"type":"object"}},{"name":"stream","description":"Sends progress notifications before its result","inputSchema":{"type":"object","properties":{"events":{"type":"integer"},"interval_us":{"type":"integer"},"bytes":{"type":"integer"}}}}]"#;
const VERSIONS: &str = r#"["2025-03-26","2025-06-18","2025-11-25","2026-07-28"]"#;

const RESPONSE_OPEN: &[u8] = br#"{"jsonrpc":"2.0","id":"#;
const RESPONSE_RESULT: &[u8] = br#","result":"#;

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerStyle {
    /// One JSON object.
    Json,
    /// An event stream of one event, chunked.
    Sse,
}

/// JSON-RPC error codes, and the HTTP status each one is sent with.
#[derive(Clone, Copy)]
enum Fault {
    Parse,
    InvalidRequest,
    MethodNotFound { modern: bool },
    InvalidParams { modern: bool },
    HeaderMismatch,
    UnsupportedVersion,
    NoSession,
    UnknownSession,
}

impl Fault {
    const fn parts(self) -> (&'static str, i32, &'static str) {
        match self {
            Self::Parse => ("400 Bad Request", -32700, "Parse error"),
            Self::InvalidRequest => ("400 Bad Request", -32600, "Invalid request"),
            Self::MethodNotFound { modern: true } => ("404 Not Found", -32601, "Method not found"),
            Self::MethodNotFound { modern: false } => ("200 OK", -32601, "Method not found"),
            Self::InvalidParams { modern: true } => ("400 Bad Request", -32602, "Invalid params"),
            Self::InvalidParams { modern: false } => ("200 OK", -32602, "Invalid params"),
            Self::HeaderMismatch => ("400 Bad Request", -32020, "Header mismatch"),
            Self::UnsupportedVersion => ("400 Bad Request", -32022, "Unsupported protocol version"),
            Self::NoSession => ("400 Bad Request", -32600, "Mcp-Session-Id is missing"),
            Self::UnknownSession => ("404 Not Found", -32600, "Session not found"),
        }
    }
}

/// The parts of a message that decide the answer, raw.
#[derive(Clone, Copy)]
struct Message<'a> {
    id: &'a [u8],
    method: &'a [u8],
    params: Option<&'a [u8]>,
}

/// Answers messages; one for all threads.
#[derive(Debug)]
pub(super) struct Responder {
    /// `None`: no session is minted or demanded.
    sessions: Option<Sessions>,
    style: AnswerStyle,
    fixed_content: Vec<u8>,
    pub(super) delay: std::time::Duration,
    pub(super) stall: Option<super::Stall>,
}

/// What the loop must know about an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// A `tools/call` that a tool answered.
    Call,
    /// A `tools/call` whose answer has only begun.
    Stream(Box<Stream>),
    /// Anything else.
    Other,
}

impl Responder {
    pub(super) fn new(options: &Options, nonce: u128) -> Self {
        Self {
            sessions: options.sessions.then(|| Sessions::new(nonce)),
            style: options.style,
            fixed_content: [b"\"", &vec![b'x'; options.result_bytes][..], b"\""].concat(),
            delay: options.delay,
            stall: options.stall,
        }
    }

    /// Appends the whole HTTP answer to one request, whose body is `json`.
    pub(super) fn handle(&self, head: &RequestHead<'_>, json: &[u8], out: &mut Vec<u8>) -> Answered {
        if head.method != "POST" {
            self.handle_other_method(head, out);
            return Answered::Other;
        }
        let Some([id, method, params]) = members(json, ["id", "method", "params"]) else {
            fault(out, b"null", if json.starts_with(b"[") { Fault::InvalidRequest } else { Fault::Parse });
            return Answered::Other;
        };
        let Some(method) = method.and_then(string_content) else {
            // A response to a server's request: this server sends none, but taking one is harmless.
            plain(out, "202 Accepted", "");
            return Answered::Other;
        };
        let message = Message { id: id.unwrap_or(b"null"), method, params };
        let answered = match head.version.map(Revision::parse) {
            Some(None) => Err(Fault::UnsupportedVersion),
            Some(Some(revision)) if revision.is_modern() => check_modern(head, &message),
            _ => self.check_legacy(head, &message),
        };
        match answered {
            Err(e) => fault(out, message.id, e),
            Ok(_) if id.is_none() => plain(out, "202 Accepted", ""),
            Ok(modern) => return self.serve(&message, modern, out),
        }
        Answered::Other
    }

    /// `DELETE` ends a session; there is no stream to `GET` (2025-11-25, basic/transports).
    fn handle_other_method(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) {
        match (&self.sessions, head.method) {
            (Some(sessions), "DELETE") => match sessions.standing(head) {
                Standing::Missing => fault(out, b"null", Fault::NoSession),
                Standing::Alive if sessions.end(head) => plain(out, "204 No Content", ""),
                Standing::Alive | Standing::Unknown => fault(out, b"null", Fault::UnknownSession),
            },
            (Some(_), _) => plain(out, "405 Method Not Allowed", "Allow: POST, DELETE\r\n"),
            (None, _) => plain(out, "405 Method Not Allowed", "Allow: POST\r\n"),
        }
    }

    fn check_legacy(&self, head: &RequestHead<'_>, message: &Message<'_>) -> Result<bool, Fault> {
        match &self.sessions {
            Some(sessions) if message.method != b"initialize" => match sessions.standing(head) {
                Standing::Missing => Err(Fault::NoSession),
                Standing::Unknown => Err(Fault::UnknownSession),
                Standing::Alive => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn serve(&self, message: &Message<'_>, modern: bool, out: &mut Vec<u8>) -> Answered {
        if message.method == b"tools/call" {
            return self.call(message, modern, out);
        }
        let complete = if modern { r#""resultType":"complete","# } else { "" };
        let cached = if modern { r#","ttlMs":3600000,"cacheScope":"public""# } else { "" };
        let meta = if modern { format!(",{META}") } else { String::new() };
        match message.method {
            b"initialize" if !modern => self.initialize(message, out),
            b"ping" if !modern => self.result(out, message.id, "", &[b"{}"]),
            b"tools/list" => {
                let text = format!(r#"{{{complete}"tools":{TOOLS}{cached}{meta}}}"#);
                self.result(out, message.id, "", &[text.as_bytes()]);
            }
            b"server/discover" if modern => {
                let text = format!(
                    r#"{{{complete}"supportedVersions":{VERSIONS},"capabilities":{{"tools":{{}}}}{cached}{meta}}}"#
                );
                self.result(out, message.id, "", &[text.as_bytes()]);
            }
            _ => fault(out, message.id, Fault::MethodNotFound { modern }),
        }
        Answered::Other
    }

    fn call(&self, message: &Message<'_>, modern: bool, out: &mut Vec<u8>) -> Answered {
        let params = message.params.and_then(|p| members(p, ["name", "arguments", "_meta"]));
        let [name, arguments, meta] = params.unwrap_or_default();
        let stream = match name.and_then(string_content) {
            Some(b"stream") => StreamArguments::parse(arguments),
            _ => None,
        };
        let token = meta.and_then(|m| members(m, ["progressToken"])).and_then(|[token]| token);
        if let (Some(stream), Some(token)) = (stream, token) {
            push_head(out);
            let result = result_json(message.id, &tool_result(br#""done""#, modern));
            return Answered::Stream(Box::new(Stream::new(stream, token, result)));
        }
        let text = match name.and_then(string_content) {
            Some(b"echo") => arguments
                .and_then(|a| members(a, ["text"]))
                .and_then(|[text]| text)
                .filter(|text| string_content(text).is_some()),
            Some(b"fixed") => Some(&self.fixed_content[..]),
            // Nobody wants to hear of its progress, so there is none.
            Some(b"stream") => stream.map(|_| &br#""done""#[..]),
            _ => None,
        };
        let Some(text) = text else {
            fault(out, message.id, Fault::InvalidParams { modern });
            return Answered::Other;
        };
        self.result(out, message.id, "", &tool_result(text, modern));
        Answered::Call
    }

    fn initialize(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        let wanted = message.params.and_then(|p| members(p, ["protocolVersion"])).and_then(|[v]| v);
        let revision = wanted
            .and_then(string_content)
            .and_then(Revision::parse)
            .filter(|r| !r.is_modern())
            .unwrap_or(Revision::V2025_11_25);
        let text = format!(
            r#"{{"protocolVersion":"{}","capabilities":{{"tools":{{}}}},"serverInfo":{SERVER_INFO}}}"#,
            revision.name()
        );
        let session = self
            .sessions
            .as_ref()
            .map_or(String::new(), |sessions| format!("Mcp-Session-Id: {}\r\n", sessions.mint()));
        self.result(out, message.id, &session, &[text.as_bytes()]);
    }

    /// Appends a result, whose JSON is `parts` joined, with extra header lines `fields`.
    fn result(&self, out: &mut Vec<u8>, id: &[u8], fields: &str, parts: &[&[u8]]) {
        let json_len = RESPONSE_OPEN.len()
            + id.len()
            + RESPONSE_RESULT.len()
            + parts.iter().map(|p| p.len()).sum::<usize>()
            + 1;
        let event: (&[u8], &[u8]) = (b"event: message\ndata: ", b"\n\n");
        match self.style {
            AnswerStyle::Json => {
                out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
                out.extend_from_slice(fields.as_bytes());
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(json_len).as_bytes());
                out.extend_from_slice(b"\r\n\r\n");
            }
            AnswerStyle::Sse => {
                out.extend_from_slice(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n",
                );
                out.extend_from_slice(fields.as_bytes());
                push_chunk_size(out, event.0.len() + json_len + event.1.len());
                out.extend_from_slice(event.0);
            }
        }
        push_result(out, id, parts);
        if self.style == AnswerStyle::Sse {
            out.extend_from_slice(event.1);
            out.extend_from_slice(b"\r\n0\r\n\r\n");
        }
    }
}

/// The result of a tool whose text is this raw JSON string, in parts.
fn tool_result(text: &[u8], modern: bool) -> [&[u8]; 6] {
    let open = br#"{"content":[{"type":"text","text":"#;
    let close = br#"}],"isError":false"#;
    let complete: &[u8] = if modern { br#","resultType":"complete","# } else { b"" };
    [open, text, close, complete, if modern { META.as_bytes() } else { b"" }, b"}"]
}

/// Appends the response to the request with this id, whose result is `parts` joined.
fn push_result(out: &mut Vec<u8>, id: &[u8], parts: &[&[u8]]) {
    out.extend_from_slice(RESPONSE_OPEN);
    out.extend_from_slice(id);
    out.extend_from_slice(RESPONSE_RESULT);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b'}');
}

fn result_json(id: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut json = Vec::new();
    push_result(&mut json, id, parts);
    json
}

/// Appends an answer to a request that is no HTTP, or too large; the connection is closed behind it.
pub(super) fn refuse(out: &mut Vec<u8>) {
    plain(out, "400 Bad Request", "Connection: close\r\n");
}

/// The checks of a modern request: the header fields and the body must agree.
fn check_modern(head: &RequestHead<'_>, message: &Message<'_>) -> Result<bool, Fault> {
    let [meta, name, uri] =
        message.params.and_then(|p| members(p, ["_meta", "name", "uri"])).unwrap_or_default();
    let version = meta.and_then(|m| members(m, [META_VERSION])).and_then(|[v]| v).and_then(string_content);
    if version.is_none() {
        return Err(Fault::InvalidParams { modern: true });
    }
    let named = match message.method {
        b"tools/call" | b"prompts/get" => Some(name),
        b"resources/read" => Some(uri),
        _ => None,
    };
    let name_agrees =
        named.is_none_or(|n| head.mcp_name.is_some() && head.mcp_name == n.and_then(string_content));
    if version == head.version && head.mcp_method == Some(message.method) && name_agrees {
        Ok(true)
    } else {
        Err(Fault::HeaderMismatch)
    }
}

/// Appends a JSON-RPC error, always as JSON.
fn fault(out: &mut Vec<u8>, id: &[u8], fault: Fault) {
    let (status, code, text) = fault.parts();
    let data = match fault {
        Fault::UnsupportedVersion => format!(r#","data":{{"supported":{VERSIONS}}}"#),
        _ => String::new(),
    };
    let error = format!(r#","error":{{"code":{code},"message":"{text}"{data}}}}}"#);
    let open = br#"{"jsonrpc":"2.0","id":"#;
    let len = open.len() + id.len() + error.len();
    write(
        out,
        format_args!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"),
    );
    out.extend_from_slice(open);
    out.extend_from_slice(id);
    out.extend_from_slice(error.as_bytes());
}

/// Appends an answer without a body.
fn plain(out: &mut Vec<u8>, status: &str, fields: &str) {
    // A 204 has no length (RFC 9110, 8.6).
    let length = if status.starts_with("204") { "" } else { "Content-Length: 0\r\n" };
    write(out, format_args!("HTTP/1.1 {status}\r\n{fields}{length}\r\n"));
}

/// Ends the head and opens a chunk.
fn push_chunk_size(out: &mut Vec<u8>, size: usize) {
    write(out, format_args!("\r\n{size:x}\r\n"));
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec never fails");
}
