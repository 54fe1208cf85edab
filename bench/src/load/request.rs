//! The bytes of the requests: built once, with only session, length and id put in per request. Pure.

use crate::json::push_string;
use crate::mcp::{META_CAPABILITIES, META_CLIENT_INFO, META_VERSION, Revision};

/// Stands for the id in a body being made. No control character can stand in JSON, so no value holds it.
const ID: char = '\u{1}';

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
    delete: Vec<u8>,
}

impl Requests {
    /// Builds them; `authority` and `path` come from the target.
    ///
    /// # Errors
    /// A sentence, when a value cannot be put into a header or is no JSON object.
    pub fn new(spec: &CallSpec, authority: &str, path: &str) -> Result<Self, String> {
        let arguments: serde_json::Value =
            serde_json::from_str(&spec.arguments).map_err(|e| format!("--arguments is not JSON: {e}"))?;
        if !arguments.is_object() {
            return Err("--arguments must be a JSON object".to_owned());
        }
        let mut common = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        );
        let token = spec.token.as_ref().map(|t| ("Authorization".to_owned(), format!("Bearer {t}")));
        for (name, value) in spec.headers.iter().chain(&token) {
            check_field(name, value)?;
            common += &format!("{name}: {value}\r\n");
        }
        let (revision, mut versioned) = (spec.revision, common.clone());
        if revision.has_version_header() {
            versioned += &format!("MCP-Protocol-Version: {}\r\n", revision.name());
        }
        let mut call_head = versioned.clone();
        if revision.is_modern() {
            check_field("Mcp-Name", &spec.tool)?;
            call_head += &format!("Mcp-Method: tools/call\r\nMcp-Name: {}\r\n", spec.tool);
        }
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        Ok(Self {
            revision,
            call: Template::new(call_head, &call_body(spec)),
            initialize: Template::new(common, &initialize_body(revision)),
            delete: versioned.replacen("POST", "DELETE", 1).into_bytes(),
            initialized: Template::new(versioned, notice),
        })
    }

    /// Requests are stateless: no `initialize`, no session.
    pub fn is_stateless(&self) -> bool {
        self.revision.is_modern()
    }

    /// Appends a `tools/call`.
    pub fn push_call(&self, out: &mut Vec<u8>, session: Option<&str>, id: u64) {
        self.call.push(out, session, Some(id));
    }

    /// Appends an `initialize`.
    pub fn push_initialize(&self, out: &mut Vec<u8>, id: u64) {
        self.initialize.push(out, None, Some(id));
    }

    /// Appends a `notifications/initialized`.
    pub fn push_initialized(&self, out: &mut Vec<u8>, session: Option<&str>) {
        self.initialized.push(out, session, None);
    }

    /// Appends the `DELETE` that ends a session.
    pub fn push_delete(&self, out: &mut Vec<u8>, session: Option<&str>) {
        out.extend_from_slice(&self.delete);
        push_session(out, session);
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Debug)]
struct Template {
    head: Vec<u8>,
    /// The body, cut at each place of the id.
    parts: Vec<Vec<u8>>,
}

impl Template {
    fn new(head: String, body: &str) -> Self {
        Self { head: head.into_bytes(), parts: body.split(ID).map(|part| part.into()).collect() }
    }

    fn push(&self, out: &mut Vec<u8>, session: Option<&str>, id: Option<u64>) {
        let mut digits = itoa::Buffer::new();
        let id = id.map_or("", |id| digits.format(id));
        out.extend_from_slice(&self.head);
        push_session(out, session);
        let text: usize = self.parts.iter().map(Vec::len).sum();
        let len = text + (self.parts.len() - 1) * id.len();
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(id.as_bytes());
            }
            out.extend_from_slice(part);
        }
    }
}

fn push_session(out: &mut Vec<u8>, session: Option<&str>) {
    if let Some(session) = session {
        out.extend_from_slice(b"Mcp-Session-Id: ");
        out.extend_from_slice(session.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn call_body(spec: &CallSpec) -> String {
    let mut tool = Vec::new();
    push_string(&mut tool, &spec.tool);
    let tool = String::from_utf8_lossy(&tool);
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

fn initialize_body(revision: Revision) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{{"name":"mcp-bench","version":"{}"}}}}}}"#,
        revision.name(),
        env!("CARGO_PKG_VERSION")
    )
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

    #[test]
    fn each_request_is_complete_http_and_json() {
        for revision in Revision::ALL {
            let requests = Requests::new(&spec(revision), "h:1", "/mcp").unwrap();
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
    fn what_would_break_the_head_or_the_body_is_refused() {
        let mut bad = spec(Revision::V2025_11_25);
        bad.headers[0].1 = "a\r\nb: c".to_owned();
        assert!(Requests::new(&bad, "h", "/").is_err());
        let mut bad = spec(Revision::V2025_11_25);
        bad.arguments = "[1]".to_owned();
        assert!(Requests::new(&bad, "h", "/").is_err());
        let mut bad = spec(Revision::V2026_07_28);
        bad.tool = "\u{e9}".to_owned();
        assert!(Requests::new(&bad, "h", "/").is_err());
    }
}
