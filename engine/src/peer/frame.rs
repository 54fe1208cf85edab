//! What owners say to each other: owns the contents of the frames. Frames are those of MCPB version 1 (their layout is at the
//! head of [`mcp_protocol::mcpb`]).
//!
//! ```text
//! whoever asks                                                  the owner
//!
//! Request   {"forward":7,"boot":4503599627370497,"shard":3,"session":"…","server":"files","peer":"203.0.113.7",
//!            "authorization":"Bearer …","fields":"X-Tenant: a\r\n"}
//! Request   the message itself, byte for byte
//!                                                               Response  {"forward":7,"verdict":"accepted"}
//! ```
//!
//! A message is two frames, so that one of the largest size still fits. Members that are not known are passed over. An envelope
//! with a `verb` (`message`, `listen` or `end`; the last two have no message, so their second frame is empty) is a call, whose
//! answer comes back by the same number, after the verdict:
//!
//! ```text
//! Request   {"forward":8,"boot":…,"shard":3,"session":"","server":"files","verb":"message","channel":"8f2c",
//!            "authorization":…}
//! Request   the message itself
//!                                                               Response  {"forward":8,"verdict":"accepted"}
//!                                                               Control   {"head":{"call":8,"status":200,"length":12,
//!                                                                          "fields":"Content-Type: …\r\n"}}
//!                                                               Request   8 bytes of the number, big-endian, then
//!                                                                         a piece of the body
//! Control   {"credit":{"call":8,"bytes":32768}}                 …
//! Control   {"cancel":{"call":8}}                               Control   {"end":{"call":8,"failed":"timeout"}}
//! ```
//!
//! Of an answer 65,536 bytes may be on their way; as many as were read since may follow when `credit` says so. `failed` is absent
//! where the answer is complete. Either side may end a call; what is said of one that has ended is passed over.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use mcp_protocol::http1::Method;
use mcp_shard_store::{Owner, SessionId};
use serde::{Deserialize, Serialize};

use crate::door::sse::With;
use crate::respond::Refusal;
use crate::upstream::duplex::Ask;

/// A message's envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forward<'a> {
    /// The sender's number for it, on this connection.
    pub(super) forward: u64,
    /// The process that is meant.
    pub(super) boot: u64,
    /// The shard of it that holds the stream.
    pub(super) shard: u16,
    #[serde(borrow)]
    pub(super) session: Cow<'a, str>,
    /// By its name: each process counts its own.
    #[serde(borrow)]
    pub(super) server: Cow<'a, str>,
    /// Who sent the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<IpAddr>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) authorization: Option<Cow<'a, str>>,
    /// Header lines for the server.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) fields: Option<Cow<'a, str>>,
    /// What is asked of the server; `None` where the answer leaves by the owner's own stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) verb: Option<CallVerb>,
    /// The server's part of the session, by the owner's name for it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<Cow<'a, str>>,
}

/// What a call asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CallVerb {
    Message,
    Listen,
    End,
}

impl CallVerb {
    fn of(method: Method) -> Self {
        match method {
            Method::Get => CallVerb::Listen,
            Method::Delete => CallVerb::End,
            _ => CallVerb::Message,
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            CallVerb::Message => Method::Post,
            CallVerb::Listen => Method::Get,
            CallVerb::End => Method::Delete,
        }
    }
}

impl<'a> Forward<'a> {
    pub(super) fn new(owner: &Owner, id: &SessionId, server: &'a str, with: &'a With) -> Self {
        Forward {
            forward: 0,
            boot: owner.boot,
            shard: owner.shard,
            session: String::from_utf8_lossy(&id.text()).into_owned().into(),
            server: server.into(),
            peer: with.peer,
            authorization: with.authorization.as_deref().map(Cow::Borrowed),
            fields: with.fields.as_deref().map(String::from_utf8_lossy),
            verb: None,
            channel: None,
        }
    }

    /// A call's envelope.
    pub(super) fn of_call(owner: &Owner, server: &'a str, ask: &Ask<'a>) -> Self {
        Forward {
            forward: 0,
            boot: owner.boot,
            shard: owner.shard,
            session: "".into(),
            server: server.into(),
            peer: None,
            authorization: ask.authorization.map(String::from_utf8_lossy),
            fields: None,
            verb: Some(CallVerb::of(ask.verb)),
            channel: ask.session.map(String::from_utf8_lossy),
        }
    }

    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        // Strings and numbers cannot fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn id(&self) -> Option<SessionId> {
        SessionId::parse(self.session.as_bytes())
    }

    pub(super) fn with(&self) -> With {
        With {
            authorization: self.authorization.as_deref().map(Rc::from),
            fields: self.fields.as_ref().map(|fields| Rc::from(fields.as_bytes())),
            peer: self.peer,
        }
    }

    /// Owns what it borrowed.
    pub(super) fn into_owned(self) -> Forward<'static> {
        Forward {
            forward: self.forward,
            boot: self.boot,
            shard: self.shard,
            session: self.session.into_owned().into(),
            server: self.server.into_owned().into(),
            peer: self.peer,
            authorization: self.authorization.map(|value| value.into_owned().into()),
            fields: self.fields.map(|value| value.into_owned().into()),
            verb: self.verb,
            channel: self.channel.map(|value| value.into_owned().into()),
        }
    }
}

/// The answer to a [`Forward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) forward: u64,
    pub(super) verdict: Verdict,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    forward: u64,
    #[serde(borrow)]
    verdict: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

impl Reply {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let Written { forward, verdict, limit } = serde_json::from_slice(payload).ok()?;
        let verdict = match (&*verdict, limit) {
            ("in_flight", Some(limit)) => Verdict::InFlight { limit },
            (word, _) => {
                let found = Verdict::PLAIN.iter().find(|(_, written)| *written == word);
                found.map_or(Verdict::Refused, |(verdict, _)| *verdict)
            }
        };
        Some(Reply { forward, verdict })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let plain = Verdict::PLAIN.iter().find(|(verdict, _)| *verdict == self.verdict);
        let (word, limit) = match self.verdict {
            Verdict::InFlight { limit } => ("in_flight", Some(limit)),
            _ => (plain.map_or("refused", |(_, word)| word), None),
        };
        let written = Written { forward: self.forward, verdict: word.into(), limit };
        // Strings and numbers cannot fail to be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }
}

/// What becomes of a message at its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in flight.
    Accepted,
    /// The process that is meant is no more.
    AnotherBoot,
    /// There is no such stream here.
    NoSuchStream,
    /// The stream has as much in flight as it may.
    InFlight { limit: usize },
    /// There is no memory for it.
    Memory,
    /// The process ends.
    Draining,
    /// The way from the shard that it reached to the right one is barred.
    Unreachable,
    /// A verdict of a later release.
    Refused,
}

impl Verdict {
    /// Those that are one word.
    const PLAIN: &[(Verdict, &str)] = &[
        (Verdict::Accepted, "accepted"),
        (Verdict::AnotherBoot, "another_boot"),
        (Verdict::NoSuchStream, "no_such_stream"),
        (Verdict::Memory, "memory"),
        (Verdict::Draining, "draining"),
        (Verdict::Unreachable, "unreachable"),
    ];

    /// Why a stream did not take a message.
    pub(super) fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::SessionUnknown => Verdict::NoSuchStream,
            Refusal::InFlight { limit } => Verdict::InFlight { limit: *limit },
            Refusal::Memory => Verdict::Memory,
            Refusal::Draining => Verdict::Draining,
            _ => Verdict::Unreachable,
        }
    }

    /// What the client is told.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Verdict::AnotherBoot | Verdict::NoSuchStream => Refusal::SessionUnknown,
            Verdict::InFlight { limit } => Refusal::InFlight { limit },
            Verdict::Memory => Refusal::Memory,
            Verdict::Draining => Refusal::Draining,
            Verdict::Accepted | Verdict::Unreachable | Verdict::Refused => Refusal::OwnerUnreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_reads_back_as_it_was() {
        let owner = Owner { pod: "10.0.0.7:9444".into(), boot: (1 << 53) - 1, shard: 7 };
        let id = SessionId::mint(3).unwrap();
        let with = With {
            authorization: Some("Bearer \"é\"".into()),
            fields: Some(Rc::from(&b"X-A: 1\r\n"[..])),
            peer: Some("::1".parse().unwrap()),
        };
        for with in [With::default(), with] {
            let written = Forward { forward: 9, ..Forward::new(&owner, &id, "files", &with) };
            let bytes = written.write();
            let read = Forward::parse(&bytes).unwrap();
            assert_eq!((&read, read.id()), (&written, Some(id)));
            let read = read.into_owned().with();
            assert_eq!(
                (read.authorization, read.fields, read.peer),
                (with.authorization, with.fields, with.peer)
            );
        }
        assert!(Forward::parse(br#"{"forward":1}"#).is_none() && Forward::parse(b"").is_none());
    }

    #[test]
    fn a_call_arrives_as_what_it_was() {
        let owner = Owner { pod: "10.0.0.7:9444".into(), boot: 1, shard: 7 };
        for (method, channel, authorization) in [
            (Method::Post, None, None),
            (Method::Get, Some(&b"8f2c"[..]), Some(&b"Bearer \"x\""[..])),
            (Method::Delete, Some(b"8f2c"), None),
        ] {
            let ask = Ask { verb: method, session: channel, body: b"{}", authorization, owner: Some(&owner) };
            let bytes = Forward::of_call(&owner, "files", &ask).write();
            let read = Forward::parse(&bytes).unwrap().into_owned();
            assert_eq!((read.boot, read.shard, &*read.server), (1, 7, "files"));
            assert_eq!(read.verb.map(CallVerb::method), Some(method));
            assert_eq!(read.channel.as_deref().map(str::as_bytes), channel);
            assert_eq!(read.authorization.as_deref().map(str::as_bytes), authorization);
        }
    }

    #[test]
    fn answers_read_back_and_unknown_ones_are_refusals() {
        for verdict in [
            Verdict::Accepted,
            Verdict::AnotherBoot,
            Verdict::NoSuchStream,
            Verdict::InFlight { limit: 64 },
            Verdict::Memory,
            Verdict::Draining,
            Verdict::Unreachable,
        ] {
            let answer = Reply { forward: 1, verdict };
            assert_eq!(Reply::parse(&answer.write()), Some(answer));
        }
        let later = Reply::parse(br#"{"forward":2,"verdict":"later","more":1}"#).unwrap();
        assert_eq!((later.forward, later.verdict), (2, Verdict::Refused));
    }

    #[test]
    fn what_a_stream_says_reaches_the_client_as_it_is() {
        for refusal in
            [Refusal::SessionUnknown, Refusal::InFlight { limit: 3 }, Refusal::Memory, Refusal::Draining]
        {
            let there = Verdict::of(&refusal).refusal();
            assert_eq!((there.row().reason, there.message()), (refusal.row().reason, refusal.message()));
        }
    }
}
