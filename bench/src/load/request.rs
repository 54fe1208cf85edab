//! The bytes of the requests: built once, with only session, length and id put in per request. Pure.

use super::Target;
use super::client::{
    MAX_FRAME_BYTES, push_field, push_indexed_name, push_request, push_request_header, push_text_head,
};
use super::target::Protocol;
use crate::json::push_string;
use crate::mcp::{META_CAPABILITIES, META_CLIENT_INFO, META_VERSION, Revision};

/// Stands for the id in a body being made. No control character can stand in JSON, so no value holds it.
const ID: char = '\u{1}';
/// The longest header block of a request over HTTP/2, its session's field and length not counted (bytes).
const MAX_BLOCK_BYTES: usize = MAX_FRAME_BYTES / 2;
/// What stands in `Sec-WebSocket-Key`: 16 bytes in base64. A server proves with it that it knows WebSocket; the frames that
/// follow prove it, too.
const SOCKET_KEY: &str = "bWNwLWJlbmNoLWNsaWVudA==";
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// What is called, and how.
#[derive(Clone, Debug)]
pub struct CallSpec {
    /// The revision spoken.
    pub revision: Revision,
    /// The tool.
    pub tool: String,
    /// Its arguments, one JSON object.
    pub arguments: String,
    /// Further header fields, name and value.
    pub headers: Vec<(String, String)>,
    /// A bearer token.
    pub token: Option<String>,
    /// Ask for progress notifications, with the request's id as the token.
    pub progress: bool,
}

/// Ready-made requests for one target.
#[derive(Debug)]
pub struct Requests {
    revision: Revision,
    call: Template,
    initialize: Template,
    initialized: Template,
    /// Over MCPB, WebSocket and HTTP with SSE a session ends with its connection.
    delete: Option<Template>,
    /// What asks for WebSocket, or for the stream of HTTP with SSE.
    upgrade: Vec<u8>,
}

impl Requests {
    /// Builds them for what `target` speaks.
    ///
    /// # Errors
    /// A sentence, when a value cannot be sent in that protocol.
    pub fn for_target(spec: &CallSpec, target: &Target) -> Result<Self, String> {
        match target.protocol {
            Protocol::Http1 => Self::over_http(spec, target, Head::http1),
            Protocol::Http2 => Self::over_http(spec, target, Head::h2),
            Protocol::WebSocket => Self::over_socket(spec, target),
            Protocol::Sse => Self::over_sse(spec, target),
            Protocol::Mcpb => Self::framed(spec),
        }
    }

    /// Builds them for MCPB: Request frames, the token as a member of `initialize`.
    fn framed(spec: &CallSpec) -> Result<Self, String> {
        check_arguments(&spec.arguments)?;
        if !spec.headers.is_empty() {
            return Err("MCPB has no header fields: leave --header out".to_owned());
        }
        if spec.revision.is_modern() && spec.token.is_some() {
            return Err("over MCPB a token goes with `initialize`, which this revision has not".to_owned());
        }
        let initialize = initialize_body(spec.revision, spec.token.as_deref());
        Ok(Self {
            revision: spec.revision,
            call: Template::new(Head::Frame, &call_body(spec)),
            initialize: Template::new(Head::Frame, &initialize),
            initialized: Template::new(Head::Frame, INITIALIZED),
            delete: None,
            upgrade: Vec::new(),
        })
    }

    /// Builds them for WebSocket: text messages, and the upgrade with the header fields.
    fn over_socket(spec: &CallSpec, target: &Target) -> Result<Self, String> {
        check_arguments(&spec.arguments)?;
        let mut upgrade = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {SOCKET_KEY}\r\nSec-WebSocket-Protocol: mcp\r\n",
            target.path, target.authority
        );
        for (name, value) in further_fields(spec)? {
            upgrade += &format!("{name}: {value}\r\n");
        }
        upgrade += "\r\n";
        Ok(Self {
            revision: spec.revision,
            call: Template::new(Head::Text, &call_body(spec)),
            initialize: Template::new(Head::Text, &initialize_body(spec.revision, None)),
            initialized: Template::new(Head::Text, INITIALIZED),
            delete: None,
            upgrade: upgrade.into_bytes(),
        })
    }

    /// Builds them for HTTP with SSE: the GET of the stream, and POSTs whose target is the endpoint that it names.
    fn over_sse(spec: &CallSpec, target: &Target) -> Result<Self, String> {
        check_arguments(&spec.arguments)?;
        let mut fields = format!("Host: {}\r\n", target.authority);
        for (name, value) in further_fields(spec)? {
            fields += &format!("{name}: {value}\r\n");
        }
        let stream = format!("GET {} HTTP/1.1\r\nAccept: text/event-stream\r\n{fields}\r\n", target.path);
        fields += "Content-Type: application/json\r\n";
        let template = |body: &str| Template::new(Head::Post(fields.clone().into_bytes()), body);
        Ok(Self {
            revision: spec.revision,
            call: template(&call_body(spec)),
            initialize: template(&initialize_body(spec.revision, None)),
            initialized: template(INITIALIZED),
            delete: None,
            upgrade: stream.into_bytes(),
        })
    }

    /// Builds them for HTTP; `head` makes a head of a method, a target and header fields.
    fn over_http(
        spec: &CallSpec,
        target: &Target,
        head: fn(&str, &Target, &[(String, String)]) -> Head,
    ) -> Result<Self, String> {
        check_arguments(&spec.arguments)?;
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut common = vec![
            field("Content-Type", "application/json"),
            field("Accept", "application/json, text/event-stream"),
        ];
        common.extend(further_fields(spec)?);
        let (revision, mut versioned) = (spec.revision, common.clone());
        if revision.has_version_header() {
            versioned.push(field("MCP-Protocol-Version", revision.name()));
        }
        let mut call_fields = versioned.clone();
        if revision.is_modern() {
            check_field("Mcp-Name", &spec.tool)?;
            call_fields.extend([field("Mcp-Method", "tools/call"), field("Mcp-Name", &spec.tool)]);
        }
        let body = call_body(spec);
        let head_bytes: usize = call_fields.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let too_long = head_bytes + target.path.len() + target.authority.len() > MAX_BLOCK_BYTES;
        if target.protocol == Protocol::Http2 && (too_long || body.len() + 64 > MAX_FRAME_BYTES) {
            return Err(format!("over HTTP/2 a call must fit into one frame, {MAX_FRAME_BYTES} bytes"));
        }
        Ok(Self {
            revision,
            call: Template::new(head("POST", target, &call_fields), &body),
            initialize: Template::new(head("POST", target, &common), &initialize_body(revision, None)),
            initialized: Template::new(head("POST", target, &versioned), INITIALIZED),
            delete: Some(Template::new(head("DELETE", target, &versioned), "")),
            upgrade: Vec::new(),
        })
    }

    /// Requests are stateless: no `initialize`, no session.
    pub fn is_stateless(&self) -> bool {
        self.revision.is_modern()
    }

    /// Appends a `tools/call`. Over HTTP with SSE `session` is the endpoint, here and below.
    pub fn push_call(&self, out: &mut Vec<u8>, session: Option<&str>, id: u64) {
        self.call.push(out, session, Some(id));
    }

    /// Appends an `initialize`.
    pub fn push_initialize(&self, out: &mut Vec<u8>, session: Option<&str>, id: u64) {
        self.initialize.push(out, session, Some(id));
    }

    /// Appends a `notifications/initialized`.
    pub fn push_initialized(&self, out: &mut Vec<u8>, session: Option<&str>) {
        self.initialized.push(out, session, None);
    }

    /// Appends the `DELETE` that ends a session, where the protocol has one.
    pub fn push_delete(&self, out: &mut Vec<u8>, session: Option<&str>) {
        if let Some(delete) = &self.delete {
            delete.push(out, session, None);
        }
    }

    /// Appends what asks for WebSocket, or for the stream of HTTP with SSE.
    pub fn push_upgrade(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.upgrade);
    }
}

/// What stands before a message.
#[derive(Debug)]
enum Head {
    /// The request line and the fields that never change.
    Http1(Vec<u8>),
    /// The header block of the fields that never change.
    H2(Vec<u8>),
    /// The fields of a POST that never change; its target is the endpoint.
    Post(Vec<u8>),
    /// The head of a text message.
    Text,
    /// A frame's header.
    Frame,
}

impl Head {
    fn http1(method: &str, target: &Target, fields: &[(String, String)]) -> Self {
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", target.path, target.authority);
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        Self::Http1(head.into_bytes())
    }

    fn h2(method: &str, target: &Target, fields: &[(String, String)]) -> Self {
        // Places in the static table (RFC 7541, appendix A).
        const AUTHORITY: u8 = 1;
        const METHOD: u8 = 2;
        const PATH: u8 = 4;
        /// `:scheme: https`, as a whole.
        const HTTPS: u8 = 0x80 | 7;
        let mut block = vec![HTTPS];
        push_indexed_name(&mut block, METHOD, method);
        push_indexed_name(&mut block, PATH, &target.path);
        push_indexed_name(&mut block, AUTHORITY, &target.authority);
        for (name, value) in fields {
            push_field(&mut block, name, value);
        }
        Self::H2(block)
    }

    fn push(&self, out: &mut Vec<u8>, session: Option<&str>, len: usize) {
        match self {
            Self::Frame => push_request_header(out, len),
            Self::Text => push_text_head(out, len),
            Self::Http1(fields) => {
                out.extend_from_slice(fields);
                if let Some(session) = session {
                    out.extend_from_slice(b"Mcp-Session-Id: ");
                    out.extend_from_slice(session.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
                push_length(out, len);
            }
            Self::Post(fields) => {
                out.extend_from_slice(b"POST ");
                out.extend_from_slice(session.unwrap_or_default().as_bytes());
                out.extend_from_slice(b" HTTP/1.1\r\n");
                out.extend_from_slice(fields);
                push_length(out, len);
            }
            Self::H2(fields) => {
                let mut own = Vec::new();
                if let Some(session) = session {
                    push_field(&mut own, "mcp-session-id", session);
                }
                if len > 0 {
                    push_field(&mut own, "content-length", itoa::Buffer::new().format(len));
                }
                push_request(out, &[fields, &own], len);
            }
        }
    }
}

/// Ends a head of HTTP/1.1 before a body of `len` bytes.
fn push_length(out: &mut Vec<u8>, len: usize) {
    if len > 0 {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[derive(Debug)]
struct Template {
    head: Head,
    /// The body, cut at each place of the id.
    parts: Vec<Vec<u8>>,
}

impl Template {
    fn new(head: Head, body: &str) -> Self {
        Self { head, parts: body.split(ID).map(|part| part.into()).collect() }
    }

    fn push(&self, out: &mut Vec<u8>, session: Option<&str>, id: Option<u64>) {
        let mut digits = itoa::Buffer::new();
        let id = id.map_or("", |id| digits.format(id));
        let text: usize = self.parts.iter().map(Vec::len).sum();
        let len = text + (self.parts.len() - 1) * id.len();
        self.head.push(out, session, len);
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(id.as_bytes());
            }
            out.extend_from_slice(part);
        }
    }
}

/// The header fields that the command line asks for, checked.
fn further_fields(spec: &CallSpec) -> Result<Vec<(String, String)>, String> {
    let token = spec.token.as_ref().map(|token| ("Authorization".to_owned(), format!("Bearer {token}")));
    let fields: Vec<_> = spec.headers.iter().cloned().chain(token).collect();
    for (name, value) in &fields {
        check_field(name, value)?;
    }
    Ok(fields)
}

fn call_body(spec: &CallSpec) -> String {
    let tool = quoted(&spec.tool);
    let mut meta = Vec::new();
    if spec.revision.is_modern() {
        meta.push(format!(
            r#""{META_VERSION}":"{}","{META_CLIENT_INFO}":{{"name":"mcp-bench","version":"{}"}},"{META_CAPABILITIES}":{{}}"#,
            spec.revision.name(),
            env!("CARGO_PKG_VERSION")
        ));
    }
    if spec.progress {
        meta.push(format!(r#""progressToken":{ID}"#));
    }
    let meta = if meta.is_empty() { String::new() } else { format!(r#","_meta":{{{}}}"#, meta.join(",")) };
    let arguments = &spec.arguments;
    format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"method":"tools/call","params":{{"name":{tool},"arguments":{arguments}{meta}}}}}"#
    )
}

fn initialize_body(revision: Revision, token: Option<&str>) -> String {
    let token = token.map_or_else(String::new, |token| format!(r#","token":{}"#, quoted(token)));
    format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{{"name":"mcp-bench","version":"{}"}}{token}}}}}"#,
        revision.name(),
        env!("CARGO_PKG_VERSION")
    )
}

fn quoted(text: &str) -> String {
    let mut quoted = Vec::new();
    push_string(&mut quoted, text);
    String::from_utf8_lossy(&quoted).into_owned()
}

fn check_arguments(arguments: &str) -> Result<(), String> {
    let value: serde_json::Value =
        serde_json::from_str(arguments).map_err(|e| format!("--arguments is not JSON: {e}"))?;
    if value.is_object() { Ok(()) } else { Err("--arguments must be a JSON object".to_owned()) }
}

/// Values go into the head as they are, so what would break it is refused.
fn check_field(name: &str, value: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let visible = |b: u8| b.is_ascii_graphic() || b == b' ';
    if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(visible) {
        return Err(format!("`{name}: {value}` is not a header field of visible ASCII"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Framing, parse_request_head};

    fn spec(revision: Revision) -> CallSpec {
        CallSpec {
            revision,
            tool: "echo".to_owned(),
            arguments: r#"{"text":"hi"}"#.to_owned(),
            headers: vec![("X-A".to_owned(), "b c".to_owned())],
            token: Some("t0k".to_owned()),
            progress: true,
        }
    }

    fn http() -> Target {
        Target::resolve("http://127.0.0.1:1/mcp").unwrap()
    }

    #[test]
    fn each_request_is_complete_http_and_json() {
        for revision in Revision::ALL {
            let requests = Requests::for_target(&spec(revision), &http()).unwrap();
            let mut call = Vec::new();
            requests.push_call(&mut call, Some("s1"), 42);
            let head = parse_request_head(&call).unwrap().unwrap();
            let body = &call[head.len..];
            assert_eq!(head.framing, Framing::Length(body.len()));
            assert_eq!(head.session, Some(&b"s1"[..]));
            let json: serde_json::Value = serde_json::from_slice(body).unwrap();
            assert_eq!(json["id"], 42);
            assert_eq!(json["params"]["arguments"]["text"], "hi");
            assert_eq!(json["params"]["_meta"]["progressToken"], 42);
            let expected = revision.has_version_header().then_some(revision.name().as_bytes());
            assert_eq!(head.version, expected);
            if revision.is_modern() {
                assert_eq!(json["params"]["_meta"][META_VERSION], revision.name());
                assert_eq!(head.mcp_name, Some(&b"echo"[..]));
                assert_eq!(head.mcp_method, Some(&b"tools/call"[..]));
            }
            let text = String::from_utf8(call).unwrap();
            assert!(text.contains("\r\nAuthorization: Bearer t0k\r\n") && text.contains("\r\nX-A: b c\r\n"));
        }
    }

    #[test]
    fn over_mcpb_each_request_is_a_frame_and_the_token_is_in_initialize() {
        let target = Target::resolve("mcpb://127.0.0.1").unwrap();
        let mut spec = spec(Revision::V2025_11_25);
        assert!(Requests::for_target(&spec, &target).is_err(), "header fields");
        spec.headers.clear();
        let requests = Requests::for_target(&spec, &target).unwrap();
        let body = |push: &dyn Fn(&mut Vec<u8>)| -> serde_json::Value {
            let mut out = Vec::new();
            push(&mut out);
            assert_eq!(out[..8], *b"MCPB\0\x01\0\x01");
            assert_eq!(out[8..12], ((out.len() - 12) as u32).to_be_bytes());
            serde_json::from_slice(&out[12..]).unwrap()
        };
        assert_eq!(body(&|out| requests.push_initialize(out, None, 1))["params"]["token"], "t0k");
        assert_eq!(body(&|out| requests.push_call(out, None, 2))["params"]["name"], "echo");
        spec.revision = Revision::V2026_07_28;
        assert!(Requests::for_target(&spec, &target).is_err(), "no initialize to carry the token");
    }

    #[test]
    fn over_websocket_the_fields_are_in_the_upgrade_and_each_request_is_a_message() {
        let target = Target::resolve("ws://127.0.0.1:1/ws").unwrap();
        let requests = Requests::for_target(&spec(Revision::V2025_11_25), &target).unwrap();
        let mut upgrade = Vec::new();
        requests.push_upgrade(&mut upgrade);
        let text = String::from_utf8(upgrade).unwrap();
        assert!(text.starts_with("GET /ws HTTP/1.1\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(
            text.contains("\r\nAuthorization: Bearer t0k\r\nX-A: b c") || text.contains("\r\nX-A: b c\r\n")
        );
        let mut call = Vec::new();
        requests.push_call(&mut call, None, 2);
        let at = call.iter().position(|byte| *byte == b'{').expect("a message");
        assert_eq!((call[0], usize::from(call[1]), at), (0x81, 0x80 | (call.len() - at), 6));
        let json: serde_json::Value = serde_json::from_slice(&call[at..]).unwrap();
        assert_eq!(json["id"], 2);
    }

    #[test]
    fn over_sse_messages_go_where_the_stream_says() {
        let target = Target::resolve("sse://127.0.0.1:1/sse").unwrap();
        let requests = Requests::for_target(&spec(Revision::V2025_11_25), &target).unwrap();
        let mut stream = Vec::new();
        requests.push_upgrade(&mut stream);
        let head = parse_request_head(&stream).unwrap().unwrap();
        assert_eq!((head.method, head.target, head.len), ("GET", "/sse", stream.len()));
        let mut initialize = Vec::new();
        requests.push_initialize(&mut initialize, Some("/sse?sessionId=x"), 7);
        let head = parse_request_head(&initialize).unwrap().unwrap();
        assert_eq!((head.method, head.target), ("POST", "/sse?sessionId=x"));
        assert_eq!(head.framing, Framing::Length(initialize.len() - head.len));
        let text = String::from_utf8(initialize).unwrap();
        assert!(text.contains("\r\nAuthorization: Bearer t0k\r\n") && text.contains("\"id\":7"), "{text}");
        let mut none = Vec::new();
        requests.push_delete(&mut none, Some("/sse?sessionId=x"));
        assert!(none.is_empty(), "a session ends with its stream");
    }

    #[test]
    fn over_http2_a_call_fits_into_one_frame() {
        let target = Target::resolve("h2://127.0.0.1:1/mcp").unwrap();
        let mut spec = spec(Revision::V2026_07_28);
        let mut call = Vec::new();
        Requests::for_target(&spec, &target).unwrap().push_call(&mut call, Some("s1"), 2);
        assert!(call.windows(10).any(|bytes| bytes == b"Bearer t0k"));
        let body = call.iter().position(|byte| *byte == b'{').expect("a body");
        let json: serde_json::Value = serde_json::from_slice(&call[body..]).unwrap();
        assert_eq!((&json["id"], usize::from(call[body - 7])), (&2.into(), (call.len() - body) & 0xff));
        spec.arguments = format!(r#"{{"text":"{}"}}"#, "x".repeat(MAX_FRAME_BYTES));
        assert!(Requests::for_target(&spec, &target).is_err());
    }

    #[test]
    fn what_would_break_the_head_or_the_body_is_refused() {
        let mut bad = spec(Revision::V2025_11_25);
        bad.headers[0].1 = "a\r\nb: c".to_owned();
        assert!(Requests::for_target(&bad, &http()).is_err());
        let mut bad = spec(Revision::V2025_11_25);
        bad.arguments = "[1]".to_owned();
        assert!(Requests::for_target(&bad, &http()).is_err());
        let mut bad = spec(Revision::V2026_07_28);
        bad.tool = "\u{e9}".to_owned();
        assert!(Requests::for_target(&bad, &http()).is_err());
    }
}
