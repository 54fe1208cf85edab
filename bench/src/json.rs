//! A shallow JSON scan: the raw values of named members of one object.
//!
//! It allocates nothing, decodes nothing and never recurses. It proves only the structure it walks over (members of
//! the object, balanced brackets below); member names written with escapes count as other names. On purpose it shares
//! no code with the gateway's scanner: it checks that scanner's work.

use memchr::memchr2;

/// The raw values of the members `keys` of `object`, or `None` when it is not one well-formed object.
///
/// A value keeps its quotes and escapes. Of duplicate members the first counts. White space around is allowed.
pub fn members<'a, const N: usize>(object: &'a [u8], keys: [&str; N]) -> Option<[Option<&'a [u8]>; N]> {
    let mut found = [None; N];
    let mut at = skip_space(object, 0);
    at = expect(object, at, b'{')?;
    if object.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let key_end = string_end(object, at)?;
            let key = &object[at + 1..key_end - 1];
            at = expect(object, skip_space(object, key_end), b':')?;
            let end = value_end(object, at)?;
            if let Some(i) = keys.iter().position(|k| k.as_bytes() == key) {
                found[i] = found[i].or(Some(&object[at..end]));
            }
            at = skip_space(object, end);
            match object.get(at)? {
                b',' => at = skip_space(object, at + 1),
                b'}' => break at += 1,
                _ => return None,
            }
        }
    }
    (skip_space(object, at) == object.len()).then_some(found)
}

/// The text between the quotes of a raw string value, escapes as they are; `None` for another value.
pub fn string_content(raw: &[u8]) -> Option<&[u8]> {
    raw.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.bytes() {
        match c {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', c]),
            0..0x20 => out.extend_from_slice(format!("\\u{c:04x}").as_bytes()),
            _ => out.push(c),
        }
    }
    out.push(b'"');
}

fn skip_space(b: &[u8], mut at: usize) -> usize {
    while matches!(b.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Steps over `byte` and the space behind it.
fn expect(b: &[u8], at: usize, byte: u8) -> Option<usize> {
    (b.get(at) == Some(&byte)).then(|| skip_space(b, at + 1))
}

/// The end of the string that opens at `at`.
fn string_end(b: &[u8], at: usize) -> Option<usize> {
    if b.get(at) != Some(&b'"') {
        return None;
    }
    let mut i = at + 1;
    loop {
        i += memchr2(b'"', b'\\', b.get(i..)?)?;
        if b[i] == b'"' {
            return Some(i + 1);
        }
        i += 2;
    }
}

/// The end of the value that begins at `at`.
fn value_end(b: &[u8], at: usize) -> Option<usize> {
    match b.get(at)? {
        b'"' => string_end(b, at),
        b'{' | b'[' => nested_end(b, at),
        b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
            let rest = &b[at..];
            let n = rest.iter().position(|c| matches!(c, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
            Some(at + n.unwrap_or(rest.len()))
        }
        _ => None,
    }
}

/// The end of the object or array that opens at `at`: a count of open brackets, strings stepped over.
fn nested_end(b: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut i = at;
    loop {
        match b.get(i)? {
            b'"' => {
                i = string_end(b, i)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_raw_values_whatever_the_order_and_space() {
        let body = br#" { "params" : {"a":[1,{"id":9}],"s":"}\"]"} , "id" : "x\"y" ,"n":-1.5e3 } "#;
        let [id, params, n, none] = members(body, ["id", "params", "n", "none"]).unwrap();
        assert_eq!(id, Some(&br#""x\"y""#[..]));
        assert_eq!(params, Some(&br#"{"a":[1,{"id":9}],"s":"}\"]"}"#[..]));
        assert_eq!(n, Some(&b"-1.5e3"[..]));
        assert_eq!(none, None);
    }

    #[test]
    fn the_first_of_duplicates_counts_and_an_empty_object_is_one() {
        assert_eq!(members(br#"{"id":1,"id":2}"#, ["id"]), Some([Some(&b"1"[..])]));
        assert_eq!(members(b"{}", ["id"]), Some([None]));
    }

    #[test]
    fn every_cut_and_other_values_are_refused() {
        let body = br#"{"id":1,"s":"a\\","o":{"k":[true]}}"#;
        assert!(members(body, ["id"]).is_some());
        for end in 0..body.len() {
            assert_eq!(members(&body[..end], ["id"]), None, "cut at {end}");
        }
        for bad in [&b"[]"[..], b"1", b"{} x", b"{\"a\" 1}", b"{a:1}", b"{\"a\":1,}"] {
            assert_eq!(members(bad, ["a"]), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn pushed_strings_are_escaped() {
        let mut out = Vec::new();
        push_string(&mut out, "a\"\\\n\u{e9}");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"\\\\\\u000a\u{e9}\"");
    }
}
