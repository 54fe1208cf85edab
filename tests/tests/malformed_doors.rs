//! Setup: one table of messages that are none, or not allowed, and each of them sent through every door: HTTP/1.1, HTTP/2,
//! HTTP with SSE, WebSocket and MCPB.
//! Claim: all doors read a message in the same way: the same JSON-RPC code with the same id, and the connection serves on; where a
//! door's own protocol forbids the bytes, it ends with the code that this protocol names. Nothing of it reaches a server.

use std::io::{ErrorKind, Read, Result, Write};

use mcp_system_tests::h2::H2Connection;
use mcp_system_tests::mcp::{LEGACY, MODERN, POST_HEADERS, initialize, request};
use mcp_system_tests::port::free_port;
use mcp_system_tests::sse::Stream;
use mcp_system_tests::tls::{self, TlsStream};
use mcp_system_tests::upstream::{ScriptedUpstream, answer_json};
use mcp_system_tests::ws::{Socket, TEXT};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response};
use serde_json::{Value, json};

/// What a client is told, beside HTTP's status.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Told {
    /// A JSON-RPC error of this code, and the connection lives.
    Code(i64),
    /// A close frame of this code.
    Close(u16),
    /// An Error frame, counted under this label.
    Error(&'static str),
}
use Told::{Close, Code, Error};

/// A message, and what is told at each door.
struct Row<'a> {
    name: &'static str,
    message: &'a [u8],
    /// Either version.
    http: Told,
    /// By the POST's answer or, where that was 202, on the stream. `None` where the message is allowed.
    sse: Option<Told>,
    ws: Told,
    mcpb: Told,
}

/// A message that every door answers alike.
fn everywhere<'a>(name: &'static str, message: &'a [u8], told: Told) -> Row<'a> {
    Row { name, message, http: told, sse: Some(told), ws: told, mcpb: told }
}

const PARSE: Told = Code(-32700);
const INVALID: Told = Code(-32600);

#[test]
fn a_message_that_is_none_is_told_so_at_every_door() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{deep}}}}}"#);
    let but_mcpb =
        |name, message| Row { mcpb: Error("invalid_payload"), ..everywhere(name, message, INVALID) };
    let rows = [
        everywhere("white space", b" ", PARSE),
        everywhere("half an object", br#"{"jsonrpc":"2.0","id":1"#, PARSE),
        everywhere("something behind it", br#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, PARSE),
        everywhere("a comma too many", br#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#, PARSE),
        everywhere("single quotes", b"{'jsonrpc':'2.0','id':1,'method':'ping'}", PARSE),
        everywhere("a word", b"hello", PARSE),
        everywhere("too deep", deep.as_bytes(), PARSE),
        Row {
            ws: Close(1007),
            mcpb: Error("not_utf8"),
            ..everywhere("no UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\",\"method\":\"ping\"}", PARSE)
        },
        everywhere("a number", b"7", INVALID),
        everywhere("an empty batch", b"[]", INVALID),
        everywhere("a batch", br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, INVALID),
        everywhere("no version", br#"{"id":1,"method":"ping"}"#, INVALID),
        everywhere("another version", br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, INVALID),
        but_mcpb("a null id", br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#),
        but_mcpb("a fraction as id", br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#),
        but_mcpb("an object as id", br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#),
        but_mcpb("a number as method", br#"{"jsonrpc":"2.0","id":1,"method":7}"#),
        everywhere("a list as params", br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, INVALID),
        everywhere("neither method nor result", br#"{"jsonrpc":"2.0","id":1}"#, INVALID),
        everywhere("two methods", br#"{"jsonrpc":"2.0","id":1,"method":"a","m\u0065thod":"b"}"#, INVALID),
        everywhere("method and result", br#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, INVALID),
        everywhere(
            "result and error",
            br#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            INVALID,
        ),
        but_mcpb("a result without id", br#"{"jsonrpc":"2.0","result":{}}"#),
    ];
    let doors = Doors::start(GatewayConfig::new());
    doors.check(&rows);
    assert_eq!(doors.server.requests(), 0, "something malformed reached the server");
}

#[test]
fn a_message_that_is_not_allowed_is_told_so_at_every_door() {
    let text = |value: &Value| value.to_string().into_bytes();
    let ping = text(&request(1, "ping", json!({})));
    let unknown = json!({"io.modelcontextprotocol/protocolVersion": "1999-01-01"});
    let unknown = text(&request(1, "tools/list", json!({"_meta": unknown})));
    let partial = text(&request(
        1,
        "tools/list",
        json!({"_meta": {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": 7,
        }}),
    ));
    let batched = text(&json!([initialize(LEGACY), request(2, "ping", json!({}))]));
    let huge = text(&request(1, "ping", json!({"x": "x".repeat(5000)})));
    // Over HTTP the header fields that mirror a modern message are asked for first.
    let mirrored = |name, message, told| Row { http: Code(-32020), ..everywhere(name, message, told) };
    let rows = [
        // A stream is a session, in which a client may ping before it initializes.
        Row { sse: None, ..everywhere("a request without a session", &ping, INVALID) },
        everywhere("initialize in a batch", &batched, INVALID),
        mirrored("an unknown revision", &unknown, Code(-32022)),
        mirrored("capabilities that are none", &partial, Code(-32602)),
        Row {
            ws: Close(1009),
            mcpb: Error("payload_too_large"),
            ..everywhere("more than max_body", &huge, INVALID)
        },
    ];
    let doors = Doors::start(GatewayConfig::new().set("gateway.server", "max_body = \"4KiB\""));
    doors.check(&rows);
    assert_eq!(doors.server.requests(), 0, "something refused reached the server");
}

/// What only the doors with header fields can be told.
#[test]
fn header_fields_are_checked_alike_over_both_versions_of_http() {
    let doors = Doors::start(GatewayConfig::new());
    let [kind, accept] = POST_HEADERS;
    let session = ("mcp-session-id", "AAAAAAAAAAAAAAAAAAAAAAAA");
    type Case<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, &'a str)>, u16, i64);
    let cases: [Case<'_>; 10] = [
        ("an unknown session", "POST", "/mcp", vec![kind, accept, session], 404, -32001),
        (
            "an id that no session has",
            "POST",
            "/mcp",
            vec![kind, accept, ("mcp-session-id", "x")],
            404,
            -32001,
        ),
        ("another media type", "POST", "/mcp", vec![("content-type", "text/plain"), accept], 415, -32600),
        ("no media type", "POST", "/mcp", vec![accept], 415, -32600),
        ("an encoded body", "POST", "/mcp", vec![kind, accept, ("content-encoding", "gzip")], 415, -32600),
        ("an answer that nobody sends", "POST", "/mcp", vec![kind, ("accept", "text/html")], 406, -32600),
        (
            "an unknown revision",
            "POST",
            "/mcp",
            vec![kind, accept, ("mcp-protocol-version", "1999-01-01")],
            400,
            -32022,
        ),
        ("an unknown server", "POST", "/mcp/nobody", vec![kind, accept], 404, -32600),
        ("a method that is not served", "PUT", "/mcp", vec![kind, accept], 405, -32600),
        (
            "a foreign origin",
            "POST",
            "/mcp",
            vec![kind, accept, ("origin", "https://evil.example")],
            403,
            -32600,
        ),
    ];
    let body = request(1, "ping", json!({})).to_string();
    let mut http = Http::open(&doors.gateway);
    for (name, method, path, headers, status, code) in cases {
        for (door, answer) in http.ask(&doors.gateway, method, path, &headers, body.as_bytes()) {
            assert_eq!(answer.status, status, "{name}, {door}: {}", answer.text());
            assert_eq!(answer.json()["error"]["code"], code, "{name}, {door}: {}", answer.text());
        }
    }
    let refused = Socket::upgrade(doors.gateway.connect().expect("a connection"), "/ws", &[session]);
    let Err(refused) = refused.expect("an answer") else { panic!("an unknown session was resumed") };
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!(-32001)));
    assert_eq!(doors.server.requests(), 0, "something refused reached the server");
}

/// A gateway with all doors, before a server that must hear nothing.
struct Doors {
    server: ScriptedUpstream,
    gateway: Gateway,
    binary_port: u16,
}

impl Doors {
    fn start(config: GatewayConfig) -> Self {
        let server = ScriptedUpstream::start(|_, stream| answer_json(stream, "200 OK", &json!({})));
        let binary_port = free_port();
        let gateway = Gateway::start(&config.server("never", &[&server.url()]).binary_port(binary_port));
        Self { server, gateway, binary_port }
    }

    /// Sends each row through each door; a connection is used on for as long as it lives.
    fn check(&self, rows: &[Row<'_>]) {
        let mut http = Http::open(&self.gateway);
        let mut stream = Stream::open(self.connect(), "/sse").expect("a stream");
        let mut socket = Socket::open(&self.gateway, "/ws", &[]);
        let mut framed = self.framed();
        let mut wrong = Vec::new();
        for Row { name, message, http: over_http, sse, ws, mcpb } in rows {
            let mut note = |door: &str, told: std::result::Result<Told, String>, expected: &Told| {
                if told.as_ref() != Ok(expected) {
                    wrong.push(format!("{name}, {door}: {told:?}, not {expected:?}"));
                }
            };
            for (door, answer) in http.ask(&self.gateway, "POST", "/mcp", &POST_HEADERS, message) {
                note(door, told_by_http(&answer), over_http);
            }
            if let Some(sse) = sse {
                note("HTTP with SSE", self.told_by_stream(&mut stream, message), sse);
            }
            socket.send(TEXT, message);
            if let Close(_) = ws {
                note("WebSocket", Ok(Close(socket.expect_close().0)), ws);
                socket = Socket::open(&self.gateway, "/ws", &[]);
            } else {
                note("WebSocket", told_by_message(&socket.message()), ws);
            }
            let before = self.frame_errors(mcpb);
            let told = match framed.ask(message).expect("an answer") {
                Some(answer) => told_by_message(&answer),
                None => {
                    framed = self.framed();
                    let counted = self.frame_errors(mcpb) > before;
                    if counted { Ok(*mcpb) } else { Err("an Error frame".to_owned()) }
                }
            };
            note("MCPB", told, mcpb);
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(self.gateway.get("/health").expect("still served").status, 200);
    }

    /// What a client of HTTP with SSE is told: by the POST's answer, or on the stream.
    fn told_by_stream(&self, stream: &mut Stream, message: &[u8]) -> std::result::Result<Told, String> {
        let headers = [("content-type", "application/json")];
        let answer = self.connect().request("POST", &stream.endpoint, &headers, message).expect("an answer");
        match answer.status {
            202 => told_by_message(&stream.message()),
            _ => told_by_http(&answer),
        }
    }

    fn connect(&self) -> Connection {
        self.gateway.connect().expect("a connection")
    }

    /// Error frames counted so far under the label that is expected, if one is.
    fn frame_errors(&self, expected: &Told) -> f64 {
        let Error(label) = expected else { return 0.0 };
        self.gateway.metrics().count("mcp_gateway_tcp_protocol_errors_total", &[("error_type", label)])
    }

    fn framed(&self) -> Framed {
        let addr = (self.gateway.addr.ip(), self.binary_port).into();
        let stream = tls::connect(addr, &self.gateway.cert.client_config()).expect("a connection");
        let mut framed = Framed { stream };
        framed.send(6, br#"{"min_version":1,"max_version":1}"#).expect("sent");
        assert_eq!(framed.receive().expect("an agreement").0, 7);
        framed
    }
}

fn told_by_http(answer: &Response) -> std::result::Result<Told, String> {
    if !matches!(answer.status, 400 | 413) {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    told_by_message(&answer.json())
}

/// The code of an error that is well formed and names either no request or the one that was sent.
fn told_by_message(message: &Value) -> std::result::Result<Told, String> {
    let error = &message["error"];
    let named = message["id"].is_null() || message["id"] == 1;
    match error["code"].as_i64() {
        Some(code) if message["jsonrpc"] == "2.0" && named && error["message"].is_string() => Ok(Code(code)),
        _ => Err(message.to_string()),
    }
}

/// Both versions of HTTP.
struct Http {
    first: Connection,
    second: H2Connection,
}

impl Http {
    fn open(gateway: &Gateway) -> Self {
        Self {
            first: gateway.connect().expect("a connection"),
            second: H2Connection::open(gateway).expect("a connection"),
        }
    }

    /// The answers over HTTP/1.1 and HTTP/2. The former is connected again where the gateway ends it.
    fn ask(
        &mut self,
        gateway: &Gateway,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> [(&'static str, Response); 2] {
        let first = self.first.request(method, path, headers, body).expect("an answer");
        if first.header("connection") == Some("close") {
            self.first = gateway.connect().expect("a connection");
        }
        let stream = self.second.request(method, path, headers, body).expect("sent");
        [("HTTP/1.1", first), ("HTTP/2", self.second.answer(stream).expect("an answer"))]
    }
}

/// A client of MCPB, of frames only.
struct Framed {
    stream: TlsStream,
}

impl Framed {
    fn send(&mut self, kind: u16, payload: &[u8]) -> Result<()> {
        let mut frame = b"MCPB\x00\x01".to_vec();
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&u32::try_from(payload.len()).map_err(std::io::Error::other)?.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)?;
        self.stream.flush()
    }

    fn receive(&mut self) -> Result<(u16, Vec<u8>)> {
        let mut head = [0; 12];
        self.stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((u16::from_be_bytes([head[6], head[7]]), payload))
    }

    /// The response to a Request frame; `None` for an Error frame, after which the connection must have ended.
    fn ask(&mut self, message: &[u8]) -> Result<Option<Value>> {
        self.send(1, message)?;
        match self.receive()? {
            (2, payload) => Ok(Some(serde_json::from_slice(&payload)?)),
            (5, payload) => {
                assert!(!payload.is_empty(), "an Error frame says why");
                match self.receive() {
                    Err(end) if end.kind() == ErrorKind::UnexpectedEof => Ok(None),
                    other => panic!("something after an Error frame: {other:?}"),
                }
            }
            (kind, _) => Err(std::io::Error::other(format!("a frame of type {kind}"))),
        }
    }
}
