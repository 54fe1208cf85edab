//! The heads of requests: owns the header lines that a message needs by its era, and what is learned of tools for that
//! (`Mcp-Param-*`). Never a connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mcp_config::Endpoint;
use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::{INVALID_REQUEST, Scan};
use mcp_protocol::mcp::{Revision, ToolHeaders, learn_from_tools_list, write_mirrored, write_params};

use super::session::Session;
use crate::connect::message::{Fault, Message};
use crate::connect::target::authority;

/// Tools with mirrored parameters that are known at once; one more, and all are forgotten and asked for again.
const MAX_TOOLS: usize = 4_096;

/// What all requests of a run have in common.
pub(super) struct Heads {
    path: String,
    /// `Host`, and what the user added.
    common: Vec<u8>,
    tools: RefCell<HashMap<String, Rc<ToolHeaders>>>,
}

/// What one request says besides.
#[derive(Default)]
pub(super) struct Says<'a> {
    pub(super) token: Option<&'a str>,
    pub(super) session: Option<&'a Session>,
    pub(super) last_event_id: Option<&'a str>,
}

impl Heads {
    pub(super) fn new(endpoint: &Endpoint, added: &[u8]) -> Self {
        let mut common = format!(
            "Host: {}\r\nUser-Agent: mcp-gateway-connect/{}\r\n",
            authority(endpoint),
            env!("CARGO_PKG_VERSION")
        )
        .into_bytes();
        common.extend_from_slice(added);
        Heads { path: endpoint.path.clone(), common, tools: RefCell::default() }
    }

    /// The head of a message's POST.
    ///
    /// # Errors
    /// What in the message no header can mirror.
    pub(super) fn post(&self, message: &Message, says: &Says<'_>) -> Result<Vec<u8>, Fault> {
        let mut head = self.begin("POST", says);
        head.extend_from_slice(
            b"Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: ",
        );
        head.extend_from_slice(itoa::Buffer::new().format(message.body.len()).as_bytes());
        head.extend_from_slice(b"\r\n");
        if let Some(scan) = message.single().filter(|_| message.is_modern()) {
            self.mirror(&mut head, message, scan)?;
        }
        head.extend_from_slice(b"\r\n");
        Ok(head)
    }

    /// The head of a GET or a DELETE.
    pub(super) fn bare(&self, method: Method, says: &Says<'_>) -> Vec<u8> {
        let mut head = self.begin(if method == Method::Get { "GET" } else { "DELETE" }, says);
        if method == Method::Get {
            head.extend_from_slice(b"Accept: text/event-stream\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Learns which parameters are to be mirrored from a `tools/list` answer that comes by.
    pub(super) fn learn(&self, answer: &[u8]) {
        for tool in learn_from_tools_list(answer) {
            let mut tools = self.tools.borrow_mut();
            if tools.len() >= MAX_TOOLS {
                tools.clear();
            }
            tools.insert(tool.tool.clone(), Rc::new(tool));
        }
    }

    fn begin(&self, verb: &str, says: &Says<'_>) -> Vec<u8> {
        let mut head = format!("{verb} {} HTTP/1.1\r\n", self.path).into_bytes();
        head.extend_from_slice(&self.common);
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.extend_from_slice(part.as_bytes());
            }
        };
        if let Some(token) = says.token {
            line("Authorization", &format!("Bearer {token}"));
        }
        if let Some(session) = says.session {
            line("MCP-Protocol-Version", &session.revision);
            if let Some(id) = &session.id {
                line("Mcp-Session-Id", id);
            }
        }
        if let Some(id) = says.last_event_id {
            line("Last-Event-ID", id);
        }
        head
    }

    fn mirror(&self, head: &mut Vec<u8>, message: &Message, scan: &Scan) -> Result<(), Fault> {
        let refused = |what: &str| Fault::malformed(INVALID_REQUEST, what);
        let method = scan.method.map(|method| method.decode(&message.body)).unwrap_or_default();
        if !method.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused("this method's name cannot be carried over HTTP"));
        }
        let named = scan.meta_protocol_version.map(|version| version.decode(&message.body));
        match named.as_deref().map(|name| (name, Revision::parse(name.as_bytes()))) {
            Some((_, Some(revision))) => write_mirrored(head, &message.body, scan, revision),
            // The gateway answers with what it supports.
            Some((name, None)) if name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                head.extend_from_slice(format!("MCP-Protocol-Version: {name}\r\n").as_bytes());
            }
            Some(_) => return Err(refused("this revision's name cannot be carried over HTTP")),
            // The gateway answers with what is missing.
            None => write_mirrored(head, &message.body, scan, Revision::V2026_07_28),
        }
        let tool = scan
            .name
            .filter(|_| message.is("tools/call"))
            .and_then(|name| self.tools.borrow().get(&*name.decode(&message.body)).cloned());
        if let Some(tool) = tool {
            let arguments = scan.arguments.map(|arguments| arguments.of(&message.body));
            write_params(head, &tool, arguments)
                .map_err(|error| Fault::malformed(error.code(), error.message()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(url: &str) -> Heads {
        Heads::new(&Endpoint::parse(url, "http", "https").unwrap(), b"X-Team: blue\r\n")
    }

    fn message(text: &str) -> Message {
        Message::parse(text.into()).unwrap()
    }

    #[test]
    fn a_legacy_message_carries_its_session() {
        let session = Session { generation: 1, id: Some("s1".into()), revision: "2025-06-18".into() };
        let says = Says { token: Some("t"), session: Some(&session), last_event_id: None };
        let head = heads("https://gw:8443/mcp/a?b=c")
            .post(&message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#), &says)
            .unwrap();
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("POST /mcp/a?b=c HTTP/1.1\r\nHost: gw:8443\r\n"), "{head}");
        for line in [
            "X-Team: blue",
            "Authorization: Bearer t",
            "MCP-Protocol-Version: 2025-06-18",
            "Mcp-Session-Id: s1",
            "Content-Length: 40",
        ] {
            assert_eq!(head.lines().filter(|found| *found == line).count(), 1, "{line} in {head}");
        }
        assert!(head.ends_with("\r\n\r\n") && !head.contains("Mcp-Method"), "{head}");
        let says = Says { last_event_id: Some("7"), ..says };
        let head = String::from_utf8(heads("http://[::1]/mcp").bare(Method::Get, &says)).unwrap();
        assert!(head.starts_with("GET /mcp HTTP/1.1\r\nHost: [::1]\r\n"), "{head}");
        assert!(head.contains("\r\nLast-Event-ID: 7\r\n"), "{head}");
    }

    #[test]
    fn a_modern_message_is_mirrored_with_the_parameters_that_its_tool_asks_for() {
        let call = |version: &str, method: &str| {
            message(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"t","arguments":{{"r":"é"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}}}}}"#
            ))
        };
        let heads = heads("https://gw/mcp");
        let post = |message: &Message| {
            heads.post(message, &Says::default()).map(|head| String::from_utf8(head).unwrap())
        };
        let before = post(&call("2026-07-28", "tools/call")).unwrap();
        assert!(
            before.contains("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: t\r\n")
        );
        assert!(!before.contains("Mcp-Param"));
        heads.learn(
            br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"Region"}}}}]}}"#,
        );
        assert!(
            post(&call("2026-07-28", "tools/call")).unwrap().contains("Mcp-Param-Region: =?base64?w6k=?=")
        );
        assert!(
            post(&call("2027-01-01", "tools/call")).unwrap().contains("MCP-Protocol-Version: 2027-01-01")
        );
        assert_eq!(post(&call("2026-07-28", "tools/ä")).unwrap_err().code, -32600);
        assert_eq!(post(&call("x\\ny", "tools/call")).unwrap_err().code, -32600);
    }
}
