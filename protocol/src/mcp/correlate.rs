//! Owns where a message names another one beyond its own id (progress tokens, subscription ids), the exchange of such names
//! for others, and the form that a message has on one line. Everything else passes byte for byte.

use crate::Span;
use crate::jsonrpc::{for_each_element, for_each_member};

/// `params.progressToken` of a `notifications/progress`, raw; `params` is where the message's params stand.
pub fn progress_token(bytes: &[u8], params: Span) -> Option<Span> {
    member(bytes, params, "progressToken")
}

/// `io.modelcontextprotocol/subscriptionId` of a raw `_meta` object (2026-07-28, subscriptions.mdx).
pub fn subscription_id(bytes: &[u8], meta: Span) -> Option<Span> {
    member(bytes, meta, "io.modelcontextprotocol/subscriptionId")
}

/// The subscription id in the `_meta` of a raw `result`: the response that ends a subscription names it.
pub fn result_subscription_id(bytes: &[u8], result: Span) -> Option<Span> {
    subscription_id(bytes, member(bytes, result, "_meta")?)
}

/// The messages of a batch, raw; `None` where `bytes` hold no JSON array.
pub fn batch_elements(bytes: &[u8]) -> Option<Vec<Span>> {
    let mut found = Vec::new();
    let is_array = for_each_element(bytes, |element| found.push(element)).ok()?;
    is_array.then_some(found)
}

/// The message with other values in some places, which must not overlap and are given in their order.
pub fn splice(bytes: &[u8], places: &[(Span, &[u8])]) -> Vec<u8> {
    let more: usize = places.iter().map(|(_, value)| value.len()).sum();
    let mut out = Vec::with_capacity(bytes.len() + more);
    let mut from = 0;
    for (place, value) in places {
        out.extend_from_slice(bytes.get(from..place.start as usize).unwrap_or_default());
        out.extend_from_slice(value);
        from = place.end as usize;
    }
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    out
}

/// Makes one line of a message that was scanned: line ends can only stand between its tokens, where white space is as good.
pub fn put_on_one_line(message: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', &message[from..]) {
        message[from + at] = b' ';
        from += at + 1;
    }
}

fn member(bytes: &[u8], object: Span, name: &str) -> Option<Span> {
    let raw = object.of(bytes);
    let mut found = None;
    for_each_member(raw, |key, value| {
        if found.is_none() && key.eq_str(raw, name) {
            found = Some(Span { start: object.start + value.start, end: object.start + value.end });
        }
    })
    .ok()?;
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{Payload, ScanLimits, scan};

    fn single(text: &str) -> crate::jsonrpc::Scan {
        match scan(text.as_bytes(), &ScanLimits::default()) {
            Ok(Payload::Single(scan)) => scan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_of_other_messages_are_found_and_exchanged() {
        let text = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1, "progressToken" : "a"}}"#;
        let token = progress_token(text.as_bytes(), single(text).params.unwrap()).unwrap();
        assert_eq!(token.of(text.as_bytes()), b"\"a\"");
        assert_eq!(
            String::from_utf8(splice(text.as_bytes(), &[(token, b"17")])).unwrap(),
            text.replace("\"a\"", "17")
        );

        let text = r#"{"jsonrpc":"2.0","method":"x","params":{"_meta":{"k":{},"io.modelcontextprotocol/subscriptionId":4}}}"#;
        let id = subscription_id(text.as_bytes(), single(text).meta.unwrap()).unwrap();
        assert_eq!(id.of(text.as_bytes()), b"4");

        let text =
            r#"{"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":"s"}},"id":"s","jsonrpc":"2.0"}"#;
        let scan = single(text);
        let id = result_subscription_id(text.as_bytes(), scan.result.unwrap()).unwrap();
        let places = [(id, &b"1"[..]), (scan.id.unwrap(), b"1")];
        let expected = text.replace("\"s\"", "1");
        assert_eq!(splice(text.as_bytes(), &places), expected.as_bytes());
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let text = r#"{"jsonrpc":"2.0","method":"x","params":{"a":{"progressToken":1}}}"#;
        assert_eq!(progress_token(text.as_bytes(), single(text).params.unwrap()), None);
        assert_eq!(subscription_id(b"[1]", Span { start: 0, end: 3 }), None);
        assert_eq!(subscription_id(b"{", Span { start: 0, end: 1 }), None);
    }

    #[test]
    fn a_batch_falls_into_its_messages() {
        let text = br#" [ {"a":1} , {"b":[2]} ]"#;
        let elements = batch_elements(text).unwrap();
        let raw: Vec<_> = elements.iter().map(|span| span.of(text)).collect();
        assert_eq!(raw, [&br#"{"a":1}"#[..], br#"{"b":[2]}"#]);
        assert_eq!(batch_elements(b"{}"), None);
        assert_eq!(batch_elements(b"[1"), None);
    }

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        let mut text = b"{\r\n  \"a\": \"\\n\"\n}".to_vec();
        put_on_one_line(&mut text);
        assert_eq!(text, b"{    \"a\": \"\\n\" }");
    }
}
