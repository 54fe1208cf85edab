//! Subscriptions of the modern era over many servers: owns what each server is asked to tell of, and the one acknowledgment
//! that is made of all.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::route::Unroutable;
use super::splice::Splices;
use super::{Federation, MISSING_SERVERS, write_names};
use crate::Span;
use crate::jsonrpc::{Shape, as_string, walk, write_json_string};

/// What a client wants to hear of.
pub(super) struct Listening {
    /// The array of URIs, where there is one.
    array: Option<Span>,
    /// The servers' own URIs, each as JSON text.
    uris: Vec<(usize, Vec<u8>)>,
    /// Something is asked for that every server may tell of.
    of_all: bool,
}

/// The subscriptions that servers agreed to.
#[derive(Default, Debug)]
pub struct Acknowledged {
    notifications: Map<String, Value>,
}

#[derive(Clone, Copy)]
enum Found {
    Array,
    Uri,
    Flag,
}

const FILTER: Shape<Found> = Shape::Members(&[(
    "params",
    Shape::Members(&[(
        "notifications",
        Shape::Members(&[
            ("resourceSubscriptions", Shape::Around(Found::Array, &Shape::Each(&Shape::Here(Found::Uri)))),
            ("toolsListChanged", Shape::Here(Found::Flag)),
            ("promptsListChanged", Shape::Here(Found::Flag)),
            ("resourcesListChanged", Shape::Here(Found::Flag)),
        ]),
    )]),
)]);

/// Reads what a `subscriptions/listen` asks for.
pub(super) fn read(federation: &Federation, body: &[u8]) -> Result<Listening, Unroutable> {
    let member = "params.notifications.resourceSubscriptions";
    let mut listening = Listening { array: None, uris: Vec::new(), of_all: false };
    let mut failed = None;
    // The message has been scanned, so it is JSON.
    let _ = walk(body, &FILTER, |found, value| match found {
        Found::Array if listening.array.is_none() => listening.array = Some(value),
        Found::Array => failed = Some(Unroutable::Member { member }),
        Found::Flag => listening.of_all |= value.of(body) == b"true",
        Found::Uri => {
            let text = as_string(body, value).map(|uri| uri.decode(body)).unwrap_or_default();
            match federation.split_uri(&text) {
                Some((server, own)) => {
                    let mut raw = Vec::new();
                    write_json_string(&mut raw, own);
                    listening.uris.push((server, raw));
                }
                None => failed = Some(Unroutable::Uri { uri: super::route::shortened(&text) }),
            }
        }
    });
    // A subscription to nothing is acknowledged by everybody.
    listening.of_all |= listening.uris.is_empty();
    failed.map_or(Ok(listening), Err)
}

impl Listening {
    pub(super) fn is_for(&self, server: usize) -> bool {
        self.of_all || self.uris.iter().any(|(of, _)| *of == server)
    }

    /// The request with this server's URIs alone.
    pub(super) fn body_for<'m>(&self, server: usize, body: &'m [u8]) -> Cow<'m, [u8]> {
        let mut splices = Splices::default();
        if let Some(array) = self.array {
            let own: Vec<_> =
                self.uris.iter().filter(|(of, _)| *of == server).map(|(_, uri)| &uri[..]).collect();
            splices.replace(array, [b"[", &own.join(&b","[..])[..], b"]"].concat());
        }
        splices.apply(body)
    }
}

impl Acknowledged {
    /// Adds what a server agreed to, by its `notifications/subscriptions/acknowledged`; `false` where the message is no
    /// such notification.
    pub fn add(&mut self, federation: &Federation, server: usize, message: &[u8]) -> bool {
        let Ok(Value::Object(mut message)) = serde_json::from_slice(message) else { return false };
        let is_one =
            message.get("method").and_then(Value::as_str) == Some("notifications/subscriptions/acknowledged");
        let agreed = message.get_mut("params").and_then(|params| params.get_mut("notifications"));
        if let Some(Value::Object(agreed)) = agreed.map(Value::take).filter(|_| is_one) {
            for (key, value) in agreed {
                self.add_one(federation, server, &key, value);
            }
        }
        is_one
    }

    fn add_one(&mut self, federation: &Federation, server: usize, key: &str, value: Value) {
        match (value, self.notifications.get_mut(key)) {
            (Value::Array(uris), _) if key == "resourceSubscriptions" => {
                let scheme = federation.scheme(server);
                let joined = uris.iter().filter_map(Value::as_str).map(|uri| format!("{scheme}{uri}").into());
                let all = self.notifications.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(all) = all {
                    all.extend(joined);
                }
            }
            (Value::Bool(value), Some(Value::Bool(all))) => *all |= value,
            (value, None) => {
                self.notifications.insert(key.to_owned(), value);
            }
            (_, Some(_)) => {}
        }
    }
}

/// Writes the acknowledgment of the subscription that the raw `id` names. `missing` are the servers that did not answer.
pub fn write_acknowledged(
    federation: &Federation,
    id: &[u8],
    all: Acknowledged,
    missing: &[usize],
) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(
        b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":{\
          \"io.modelcontextprotocol/subscriptionId\":",
    );
    out.extend_from_slice(id);
    if !missing.is_empty() {
        out.extend_from_slice(format!(",\"{MISSING_SERVERS}\":").as_bytes());
        write_names(&mut out, federation, missing);
    }
    out.extend_from_slice(b"},\"notifications\":");
    out.extend_from_slice(Value::Object(all.notifications).to_string().as_bytes());
    out.extend_from_slice(b"}}");
    out
}
