//! Is this the answer to that call? Pure: a status, a body and an id in, a verdict out.
//!
//! Ids are compared as raw text. In an event stream the final response counts; notifications and requests before it
//! are passed over.

use memchr::memmem::Finder;

use super::AnswerForm;
use super::failure::{Failure, Kind};
use crate::json::{members, string_content};

/// A complete HTTP answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) event_stream: bool,
    /// There is a `Retry-After`.
    pub(super) retry_after: bool,
    pub(super) body: &'a [u8],
}

/// Checks the answer to a call with this id; `expect` must occur in its body.
pub(super) fn check_call(
    answer: Answer<'_>,
    id: u64,
    form: AnswerForm,
    expect: Option<&Finder<'_>>,
) -> Result<(), Failure> {
    let result = result_of(answer, id)?;
    match (form, answer.event_stream) {
        (AnswerForm::Json, true) => return Err(Failure::new(Kind::WrongAnswer, "an event stream, not JSON")),
        (AnswerForm::EventStream, false) => {
            return Err(Failure::new(Kind::WrongAnswer, "not an event stream"));
        }
        _ => {}
    }
    let Some([is_error, result_type]) = members(result, ["isError", "resultType"]) else {
        return Err(Failure::new(Kind::Malformed, "the result is not an object"));
    };
    if is_error == Some(b"true") {
        return Err(Failure::new(Kind::ToolError, "isError is true"));
    }
    if let Some(other) = result_type.filter(|t| *t != br#""complete""#) {
        return Err(Failure::new(
            Kind::WrongAnswer,
            format!("resultType {}", String::from_utf8_lossy(other)),
        ));
    }
    match expect {
        Some(text) if text.find(answer.body).is_none() => {
            Err(Failure::new(Kind::WrongAnswer, "the expected text is missing"))
        }
        _ => Ok(()),
    }
}

/// The raw result in the answer to the request with this id.
pub(super) fn result_of(answer: Answer<'_>, id: u64) -> Result<&[u8], Failure> {
    if answer.status == 503 && answer.retry_after {
        return Err(Failure::new(Kind::Shed, "503 with Retry-After"));
    }
    if answer.status != 200 {
        return Err(Failure::new(Kind::HttpStatus, answer.status));
    }
    if !answer.event_stream {
        return response_result(answer.body, id).and_then(|result| {
            result.ok_or_else(|| Failure::new(Kind::Malformed, "a request instead of a response"))
        });
    }
    for data in events(answer.body) {
        if let Some(result) = response_result(data, id)? {
            return Ok(result);
        }
    }
    Err(Failure::new(Kind::Malformed, "an event stream without a response"))
}

/// The result of one message; `None` for a request or notification.
fn response_result(message: &[u8], expected: u64) -> Result<Option<&[u8]>, Failure> {
    let Some([id, method, result, error]) = members(message, ["id", "method", "result", "error"]) else {
        return Err(Failure::new(Kind::Malformed, "not a JSON object"));
    };
    if method.is_some() {
        return Ok(None);
    }
    if let Some(error) = error {
        let [code, data] = members(error, ["code", "data"]).unwrap_or_default();
        let retryable = data.and_then(|data| members(data, ["retryable"])).and_then(|[retryable]| retryable);
        if code == Some(b"-32000") && retryable == Some(b"true") {
            return Err(Failure::new(Kind::Shed, "-32000, retryable"));
        }
        let code = code.unwrap_or(b"without a code");
        return Err(Failure::new(Kind::JsonRpcError, String::from_utf8_lossy(code)));
    }
    let mut digits = itoa::Buffer::new();
    if id != Some(digits.format(expected).as_bytes()) {
        let what = match id {
            None => "no id",
            Some(raw) if string_content(raw).is_some() => "a string",
            Some(_) => "another id",
        };
        return Err(Failure::new(Kind::WrongId, what));
    }
    result.map(Some).ok_or_else(|| Failure::new(Kind::Malformed, "neither result nor error"))
}

/// The data of each event that has any. Data over several lines is not joined: MCP sends one line per message, and a
/// message cut over lines shows as malformed.
fn events(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|b| matches!(b, b'\n' | b'\r'))
        .filter_map(|line| line.strip_prefix(b"data:"))
        .map(|data| data.strip_prefix(b" ").unwrap_or(data))
        .filter(|data| !data.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"hi"}]}}"#;

    fn kind(status: u16, event_stream: bool, body: &str) -> Option<Kind> {
        let answer = Answer { status, event_stream, retry_after: false, body: body.as_bytes() };
        check_call(answer, 7, AnswerForm::Any, Some(&Finder::new("\"hi\""))).err().map(|f| f.kind)
    }

    #[test]
    fn a_right_answer_passes_as_json_and_as_events() {
        assert_eq!(kind(200, false, GOOD), None);
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
        let stream =
            format!(": hello\r\nid: 1\r\ndata:\r\n\r\ndata: {notice}\n\nevent: message\ndata:{GOOD}\n\n");
        assert_eq!(kind(200, true, &stream), None);
    }

    #[test]
    fn each_wrong_answer_has_its_kind() {
        for (status, body, expected) in [
            (503, GOOD, Kind::HttpStatus),
            (200, "", Kind::Malformed),
            (200, r#"{"id":7}"#, Kind::Malformed),
            (200, r#"{"id":8,"result":{}}"#, Kind::WrongId),
            (200, r#"{"id":"7","result":{}}"#, Kind::WrongId),
            (200, r#"{"id":7,"error":{"code":-32603,"message":"x"}}"#, Kind::JsonRpcError),
            (200, r#"{"id":7,"error":{"code":-32000,"message":"x"}}"#, Kind::JsonRpcError),
            (200, r#"{"id":7,"error":{"code":-32000,"message":"x","data":{"retryable":true}}}"#, Kind::Shed),
            (200, r#"{"id":7,"result":{"isError":true}}"#, Kind::ToolError),
            (200, r#"{"id":7,"result":{"resultType":"input_required"}}"#, Kind::WrongAnswer),
            (200, r#"{"id":7,"result":{"content":[]}}"#, Kind::WrongAnswer),
            (200, r#"{"id":7,"method":"ping"}"#, Kind::Malformed),
        ] {
            assert_eq!(kind(status, false, body), Some(expected), "{body}");
        }
        let json = Answer { status: 200, event_stream: false, retry_after: false, body: GOOD.as_bytes() };
        assert!(check_call(json, 7, AnswerForm::Json, None).is_ok());
        let refused = check_call(json, 7, AnswerForm::EventStream, None).unwrap_err();
        assert_eq!(refused.kind, Kind::WrongAnswer);
        assert_eq!(kind(200, true, ": nothing\n\n"), Some(Kind::Malformed));
        let later = Answer { status: 503, event_stream: false, retry_after: true, body: b"" };
        assert_eq!(check_call(later, 7, AnswerForm::Any, None).unwrap_err().kind, Kind::Shed);
    }
}
