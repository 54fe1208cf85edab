//! Owns a client of HTTP with SSE (revision 2024-11-05): a stream and the place where its messages go. For clients that others
//! wrote there are those of [`crate::peers`].

use std::io::Result;

use serde_json::Value;

use crate::http::EventStream;
use crate::mcp::{initialize, request};
use crate::{Connection, Response};

/// An open stream.
pub struct Stream {
    /// Its events.
    pub events: EventStream,
    /// Where messages go: a path with a query.
    pub endpoint: String,
}

impl Stream {
    /// Opens a stream over a connection of its own, and reads where messages go.
    ///
    /// # Errors
    /// When the connection fails or the answer is no such stream.
    pub fn open(connection: Connection, path: &str) -> Result<Self> {
        Self::open_with(connection, path, &[])
    }

    /// As [`Self::open`], with more header fields.
    ///
    /// # Errors
    /// When the connection fails or the answer is no such stream.
    pub fn open_with(mut connection: Connection, path: &str, headers: &[(&str, &str)]) -> Result<Self> {
        let headers = [&[("accept", "text/event-stream")], headers].concat();
        connection.send_request("GET", path, &headers, b"")?;
        let mut events = connection.into_events()?;
        let first = events.next_event()?.unwrap_or_default();
        if first.event.as_deref() != Some("endpoint") {
            return Err(std::io::Error::other(format!("another first event: {first:?}")));
        }
        Ok(Self { events, endpoint: first.data })
    }

    /// The next message.
    ///
    /// # Panics
    /// When the stream ends, breaks or brings an event that is no message.
    pub fn message(&mut self) -> Value {
        let event = self.events.next_event().expect("the stream holds").expect("the stream goes on");
        assert_eq!(event.event.as_deref(), Some("message"), "{event:?}");
        serde_json::from_str(&event.data).unwrap_or_else(|error| panic!("{error}: {event:?}"))
    }

    /// Says `initialize` over `connection` and ends the handshake; the result.
    ///
    /// # Panics
    /// When that fails.
    pub fn initialize(&mut self, connection: &mut Connection, revision: &str) -> Value {
        assert_eq!(post(connection, &self.endpoint, &initialize(revision)).status, 202);
        let answer = self.message();
        assert_eq!(answer["result"]["protocolVersion"], revision, "{answer}");
        let initialized = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(post(connection, &self.endpoint, &initialized).status, 202);
        answer["result"].clone()
    }

    /// Sends a `ping` with a number over `connection`; what the POST was answered with.
    ///
    /// # Panics
    /// When the connection fails.
    pub fn ping(&self, connection: &mut Connection, number: usize) -> Response {
        post(connection, &self.endpoint, &request(number, "ping", serde_json::json!({"number": number})))
    }
}

/// Posts a message as such a client does: without `Accept`.
///
/// # Panics
/// When the connection fails.
pub fn post(connection: &mut Connection, endpoint: &str, message: &Value) -> Response {
    post_with(connection, endpoint, &[], message)
}

/// As [`post`], with more header fields.
///
/// # Panics
/// When the connection fails.
pub fn post_with(
    connection: &mut Connection,
    endpoint: &str,
    headers: &[(&str, &str)],
    message: &Value,
) -> Response {
    send(connection, endpoint, headers, message).expect("an answer to a POST")
}

/// As [`post`], for a connection that may end.
///
/// # Errors
/// When the connection fails.
pub fn try_post(connection: &mut Connection, endpoint: &str, message: &Value) -> Result<Response> {
    send(connection, endpoint, &[], message)
}

fn send(
    connection: &mut Connection,
    endpoint: &str,
    headers: &[(&str, &str)],
    message: &Value,
) -> Result<Response> {
    let headers = [&[("content-type", "application/json")], headers].concat();
    connection.request("POST", endpoint, &headers, message.to_string().as_bytes())
}
