//! A session's record as it stands in Redis: owns the JSON that every pod, and an operator with `redis-cli`, reads.
//!
//! ```json
//! {"v":1,"principal":"","revision":"2025-06-18","created":1790000000000,
//!  "client":{"info":{"name":"x","version":"1"},"capabilities":{}},
//!  "upstreams":[{"server":"files","endpoint":"http://10.0.0.7:8080/mcp","session":"8f2c"},
//!               {"server":"git","endpoint":"stdio:","owner":{"pod":"10.0.0.9:9444","boot":4503599627370497,"shard":1}}],
//!  "owner":{"pod":"10.0.0.9:9444","boot":4503599627370497,"shard":3}}
//! ```
//!
//! Servers and endpoints stand there by name, because each pod counts its own from its own configuration, and finds its own
//! endpoints. A session id that is not visible ASCII is written as base64 under `session_base64`. A member that is not known is passed over; a record
//! whose meaning changes gets another `v`.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Binding, Client, Owner, Record};
use crate::StoreError;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The names of this process's servers, for records that other pods read.
#[derive(Debug, Default)]
pub struct Directory {
    servers: Vec<String>,
    by_name: HashMap<String, u16>,
}

impl Directory {
    /// Each server's name, which is its own alone, in the order of [`Binding`]'s indexes.
    pub fn new(servers: Vec<String>) -> Self {
        let by_name = (0..).zip(&servers).map(|(index, name)| (name.clone(), index)).collect();
        Directory { servers, by_name }
    }
}

/// A record's text. Client information that is no JSON is left out.
///
/// # Errors
/// [`StoreError::Malformed`] where the record names a server that is not in the directory.
pub fn encode(record: &Record, directory: &Directory) -> Result<Vec<u8>, StoreError> {
    let info = record.client.as_ref().and_then(|client| raw(&client.info));
    let capabilities = record.client.as_ref().and_then(|client| raw(&client.capabilities));
    let upstreams: Option<Vec<_>> =
        record.upstreams.iter().map(|binding| written_binding(binding, directory)).collect();
    let written = Written {
        v: VERSION,
        principal: Cow::Borrowed(&record.principal),
        revision: record.revision.as_deref().map(Cow::Borrowed),
        created: record.created_unix_ms,
        client: record
            .client
            .is_some()
            .then_some(WrittenClient { info: info.as_deref(), capabilities: capabilities.as_deref() }),
        upstreams: upstreams.ok_or(StoreError::Malformed("a session of a server that is not configured"))?,
        owner: record.owner.as_deref().map(WrittenOwner::of),
    };
    serde_json::to_vec(&written).map_err(|_| StoreError::Malformed("a session that cannot be written"))
}

/// Reads a record's text. `None`: it names a server that this process does not know, so the session is not known here.
///
/// # Errors
/// [`StoreError::Malformed`]: no record, or one of a version that is not known here.
pub fn decode(text: &[u8], directory: &Directory) -> Result<Option<Record>, StoreError> {
    let written: Written<'_> = match serde_json::from_slice(text) {
        Ok(written) => written,
        Err(_) => return Err(unreadable(text)),
    };
    if written.v != VERSION {
        return Err(unreadable(text));
    }
    let mut upstreams = Vec::with_capacity(written.upstreams.len());
    for binding in &written.upstreams {
        let Some(&server) = directory.by_name.get(&*binding.server) else { return Ok(None) };
        let owner = binding.owner.as_ref().map(WrittenOwner::read);
        upstreams.push(Binding {
            server,
            endpoint: (&*binding.endpoint).into(),
            session: binding.session_id()?,
            owner,
        });
    }
    Ok(Some(Record {
        principal: written.principal.into(),
        revision: written.revision.map(Into::into),
        client: written.client.map(|client| {
            Box::new(Client { info: text_of(client.info), capabilities: text_of(client.capabilities) })
        }),
        created_unix_ms: written.created,
        upstreams: upstreams.into(),
        owner: written.owner.as_ref().map(WrittenOwner::read),
    }))
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    v: u32,
    #[serde(borrow)]
    principal: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    revision: Option<Cow<'a, str>>,
    created: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client: Option<WrittenClient<'a>>,
    #[serde(borrow)]
    upstreams: Vec<WrittenBinding<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    owner: Option<WrittenOwner<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WrittenOwner<'a> {
    #[serde(borrow)]
    pod: Cow<'a, str>,
    boot: u64,
    shard: u16,
}

impl<'a> WrittenOwner<'a> {
    fn of(owner: &'a Owner) -> Self {
        WrittenOwner { pod: Cow::Borrowed(&owner.pod), boot: owner.boot, shard: owner.shard }
    }

    fn read(&self) -> Box<Owner> {
        Box::new(Owner { pod: (&*self.pod).into(), boot: self.boot, shard: self.shard })
    }
}

#[derive(Serialize, Deserialize)]
struct WrittenClient<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
struct WrittenBinding<'a> {
    #[serde(borrow)]
    server: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    session: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    session_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    owner: Option<WrittenOwner<'a>>,
}

impl WrittenBinding<'_> {
    fn session_id(&self) -> Result<Option<Box<[u8]>>, StoreError> {
        match (&self.session, &self.session_base64) {
            (Some(text), _) => Ok(Some(text.as_bytes().into())),
            (None, Some(base64)) => match STANDARD.decode(base64.as_bytes()) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(_) => Err(StoreError::Malformed("a session record with broken base64")),
            },
            (None, None) => Ok(None),
        }
    }
}

fn written_binding<'a>(binding: &'a Binding, directory: &'a Directory) -> Option<WrittenBinding<'a>> {
    let server = directory.servers.get(usize::from(binding.server))?;
    let session = binding.session.as_deref();
    let plain = session.filter(|bytes| bytes.iter().all(|byte| (0x21..=0x7e).contains(byte)));
    let plain = plain.and_then(|bytes| std::str::from_utf8(bytes).ok());
    Some(WrittenBinding {
        server: Cow::Borrowed(server),
        endpoint: Cow::Borrowed(&binding.endpoint),
        session: plain.map(Cow::Borrowed),
        session_base64: session.filter(|_| plain.is_none()).map(|bytes| STANDARD.encode(bytes).into()),
        owner: binding.owner.as_deref().map(WrittenOwner::of),
    })
}

/// Text as it stands in the record, where it is JSON.
fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

fn text_of(raw: Option<&RawValue>) -> Box<str> {
    raw.map_or("", RawValue::get).into()
}

/// Why a text is no record of ours.
fn unreadable(text: &[u8]) -> StoreError {
    #[derive(Deserialize)]
    struct Versioned {
        v: u64,
    }
    match serde_json::from_slice(text) {
        Ok(Versioned { v }) if v != u64::from(VERSION) => {
            StoreError::Malformed("a session record of a version that is not known here")
        }
        _ => StoreError::Malformed("something that is no session record"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        Directory::new(vec!["files".into(), "mail".into()])
    }

    fn record() -> Record {
        Record {
            principal: "alice \"the\" first\n".into(),
            revision: Some("2025-06-18".into()),
            client: Some(Box::new(Client {
                info: r#"{ "name":"x\u0041",  "version":"1.0" }"#.into(),
                capabilities: r#"{"roots":{}}"#.into(),
            })),
            created_unix_ms: 1_790_000_000_123,
            upstreams: [
                Binding {
                    server: 0,
                    endpoint: "http://b/mcp".into(),
                    session: Some(b"plain-id"[..].into()),
                    owner: None,
                },
                Binding {
                    server: 1,
                    endpoint: "http://c/mcp".into(),
                    session: Some(b"\x00 \xff"[..].into()),
                    owner: None,
                },
                Binding {
                    server: 1,
                    endpoint: "http://c/mcp".into(),
                    session: Some(b""[..].into()),
                    owner: None,
                },
                Binding { server: 0, endpoint: "http://a/mcp".into(), session: None, owner: None },
            ]
            .into(),
            owner: None,
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        let bare = Record { upstreams: [].into(), ..Record::default() };
        let owner = Owner { pod: "10.0.0.9:\"9444\"".into(), boot: (1 << 53) - 1, shard: u16::MAX };
        let owned = Record { owner: Some(Box::new(owner.clone())), ..record() };
        let binding = Binding {
            server: 1,
            endpoint: "http://c/mcp".into(),
            session: None,
            owner: Some(Box::new(owner)),
        };
        let bound = Record { upstreams: [binding, record().upstreams[0].clone()].into(), ..record() };
        for record in [record(), bare, owned, bound] {
            let text = encode(&record, &directory()).unwrap();
            assert_eq!(decode(&text, &directory()), Ok(Some(record)));
        }
    }

    #[test]
    fn an_operator_can_read_it() {
        let record = Record { upstreams: [record().upstreams[0].clone()].into(), ..record() };
        assert_eq!(
            String::from_utf8(encode(&record, &directory()).unwrap()).unwrap(),
            concat!(
                r#"{"v":1,"principal":"alice \"the\" first\n","revision":"2025-06-18","created":1790000000123,"#,
                r#""client":{"info":{ "name":"x\u0041",  "version":"1.0" },"capabilities":{"roots":{}}},"#,
                r#""upstreams":[{"server":"files","endpoint":"http://b/mcp","session":"plain-id"}]}"#
            )
        );
    }

    #[test]
    fn who_holds_a_server_s_part_stands_there_and_may_be_missing() {
        let before = br#"{"v":1,"principal":"","created":7,"upstreams":[{"server":"mail","endpoint":"http://c/mcp"}]}"#;
        let read = decode(before, &directory()).unwrap().unwrap();
        assert_eq!(read.upstreams[0].owner, None);
        assert_eq!(encode(&read, &directory()).unwrap(), before);
        let owner = Owner { pod: "10.0.0.9:9444".into(), boot: 5, shard: 1 };
        let upstreams = [Binding { owner: Some(Box::new(owner)), ..read.upstreams[0].clone() }];
        let text = encode(&Record { upstreams: upstreams.into(), ..read }, &directory()).unwrap();
        let owner = br#","owner":{"pod":"10.0.0.9:9444","boot":5,"shard":1}}]}"#;
        assert!(text.ends_with(owner), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn names_count_and_not_indexes() {
        let text = encode(&record(), &directory()).unwrap();
        let elsewhere = Directory::new(vec!["mail".into(), "files".into()]);
        let read = decode(&text, &elsewhere).unwrap().unwrap();
        let places: Vec<_> = read.upstreams.iter().map(|b| (b.server, &*b.endpoint)).collect();
        assert_eq!(
            places,
            [(1, "http://b/mcp"), (0, "http://c/mcp"), (0, "http://c/mcp"), (1, "http://a/mcp")]
        );
    }

    #[test]
    fn what_this_pod_does_not_know_is_unknown_here_and_never_written() {
        let text = encode(&record(), &directory()).unwrap();
        let fewer = Directory::new(vec!["files".into()]);
        assert_eq!(decode(&text, &fewer), Ok(None));
        assert!(matches!(encode(&record(), &fewer), Err(StoreError::Malformed(_))));
    }

    #[test]
    fn members_of_a_later_release_are_passed_over() {
        let text = br#"{"v":1,"holder":{"pod":"x"},"principal":"p","created":7,"upstreams":[]}"#;
        let read = decode(text, &directory()).unwrap().unwrap();
        assert_eq!((&*read.principal, read.created_unix_ms, read.client), ("p", 7, None));
    }

    #[test]
    fn garbage_and_other_versions_are_told_apart_and_never_panic() {
        let version = StoreError::Malformed("a session record of a version that is not known here");
        for text in [r#"{"v":2}"#, r#"{"v":2,"principal":"","created":0,"upstreams":[]}"#] {
            assert_eq!(decode(text.as_bytes(), &directory()), Err(version.clone()), "{text}");
        }
        let base64 = r#"{"v":1,"principal":"","created":0,"upstreams":[
            {"server":"files","endpoint":"http://a/mcp","session_base64":"?"}]}"#;
        for text in ["", "1", "{}", "\u{0}", r#"{"v":1}"#, r#"{"v":-1}"#, base64] {
            let read = decode(text.as_bytes(), &directory());
            assert!(matches!(&read, Err(StoreError::Malformed(_))) && read != Err(version.clone()), "{text}");
        }
        let whole = encode(&record(), &directory()).unwrap();
        for end in 0..whole.len() {
            assert!(decode(&whole[..end], &directory()).is_err(), "{end}");
        }
        assert!(decode(b"\xff\xfe", &directory()).is_err());
    }

    #[test]
    fn client_information_that_is_no_json_is_left_out() {
        let client = Client { info: "not json".into(), capabilities: "{}".into() };
        let text =
            encode(&Record { client: Some(Box::new(client)), ..Record::default() }, &directory()).unwrap();
        let read = decode(&text, &directory()).unwrap().unwrap().client.unwrap();
        assert_eq!((&*read.info, &*read.capabilities), ("", "{}"));
    }
}
