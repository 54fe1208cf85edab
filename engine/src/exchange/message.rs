//! A message as a door hands it over: owns its body and what was said beside it, in an HTTP head or by a connection of
//! frames, behind one set of questions. Never the answer.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;

use mcp_protocol::http1::{RequestHead, write_field};
use mcp_protocol::jsonrpc::Scan;
use mcp_shard_store::id::ID_CHARS;

use super::Scope;
use super::headers::write_other_fields;
use crate::metrics::Protocol;
use crate::policy::admission::Verb;
use crate::policy::overload::Place;
use crate::shard::Shard;

/// What a door hands over.
pub(crate) struct Inbound {
    pub(crate) verb: Verb,
    pub(crate) scope: Scope,
    pub(crate) peer: IpAddr,
    pub(crate) message: Message,
    /// Its place among the shard's requests in flight; a stream without an end of its own needs none.
    pub(crate) place: Option<Place>,
}

impl Inbound {
    /// The server that it goes to.
    pub(crate) fn server(&self) -> usize {
        match self.scope {
            Scope::One(server) => server.into(),
            Scope::All => 0,
        }
    }
}

/// A message: its body, and what came beside it.
pub(crate) struct Message {
    pub(crate) origin: Origin,
    /// The JSON-RPC text; empty where there is no message (GET, DELETE).
    pub(crate) body: Vec<u8>,
}

/// Where a message came from, with what that door knows of it.
pub(crate) enum Origin {
    Http(HttpHead),
    Frame(Box<FrameOrigin>),
}

/// An HTTP head: its bytes and what they say. The latter is some 700 bytes of offsets that would otherwise be copied from
/// phase to phase.
pub(crate) struct HttpHead {
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: Box<RequestHead>,
    /// The version of HTTP that it came by.
    pub(crate) protocol: Protocol,
}

/// What a connection of frames says in a head's stead.
#[derive(Default)]
pub(crate) struct FrameOrigin {
    /// The door's protocol.
    pub(crate) protocol: Protocol,
    /// The door has scanned the message already.
    pub(crate) scan: Option<Scan>,
    /// The session that the connection's `initialize` opened.
    pub(crate) session: Option<[u8; ID_CHARS]>,
    /// The revision that `initialize` agreed on.
    pub(crate) revision: Option<Rc<str>>,
    /// The `Authorization` field's value for the server.
    pub(crate) authorization: Option<Rc<str>>,
    /// The event after which the server's stream is to go on; bytes that a header line can hold.
    pub(crate) last_event_id: Option<Rc<[u8]>>,
    /// Other header lines of the client's that go to the server.
    pub(crate) fields: Option<Rc<[u8]>>,
    /// Header lines that mirror a modern message, set once its rules are checked.
    pub(crate) mirrored: OnceCell<Vec<u8>>,
}

impl Message {
    /// The gateway's session id, as the client claims it.
    pub(super) fn session_id(&self) -> Option<&[u8]> {
        match &self.origin {
            Origin::Http(http) => http.head.session_id.map(|span| span.of(&http.bytes)),
            Origin::Frame(frame) => frame.session.as_ref().map(<[u8; ID_CHARS]>::as_slice),
        }
    }

    /// The revision that the message claims: by its header, or over frames by its `_meta`, else by its session.
    pub(super) fn protocol_version(&self) -> Option<&[u8]> {
        match &self.origin {
            Origin::Http(http) => http.head.protocol_version.map(|span| span.of(&http.bytes)),
            Origin::Frame(frame) => {
                let own = frame.scan.and_then(|scan| scan.meta_protocol_version);
                let own = own.map(|version| version.span.of(&self.body));
                own.or(frame.revision.as_deref().map(str::as_bytes))
            }
        }
    }

    /// The event after which a stream is to go on.
    pub(super) fn last_event_id(&self) -> Option<&[u8]> {
        match &self.origin {
            Origin::Http(http) => http.head.last_event_id.map(|span| span.of(&http.bytes)),
            Origin::Frame(frame) => frame.last_event_id.as_deref(),
        }
    }

    /// The `Authorization` field's value.
    pub(crate) fn authorization(&self) -> Option<&[u8]> {
        match &self.origin {
            Origin::Http(http) => http.head.authorization.map(|span| span.of(&http.bytes)),
            Origin::Frame(frame) => frame.authorization.as_deref().map(str::as_bytes),
        }
    }

    /// Writes the header lines for the server that have no question of their own here.
    pub(crate) fn write_other_fields(&self, out: &mut Vec<u8>) {
        match &self.origin {
            Origin::Http(http) => write_other_fields(out, http),
            Origin::Frame(frame) => out.extend_from_slice(frame.fields.as_deref().unwrap_or_default()),
        }
    }

    /// What the door found out about the body already.
    pub(super) fn scanned(&self) -> Option<Scan> {
        match &self.origin {
            Origin::Http(_) => None,
            Origin::Frame(frame) => frame.scan,
        }
    }

    /// The `protocol` label.
    pub(super) fn protocol(&self) -> Protocol {
        match &self.origin {
            Origin::Http(http) => http.protocol,
            Origin::Frame(frame) => frame.protocol,
        }
    }

    /// Whether it belongs to a stream of HTTP with SSE, whose session is nobody else's.
    pub(super) fn is_of_stream(&self) -> bool {
        matches!(&self.origin, Origin::Frame(frame) if frame.protocol == Protocol::Sse)
    }

    /// Hands the memory to the next message.
    pub(crate) fn give_back(self, shard: &Shard) {
        if let Origin::Http(http) = self.origin {
            http.give_back(shard);
        }
        shard.give_buffer(self.body);
    }
}

impl HttpHead {
    /// Hands the memory to the next request.
    pub(crate) fn give_back(self, shard: &Shard) {
        shard.give_buffer(self.bytes);
        shard.request_heads.give(self.head);
    }
}

impl FrameOrigin {
    /// Writes the header lines that stand for what an HTTP client would have sent.
    pub(super) fn write_fields(&self, out: &mut Vec<u8>) {
        if let Some(authorization) = &self.authorization {
            write_field(out, b"Authorization", authorization.as_bytes());
        }
        if let Some(id) = &self.last_event_id {
            write_field(out, b"Last-Event-ID", id);
        }
        match (self.mirrored.get(), &self.revision) {
            (Some(mirrored), _) => out.extend_from_slice(mirrored),
            (None, Some(revision)) => write_field(out, b"MCP-Protocol-Version", revision.as_bytes()),
            (None, None) => {}
        }
        if let Some(fields) = &self.fields {
            out.extend_from_slice(fields);
        }
    }
}

/// Whether two raw ids are the same string or number; a server may write one differently than the client did.
pub(crate) fn same_id(ours: &[u8], theirs: &[u8]) -> bool {
    let value = |raw| serde_json::from_slice::<serde_json::Value>(raw).ok();
    ours == theirs || (value(ours).is_some() && value(ours) == value(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_however_they_are_written() {
        assert!(same_id(b"1", b"1"));
        assert!(same_id("\"é\"".as_bytes(), b"\"\\u00e9\""));
        assert!(!same_id(b"1", b"\"1\""));
        assert!(!same_id(b"1", b"2"));
    }
}
