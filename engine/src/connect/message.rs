//! Messages: owns what `connect` must know of one to carry it, and the error answers that are its own. Never where a message
//! goes.

use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanFailure, ScanLimits, scan, write_json_string};
use mcp_protocol::mcp::is_repeatable;

/// The code of errors that are `connect`'s own, as of the gateway's: the message could not be carried.
const SERVER_ERROR: i64 = -32000;

/// A message of the client's.
pub(super) struct Message {
    pub(super) body: Vec<u8>,
    /// What there is to know of each message in it; more than one in a batch.
    pub(super) scans: Vec<Scan>,
    pub(super) is_batch: bool,
}

/// The raw id of a request, and what it is compared by: a server may write the same string with other escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestId {
    pub(super) raw: Vec<u8>,
    key: serde_json::Value,
}

impl RequestId {
    pub(super) fn new(raw: &[u8]) -> Self {
        RequestId { raw: raw.to_owned(), key: serde_json::from_slice(raw).unwrap_or_default() }
    }

    pub(super) fn is(&self, raw: &[u8]) -> bool {
        self.raw == raw || serde_json::from_slice::<serde_json::Value>(raw).is_ok_and(|key| key == self.key)
    }
}

impl Message {
    /// # Errors
    /// What the text breaks, and the text.
    pub(super) fn parse(body: Vec<u8>) -> Result<Self, (Vec<u8>, ScanFailure)> {
        match scan(&body, &ScanLimits::default()) {
            Ok(Payload::Single(scan)) => Ok(Message { body, scans: vec![scan], is_batch: false }),
            Ok(Payload::Batch(scans)) => Ok(Message { body, scans, is_batch: true }),
            Err(failure) => Err((body, failure)),
        }
    }

    /// The only message of what is no batch.
    pub(super) fn single(&self) -> Option<&Scan> {
        if self.is_batch { None } else { self.scans.first() }
    }

    /// Whether it is this request or notification.
    pub(super) fn is(&self, method: &str) -> bool {
        self.single().and_then(|scan| scan.method).is_some_and(|found| found.eq_str(&self.body, method))
    }

    /// The ids of the requests in it.
    pub(super) fn requests(&self) -> Vec<RequestId> {
        let requests = self.scans.iter().filter(|scan| scan.kind == Kind::Request);
        requests.filter_map(|scan| scan.id).map(|id| RequestId::new(id.of(&self.body))).collect()
    }

    /// Whether it is of the modern era: it says so in its `_meta`, or its method exists in no other. The revision is
    /// then the one that it names.
    pub(super) fn is_modern(&self) -> bool {
        self.single().is_some_and(|scan| scan.meta_protocol_version.is_some())
            || self.is("server/discover")
            || self.is("subscriptions/listen")
    }

    /// Whether all of it may be sent again when nobody knows what became of it.
    pub(super) fn is_repeatable(&self) -> bool {
        self.scans.iter().all(|scan| {
            let method = scan.method.map(|method| method.decode(&self.body));
            scan.kind == Kind::Request && method.is_some_and(|method| is_repeatable(&method))
        })
    }

    /// For a cancellation: the raw id of the request that is not wanted any more.
    pub(super) fn cancels(&self) -> Option<&[u8]> {
        let scan = self.single().filter(|_| self.is("notifications/cancelled"))?;
        scan.request_id.map(|id| id.of(&self.body))
    }

    /// What the log may say of it.
    pub(super) fn name(&self) -> String {
        match self.single() {
            None => "a batch".to_owned(),
            Some(scan) => match scan.method {
                Some(method) => method.decode(&self.body).into_owned(),
                None => "a response".to_owned(),
            },
        }
    }
}

/// A message in one line. In JSON a line end outside of strings is white space, and inside there is none.
pub(super) fn in_one_line(message: &[u8]) -> Vec<u8> {
    message.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
}

/// Why a request has no answer of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    /// The JSON text of `data`.
    pub(super) data: Option<String>,
}

impl Fault {
    /// Nothing is wrong with the request: it may be sent again by whoever knows what it does.
    pub(super) fn retryable(message: impl Into<String>) -> Self {
        let data = Some(r#"{"retryable":true}"#.to_owned());
        Fault { code: SERVER_ERROR, message: message.into(), data }
    }

    pub(super) fn lasting(message: impl Into<String>) -> Self {
        Fault { code: SERVER_ERROR, message: message.into(), data: None }
    }

    /// A line that is no message.
    pub(super) fn malformed(code: i64, message: impl Into<String>) -> Self {
        Fault { code, message: message.into(), data: None }
    }

    /// The error that an answer holds; an answer without one, or with another text, is told by `otherwise`.
    pub(super) fn of_answer(body: &[u8], otherwise: impl FnOnce() -> Self) -> Self {
        let read = || {
            let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
            let error = answer.get("error")?;
            let message = error.get("message")?.as_str()?.to_owned();
            let data = error.get("data").map(serde_json::Value::to_string);
            Some(Fault { code: error.get("code")?.as_i64()?, message, data })
        };
        read().unwrap_or_else(otherwise)
    }

    /// The error answer to the request with this raw id, or to nobody's.
    pub(super) fn answer(&self, id: Option<&[u8]>) -> Vec<u8> {
        let mut out = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        out.extend_from_slice(id.unwrap_or(b"null"));
        out.extend_from_slice(format!(r#","error":{{"code":{},"message":"#, self.code).as_bytes());
        write_json_string(&mut out, &self.message);
        if let Some(data) = &self.data {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data.as_bytes());
        }
        out.extend_from_slice(b"}}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Message {
        Message::parse(text.as_bytes().to_vec()).expect(text)
    }

    #[test]
    fn a_message_is_known_by_what_it_says() {
        let list = parse(r#"{"jsonrpc":"2.0","id":"a\u0062","method":"tools/list"}"#);
        assert!(list.is("tools/list") && list.is_repeatable() && !list.is_modern());
        let [id] = &list.requests()[..] else { panic!("one request") };
        assert!(id.is(br#""ab""#) && id.is(br#""a\u0062""#) && !id.is(b"\"a\"") && !id.is(b"1"));
        let call = parse(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert!(call.is_modern() && !call.is_repeatable());
        let cancel =
            parse(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}"#);
        assert_eq!(cancel.cancels(), Some(&b"\"x\""[..]));
        assert!(cancel.requests().is_empty() && !cancel.is_repeatable());
        let batch = parse(
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/call"}]"#,
        );
        assert!(batch.is_batch && !batch.is("ping") && !batch.is_repeatable() && batch.requests().len() == 2);
    }

    #[test]
    fn a_message_in_one_line_is_the_same_message() {
        let text = "{\r\n  \"a\": \"x\\ny \u{2028}\",\n\t\"b\": [1,\r2]\n}\n";
        let line = in_one_line(text.as_bytes());
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_slice(&line).unwrap());
        assert_eq!(before, after);
    }

    #[test]
    fn an_error_keeps_what_the_server_said_under_the_request_s_own_id() {
        let body =
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"a \"b\"","data":{"x":[1]}}}"#;
        let fault = Fault::of_answer(body, || panic!("it holds an error"));
        let answer: serde_json::Value = serde_json::from_slice(&fault.answer(Some(b"7"))).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["message"]), (&7.into(), &"a \"b\"".into()));
        assert_eq!(answer["error"]["data"]["x"][0], 1);
        let other = Fault::of_answer(b"<html>", || Fault::retryable("no answer"));
        let answer: serde_json::Value = serde_json::from_slice(&other.answer(None)).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&serde_json::Value::Null, &(-32000).into()));
        assert_eq!(answer["error"]["data"]["retryable"], true);
    }
}
