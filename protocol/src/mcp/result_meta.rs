//! Members that the gateway adds to a result's `_meta`: owns the place where they go. All other bytes stay as they are.

use crate::Span;
use crate::jsonrpc::for_each_member;

/// The response with `key` and the string `value` added to its result's `_meta`, which is made where there is none. `result`
/// is the place of an object, as a scan found it; neither text may need escaping. A result whose `_meta` is no object stays as
/// it is.
#[must_use]
pub fn with_result_meta(response: &[u8], result: Span, key: &str, value: &str) -> Vec<u8> {
    let object = result.of(response);
    let mut meta = None;
    let is_object = for_each_member(object, |name, value| {
        if name.eq_str(object, "_meta") {
            meta = Some(value);
        }
    });
    if !matches!(is_object, Ok(true)) {
        return response.to_vec();
    }
    let member = format!("\"{key}\":\"{value}\"");
    let start = result.start as usize;
    match meta {
        Some(meta) if object[meta.start as usize] == b'{' => {
            added(response, start + meta.start as usize..start + meta.end as usize, &member)
        }
        Some(_) => response.to_vec(),
        None => added(response, start..result.end as usize, &format!("\"_meta\":{{{member}}}")),
    }
}

/// The text with a member added at the end of the object at this place.
fn added(text: &[u8], object: std::ops::Range<usize>, member: &str) -> Vec<u8> {
    let brace = object.end - 1;
    let is_empty = text[object.start + 1..brace].trim_ascii().is_empty();
    let mut out = Vec::with_capacity(text.len() + member.len() + 1);
    out.extend_from_slice(&text[..brace]);
    out.extend_from_slice(if is_empty { b"" } else { b"," });
    out.extend_from_slice(member.as_bytes());
    out.extend_from_slice(&text[brace..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_is_added_wherever_the_result_has_room() {
        for (result, expected) in [
            (r"{}", r#"{"_meta":{"k":"v"}}"#),
            (r#"{"a":{}}"#, r#"{"a":{},"_meta":{"k":"v"}}"#),
            (r#"{ "_meta" : { } , "a":1}"#, r#"{ "_meta" : { "k":"v"} , "a":1}"#),
            (r#"{"\u005fmeta":{"x":[1]}}"#, r#"{"\u005fmeta":{"x":[1],"k":"v"}}"#),
            (r#"{"_meta":7}"#, r#"{"_meta":7}"#),
            ("[]", "[]"),
        ] {
            let response = format!(r#"{{"id":1,"result":{result} }}"#);
            let start = 17;
            let span = Span { start, end: start + result.len() as u32 };
            let found = with_result_meta(response.as_bytes(), span, "k", "v");
            assert_eq!(String::from_utf8(found).unwrap(), format!(r#"{{"id":1,"result":{expected} }}"#));
        }
    }
}
