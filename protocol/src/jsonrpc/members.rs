//! Owns the reading of single values out of objects that were scanned, or that are scanned hereby.

use super::cursor::Cursor;
use super::{MAX_DEPTH_CEILING, ScanError};
use crate::{Span, StrSpan};

/// Calls `visit` with every member of the object that `bytes` hold, white space around it allowed; `false` when they
/// hold another value. The bytes must be UTF-8.
///
/// # Errors
/// Where the text is not JSON.
pub(crate) fn for_each_member(bytes: &[u8], mut visit: impl FnMut(StrSpan, Span)) -> Result<bool, ScanError> {
    let mut cursor = Cursor::new(bytes, MAX_DEPTH_CEILING);
    let is_object = cursor.peek()? == b'{';
    if is_object {
        cursor.open()?;
        let mut first = true;
        while let Some(key) = cursor.next_key(first)? {
            first = false;
            visit(key, cursor.skip_value()?);
        }
    } else {
        cursor.skip_value()?;
    }
    cursor.finish()?;
    Ok(is_object)
}

/// Calls `visit` with every element of the array that `bytes` hold, white space around it allowed; `false` when they hold
/// another value. The bytes must be UTF-8.
///
/// # Errors
/// Where the text is not JSON.
pub(crate) fn for_each_element(bytes: &[u8], mut visit: impl FnMut(Span)) -> Result<bool, ScanError> {
    let mut cursor = Cursor::new(bytes, MAX_DEPTH_CEILING);
    let is_array = cursor.peek()? == b'[';
    if is_array {
        cursor.open()?;
        let mut first = true;
        while cursor.next_element(first)? {
            first = false;
            visit(cursor.skip_value()?);
        }
    } else {
        cursor.skip_value()?;
    }
    cursor.finish()?;
    Ok(is_array)
}

/// The contents of a raw value, when it is a string. The value must be one that a scan returned.
pub(crate) fn as_string(bytes: &[u8], value: Span) -> Option<StrSpan> {
    let contents = value.of(bytes).strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let span = Span { start: value.start + 1, end: value.end - 1 };
    Some(StrSpan { span, escaped: memchr::memchr(b'\\', contents).is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Option<Vec<(String, String)>>, ScanError> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        let is_object = for_each_member(bytes, |key, value| {
            let value = String::from_utf8_lossy(value.of(bytes)).into_owned();
            found.push((key.decode(bytes).into_owned(), value));
        })?;
        Ok(is_object.then_some(found))
    }

    #[test]
    fn members_come_in_their_order_and_raw() {
        let found = members(r#" { "a" : [1, {}] , "\u0062":"x\"y", "a":null } "#).unwrap().unwrap();
        let expected = [("a", "[1, {}]"), ("b", r#""x\"y""#), ("a", "null")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(members("[1]"), Ok(None));
        assert_eq!(members("{}"), Ok(Some(Vec::new())));
        for broken in ["", "{", r#"{"a"}"#, r#"{"a":1,}"#, "{} {}", r#"{"a":1 "b":2}"#, "{1:2}"] {
            assert!(members(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn elements_come_in_their_order_and_raw() {
        let text = br#" [ 1 , [2,3],{"a":[]} , "x" ] "#;
        let mut found = Vec::new();
        assert_eq!(for_each_element(text, |span| found.push(span.of(text))), Ok(true));
        assert_eq!(found, [&b"1"[..], b"[2,3]", br#"{"a":[]}"#, br#""x""#]);
        assert_eq!(for_each_element(b"[]", |_| panic!("an element")), Ok(true));
        assert_eq!(for_each_element(b"{}", |_| panic!("an element")), Ok(false));
        for broken in [&b""[..], b"[", b"[1", b"[1,]", b"[,]", b"[1 2]", b"[1]x", b"[1}"] {
            assert!(for_each_element(broken, |_| {}).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn strings_are_told_from_other_values() {
        let bytes = br#""" "a\n" 12"#;
        let contents =
            |start, end| as_string(bytes, Span { start, end }).map(|s| s.decode(bytes).into_owned());
        assert_eq!(contents(0, 2).as_deref(), Some(""));
        assert_eq!(contents(3, 8).as_deref(), Some("a\n"));
        assert_eq!(contents(9, 11), None);
    }
}
