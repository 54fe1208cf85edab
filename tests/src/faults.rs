//! Owns the table of what an MCP server can do wrong once it is connected to, and what a client of the gateway must be told
//! then, and the server that does it: it does what the row says whose name the called tool has, and answers every other
//! request in order. Never what a fault of connecting looks like; those are the tests' own.

use std::fmt::{Display, Formatter};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mcp::{LEGACY, MODERN};
use crate::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};

/// The pause between two pieces of a server that is slow.
const PACE: Duration = Duration::from_millis(100);
/// Bytes of a piece of a body without end.
const PIECE: usize = 64 * 1024;

/// A row.
#[derive(Debug)]
pub struct Fault {
    /// What the server does; the tool of this name makes it do so.
    pub name: &'static str,
    act: Act,
    /// What a client of HTTP is told.
    pub http: Told,
    /// What a client is told whose door has frames.
    pub framed: Told,
}

/// What a client is told of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The gateway's own error: JSON-RPC -32000 with the request's id, over HTTP with this status, counted under this reason.
    Refused(u16, &'static str),
    /// The connection ends before the answer's end, so that nobody takes what came for all; counted under this reason.
    Cut(&'static str),
    /// The last event is the gateway's own error, as in [`Self::Refused`].
    LastEvent(&'static str),
    /// The server's own answer: over HTTP with this status, and with this body where it is not the right one (`$ID` stands
    /// for the request's id, `$ANSWER` for the right response).
    Passed(u16, Option<&'static str>),
    /// The server's own error of this code.
    Error(i64),
}

/// What the server does with the request. In texts `$ID` stands for the request's id, `$ANSWER` for the right response, `$LEN`
/// for its length and `$CHUNK` for it as a chunk.
#[derive(Debug)]
enum Act {
    Say(String, After),
    /// Says the first text, and then the second, byte by byte and slowly.
    Drip(&'static str, &'static str),
    /// Says the first text, and then the second again and again, slowly, for as long as somebody listens.
    DripForEver(&'static str, &'static str),
    /// Says this and then nothing, until the other side has closed the connection.
    Stall(&'static str),
    /// Says this and then the same bytes as fast as they are taken, until the other side has closed the connection.
    Flood(&'static str, u8),
}

use Told::{Cut, Error, LastEvent, Passed, Refused};

const CLOSED: &str = "upstream_closed";
const MALFORMED: &str = "upstream_malformed";
const STATUS: &str = "upstream_status";
const TIMEOUT: &str = "upstream_timeout";

/// The right answer as it is.
const OK: Told = Passed(200, None);
/// What doors of frames say where nothing can be read.
const NO_RESPONSE: Told = Refused(502, MALFORMED);

/// Heads of an answer, complete but for its length.
const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The table.
#[must_use]
pub fn faults() -> Vec<Fault> {
    [connections(), lengths(), heads(), statuses(), bodies(), streams(), paces()]
        .into_iter()
        .flatten()
        .collect()
}

/// A server that does what the table says.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn faulty_server() -> ScriptedUpstream {
    let faults = faults();
    ScriptedUpstream::start(move |request, stream| {
        let message = request.json();
        let tool = message["params"]["name"].as_str().unwrap_or_default();
        match faults.iter().find(|fault| message["method"] == "tools/call" && fault.name == tool) {
            Some(fault) => fault.act.play(request, stream),
            None => good(&message, stream),
        }
    })
}

/// What a server of both eras answers when nothing is wrong; a notification gets nothing.
#[must_use]
pub fn good_response(message: &Value) -> Option<Value> {
    let result = match message["method"].as_str()? {
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": [MODERN], "capabilities": {"tools": {}},
            "ttlMs": 0, "cacheScope": "private",
        }),
        "tools/list" => json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"}),
        "initialize" => json!({
            "protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": {"name": "faulty", "version": "1.0.0"},
        }),
        _ => good_result(message["params"]["name"].as_str().unwrap_or_default()),
    };
    let id = message.get("id")?;
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// The result of a call that goes well.
#[must_use]
pub fn good_result(tool: &str) -> Value {
    json!({"resultType": "complete", "content": [{"type": "text", "text": tool}]})
}

/// A text of the table with what its placeholders stand for.
#[must_use]
pub fn expand(text: &str, id: &Value, tool: &str) -> String {
    let right = json!({"jsonrpc": "2.0", "id": id, "result": good_result(tool)}).to_string();
    let chunk = format!("{:x}\r\n{right}\r\n", right.len());
    text.replace("$CHUNK", &chunk)
        .replace("$ANSWER", &right)
        .replace("$LEN", &right.len().to_string())
        .replace("$ID", &id.to_string())
}

impl Fault {
    /// Its line in the documentation: what is done, what is told over HTTP, and what over frames, which have no status.
    #[must_use]
    pub fn documented(&self) -> String {
        let framed = match self.framed {
            Refused(_, reason) => format!("-32000, `{reason}`"),
            ref told => told.to_string(),
        };
        format!("| {} | {} | {framed} |", self.name, self.http)
    }
}

impl Display for Told {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused(status, reason) => write!(f, "{status}, -32000, `{reason}`"),
            Cut(reason) => write!(f, "cut, `{reason}`"),
            LastEvent(reason) => write!(f, "last event: -32000, `{reason}`"),
            Passed(200, None) => write!(f, "the answer"),
            Passed(status, None) => write!(f, "the answer, {status}"),
            Passed(status, Some(_)) => write!(f, "{status}, as the server said it"),
            Error(code) => write!(f, "the server's {code}"),
        }
    }
}

/// The connection ends where it must not.
fn connections() -> Vec<Fault> {
    let refused = || [Refused(502, CLOSED), Refused(502, CLOSED)];
    let cut = || [Cut(CLOSED), Refused(502, CLOSED)];
    let begun = format!("{JSON}Content-Length: 1000\r\n\r\n{{\"jsonrpc\":\"2.0\",");
    vec![
        say("the end instead of an answer", "", After::Close, refused()),
        say("a reset instead of an answer", "", After::Reset, refused()),
        say("the end within the head", "HTTP/1.1 200 OK\r\nContent-Ty", After::Close, refused()),
        say("the end after a head without its last line", JSON, After::Close, refused()),
        say("a reset within the head", "HTTP/1.1 200 OK\r\nContent-Ty", After::Reset, refused()),
        say("the end after the head", &head("Content-Length: 10"), After::Close, refused()),
        say("the end within the body", &begun, After::Close, cut()),
        say("a reset within the body", &begun, After::Reset, cut()),
        say(
            "the end between two chunks",
            &format!("{}$CHUNK", head("Transfer-Encoding: chunked")),
            After::Close,
            // Frames need no end of a body where the response in it is whole, but it could be followed by anything.
            cut(),
        ),
        say(
            "a reset of a body that ends with the connection",
            &format!("{JSON}\r\n$ANSWER"),
            After::Reset,
            cut(),
        ),
        say("an answer that ends with the connection", &format!("{JSON}\r\n$ANSWER"), After::Close, [OK, OK]),
        say(
            "HTTP/1.0",
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n$ANSWER",
            After::Close,
            [OK, OK],
        ),
        say(
            "Connection: close, and the end",
            &format!("{}$ANSWER", head("Connection: close\r\nContent-Length: $LEN")),
            After::Close,
            [OK, OK],
        ),
    ]
}

/// Lengths and chunks that lie.
fn lengths() -> Vec<Fault> {
    let refused = || [Refused(502, MALFORMED), Refused(502, MALFORMED)];
    let chunked = |body: &str| format!("{}{body}", head("Transfer-Encoding: chunked"));
    vec![
        say(
            "a length that is more than the body",
            &format!("{}$ANSWER", head("Content-Length: 100000")),
            After::Close,
            [Cut(CLOSED), Refused(502, CLOSED)],
        ),
        say(
            "a length that is less than the body",
            &format!("{}$ANSWER", head("Content-Length: 9")),
            After::KeepOpen,
            [Passed(200, Some("{\"id\":$ID")), NO_RESPONSE],
        ),
        say(
            "two lengths that differ",
            &format!("{}$ANSWER", head("Content-Length: $LEN\r\nContent-Length: 9")),
            After::Close,
            refused(),
        ),
        say(
            "a list of lengths",
            &format!("{}$ANSWER", head("Content-Length: 9, 10")),
            After::Close,
            refused(),
        ),
        say("a negative length", &format!("{}$ANSWER", head("Content-Length: -1")), After::Close, refused()),
        say("a signed length", &format!("{}$ANSWER", head("Content-Length: +$LEN")), After::Close, refused()),
        say(
            "a length of more than 64 bits",
            &format!("{}$ANSWER", head("Content-Length: 99999999999999999999")),
            After::Close,
            refused(),
        ),
        say(
            "a length and chunks",
            &format!("{}$CHUNK0\r\n\r\n", head("Content-Length: 9\r\nTransfer-Encoding: chunked")),
            After::Close,
            refused(),
        ),
        say(
            "an unknown transfer coding",
            &format!("{}$CHUNK0\r\n\r\n", head("Transfer-Encoding: gzip, chunked")),
            After::Close,
            refused(),
        ),
        say(
            "a chunk size that is no number",
            &chunked("xyz\r\n$ANSWER\r\n0\r\n\r\n"),
            After::KeepOpen,
            refused(),
        ),
        say("a negative chunk size", &chunked("-5\r\n$ANSWER\r\n0\r\n\r\n"), After::KeepOpen, refused()),
        say(
            "a chunk size of more than 64 bits",
            &chunked("10000000000000009\r\n$ANSWER\r\n0\r\n\r\n"),
            After::KeepOpen,
            refused(),
        ),
        say(
            "a chunk size line without end",
            &chunked(&format!("5;{}", "x".repeat(1000))),
            After::KeepOpen,
            refused(),
        ),
        say(
            "a chunk that is longer than its size",
            &chunked("9\r\n$ANSWER\r\n0\r\n\r\n"),
            After::KeepOpen,
            [Cut(MALFORMED), Refused(502, MALFORMED)],
        ),
        say(
            "a chunk of a terabyte, and the end",
            &chunked("10000000000\r\n$ANSWER"),
            After::Close,
            [Cut(CLOSED), Refused(502, CLOSED)],
        ),
        say(
            "trailers without end",
            &chunked(&format!("$CHUNK0\r\n{}", "X-Trailer: x\r\n".repeat(1000))),
            After::KeepOpen,
            [Cut(MALFORMED), Refused(502, MALFORMED)],
        ),
        say("trailers", &chunked("$CHUNK0\r\nX-Trailer: x\r\n\r\n"), After::KeepOpen, [OK, OK]),
        say(
            "bytes behind the answer",
            &format!("{}$ANSWER{JSON}Content-Length: 2\r\n\r\n{{}}", head("Content-Length: $LEN")),
            After::KeepOpen,
            [OK, OK],
        ),
    ]
}

/// Heads that break HTTP or a limit.
fn heads() -> Vec<Fault> {
    let with = |field: &str| format!("{}$ANSWER", head(&format!("{field}\r\nContent-Length: $LEN")));
    let refused =
        |name, text: &str| say(name, text, After::Close, [Refused(502, MALFORMED), Refused(502, MALFORMED)]);
    let passed = |name, text: &str| say(name, text, After::KeepOpen, [OK, OK]);
    let interim = |line: &str, times| format!("HTTP/1.1 {line}\r\n\r\n").repeat(times);
    vec![
        refused("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        refused("no head", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\r\n\r\n"),
        refused("an answer of HTTP/2", "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        refused("a status of two digits", "HTTP/1.1 99 Odd\r\nContent-Length: 2\r\n\r\n{}"),
        refused("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}"),
        refused(
            "line feeds alone",
            "HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 2\n\n{}",
        ),
        refused("a head of 64 KiB", &with(&format!("X-Long: {}", "x".repeat(64 << 10)))),
        refused("two hundred header fields", &with(&"X-Many: x\r\n".repeat(200))),
        refused("a folded header line", &with("X-Folded: a\r\n b")),
        refused("a carriage return in a field", &with("X-Split: a\rSet-Cookie: b")),
        refused("a line feed in a field", &with("X-Split: a\nSet-Cookie: b")),
        refused("a zero byte in a field", &with("X-Zero: a\0b")),
        refused("a space before the colon", &with("X-Space : a")),
        refused("a field without a name", &with(": a")),
        refused(
            "a switch of protocols",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        ),
        refused("interim answers without end", &interim("102 Processing", 50)),
        passed("three interim answers", &format!("{}{}", interim("103 Early Hints", 3), with("X-Good: a"))),
        passed("fields that are the gateway's own", &with(GATEWAY_FIELDS)),
    ]
}

/// Statuses other than 200.
fn statuses() -> Vec<Fault> {
    let empty = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    let text = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nno!\n")
    };
    let json = |status: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{SERVER_ERROR}"
        )
    };
    let told = |name, text: &str, http, framed| say(name, text, After::Close, [http, framed]);
    let status = |name, text: &str| told(name, text, Refused(502, STATUS), Refused(502, STATUS));
    let malformed = |name, text: &str| told(name, text, Refused(502, MALFORMED), Refused(502, MALFORMED));
    let error = |name, text: &str, http| told(name, text, Passed(http, Some(SERVER_ERROR)), Error(-32603));
    let bare = |name, text: &str, http| told(name, text, Passed(http, Some("")), Refused(502, STATUS));
    let unauthorized =
        "401 Unauthorized\r\nWWW-Authenticate: Bearer resource_metadata=\"https://a.example/\"";
    let elsewhere = "Found\r\nLocation: http://127.0.0.1:1/mcp";
    vec![
        malformed("202 for a request", &empty("202 Accepted")),
        malformed("204 for a request", "HTTP/1.1 204 No Content\r\n\r\n"),
        malformed("302 to another server", &empty(&format!("302 {elsewhere}"))),
        malformed("307 to another server", &empty(&format!("307 {elsewhere}"))),
        malformed("304", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        bare("401 with WWW-Authenticate", &empty(unauthorized), 401),
        bare("403", &text("403 Forbidden"), 403),
        bare("405", &empty("405 Method Not Allowed\r\nAllow: GET"), 405),
        status("404 as text", &text("404 Not Found")),
        error("404 as JSON", &json("404 Not Found"), 404),
        bare("429 with Retry-After", &text("429 Too Many Requests\r\nRetry-After: 7"), 429),
        error("429 as JSON", &json("429 Too Many Requests\r\nRetry-After: 7"), 429),
        status("500 as text", &text("500 Internal Server Error")),
        error("500 as JSON", &json("500 Internal Server Error"), 500),
        status("502 as HTML", "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html></html>"),
        status("503 with Retry-After", &text("503 Service Unavailable\r\nRetry-After: 7")),
        status("a status that nobody knows", &text("799 Odd")),
    ]
}

/// Bodies that are not what was asked for.
fn bodies() -> Vec<Fault> {
    let of = |kind: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}")
    };
    let malformed = |name, text: &str| say(name, text, After::Close, [Refused(502, MALFORMED), NO_RESPONSE]);
    // Over HTTP it is beyond doubt whose answer it is, and its bytes are not changed: the client refuses it.
    let as_said = |name, body: &'static str| {
        say(name, &of("application/json", body), After::Close, [Passed(200, Some(body)), NO_RESPONSE])
    };
    vec![
        malformed("200 with HTML", &of("text/html", "<html><body>Welcome</body></html>")),
        malformed("200 with text", &of("text/plain", "$ANSWER")),
        malformed("200 without a type", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n$ANSWER"),
        malformed("200 with nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        malformed("200 with JSON of no bytes", &head("Content-Length: 0")),
        malformed(
            "JSON that was compressed unasked",
            &format!("{}\x1f", head("Content-Encoding: gzip\r\nContent-Length: 1")),
        ),
        as_said("another's id", r#"{"jsonrpc":"2.0","id":987654321,"result":{}}"#),
        as_said("the id as another type", r#"{"jsonrpc":"2.0","id":"$ID","result":{}}"#),
        as_said("a result without id", r#"{"jsonrpc":"2.0","result":{}}"#),
        as_said("a request instead of an answer", r#"{"jsonrpc":"2.0","id":$ID,"method":"ping"}"#),
        as_said("a list of nothing", "[]"),
        as_said("half an object", r#"{"jsonrpc":"2.0","id":$ID,"#),
        as_said("two answers, one behind the other", "$ANSWER$ANSWER"),
        as_said("a word", "hello"),
        say(
            "the answer twice in a list",
            &of("application/json", "[$ANSWER,$ANSWER]"),
            After::Close,
            [Passed(200, Some("[$ANSWER,$ANSWER]")), OK],
        ),
    ]
}

/// Event streams that are not what they should be.
fn streams() -> Vec<Fault> {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let note = chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n");
    let closed = || [LastEvent(CLOSED), Refused(502, CLOSED)];
    // The length of the answer is not known here, so the connection's end stands for the stream's.
    let until_end = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{body}")
    };
    vec![
        say(
            "a stream that is cut within an event",
            &format!("{EVENTS}{note}{}", chunk("data: {\"jso")),
            After::Close,
            closed(),
        ),
        say("a stream that is cut between events", &format!("{EVENTS}{note}"), After::Close, closed()),
        say(
            "a stream that ends without the response",
            &format!("{EVENTS}{note}0\r\n\r\n"),
            After::KeepOpen,
            closed(),
        ),
        say("a stream that ends at once", &format!("{EVENTS}0\r\n\r\n"), After::KeepOpen, closed()),
        say(
            "a stream of nothing but comments",
            &format!("{EVENTS}{}0\r\n\r\n", chunk(": hello\n\n")),
            After::KeepOpen,
            closed(),
        ),
        say(
            "a stream that answers nobody",
            &until_end("data: {\"jsonrpc\":\"2.0\",\"id\":987654321,\"result\":{}}\n\n"),
            After::Close,
            closed(),
        ),
        say(
            "a stream that answers nobody first",
            &until_end("data: {\"jsonrpc\":\"2.0\",\"id\":987654321,\"result\":{}}\n\ndata: $ANSWER\n\n"),
            After::Close,
            [OK, OK],
        ),
        say(
            "a stream that answers twice",
            &until_end("data: $ANSWER\n\ndata: $ANSWER\n\n"),
            After::Close,
            [OK, OK],
        ),
        say(
            "a stream with a broken event first",
            &until_end("data: {\"jsonrpc\":\n\ndata: $ANSWER\n\n"),
            After::Close,
            [OK, OK],
        ),
        say(
            "a stream with a broken chunk",
            &format!("{EVENTS}{note}xyz\r\n"),
            After::KeepOpen,
            [LastEvent(MALFORMED), Refused(502, MALFORMED)],
        ),
        fault(
            "an event without end",
            Act::Flood("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ", b'x'),
            [LastEvent(MALFORMED), Refused(502, MALFORMED)],
        ),
    ]
}

/// Servers that take their time, or never come to an end.
fn paces() -> Vec<Fault> {
    let timeout = || [Refused(504, TIMEOUT), Refused(504, TIMEOUT)];
    vec![
        fault("no answer", Act::Stall(""), timeout()),
        fault("a head that stalls", Act::Stall("HTTP/1.1 200 OK\r\nContent-Ty"), timeout()),
        fault(
            "a head, drop by drop for ever",
            Act::DripForEver("HTTP/1.1 200 OK\r\nX-Slow: ", "x"),
            timeout(),
        ),
        fault(
            "interim answers, one by one for ever",
            Act::DripForEver("", "HTTP/1.1 102 Processing\r\n\r\n"),
            [Refused(502, MALFORMED), Refused(502, MALFORMED)],
        ),
        fault(
            "a body that stalls",
            Act::Stall("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"),
            [Cut(TIMEOUT), Refused(504, TIMEOUT)],
        ),
        fault(
            "a body, drop by drop",
            Act::Drip(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: $LEN\r\n\r\n",
                "$ANSWER",
            ),
            [OK, OK],
        ),
    ]
}

/// A server may say these of itself; a client must not take them for the gateway's.
const GATEWAY_FIELDS: &str = "Mcp-Session-Id: stolen\r\nAccess-Control-Allow-Origin: *\r\nUpgrade: h2c\r\n\
                              Connection: keep-alive, X-Private\r\nX-Private: secret\r\nTrailer: X-Odd";
/// A server's own error.
const SERVER_ERROR: &str =
    r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32603,"message":"the server's own"}}"#;

fn say(name: &'static str, text: &str, after: After, told: [Told; 2]) -> Fault {
    fault(name, Act::Say(text.to_owned(), after), told)
}

fn fault(name: &'static str, act: Act, [http, framed]: [Told; 2]) -> Fault {
    Fault { name, act, http, framed }
}

fn head(fields: &str) -> String {
    format!("{JSON}{fields}\r\n\r\n")
}

impl Act {
    fn play(&self, request: &UpstreamRequest, stream: &mut TcpStream) -> After {
        let message = request.json();
        let tool = message["params"]["name"].as_str().unwrap_or_default();
        let expand = |text: &str| expand(text, &message["id"], tool);
        let first = match self {
            Act::Say(text, _) => text,
            Act::Drip(first, _) | Act::DripForEver(first, _) | Act::Stall(first) | Act::Flood(first, _) => {
                *first
            }
        };
        if stream.write_all(expand(first).as_bytes()).is_err() {
            return After::Close;
        }
        match self {
            Act::Say(_, after) => *after,
            Act::Drip(_, text) => {
                let text = expand(text);
                let taken = text
                    .as_bytes()
                    .chunks(8)
                    .all(|piece| is_open_after(PACE, stream) && stream.write_all(piece).is_ok());
                if taken { After::KeepOpen } else { After::Close }
            }
            Act::DripForEver(_, text) => {
                while is_open_after(PACE, stream) && stream.write_all(text.as_bytes()).is_ok() {}
                After::Close
            }
            Act::Stall(_) => {
                while is_open_after(PACE, stream) {}
                After::Close
            }
            Act::Flood(_, byte) => {
                let piece = vec![*byte; PIECE];
                while stream.write_all(&piece).is_ok() {}
                After::Close
            }
        }
    }
}

/// Waits for `pause`; whether the other side has not closed the connection in that time.
fn is_open_after(pause: Duration, stream: &mut TcpStream) -> bool {
    if stream.set_read_timeout(Some(pause)).is_err() {
        return false;
    }
    let open = matches!(stream.read(&mut [0]), Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    open && stream.set_read_timeout(None).is_ok()
}

fn good(message: &Value, stream: &mut TcpStream) -> After {
    match good_response(message) {
        Some(response) => answer_json(stream, "200 OK\r\nMcp-Session-Id: faulty", &response),
        None => answer(stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", After::KeepOpen),
    }
}
