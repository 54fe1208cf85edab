//! Owns the search for values at known places of a JSON text: one pass, by a table of the places.
//!
//! Invariant: it goes only as deep as its table, so what a text nests does not deepen the calls.

use super::cursor::Cursor;
use super::{MAX_DEPTH_CEILING, ScanError};
use crate::Span;

/// What is looked for from a value on. `T` says what a place means to the caller.
#[derive(Debug)]
pub(crate) enum Shape<T: 'static> {
    /// The value itself.
    Here(T),
    /// Members of an object, by their keys; a member that stands twice is found twice.
    Members(&'static [(&'static str, Shape<T>)]),
    /// Every element of an array.
    Each(&'static Shape<T>),
    /// The elements of an array, or the value itself where it is none.
    EachOrOne(&'static Shape<T>),
    /// The value itself, and then what is in it.
    Around(T, &'static Shape<T>),
}

/// Calls `visit` with every value that `shape` describes, in the text's order (but for [`Shape::Around`], whose value comes
/// before what is in it). Values of other kinds than the table expects are passed over. The bytes must be UTF-8.
///
/// # Errors
/// Where the text is not JSON.
pub(crate) fn walk<T: Copy>(
    bytes: &[u8],
    shape: &Shape<T>,
    mut visit: impl FnMut(T, Span),
) -> Result<(), ScanError> {
    let mut cursor = Cursor::new(bytes, MAX_DEPTH_CEILING);
    value(&mut cursor, shape, &mut visit)?;
    cursor.finish()
}

fn value<T: Copy>(
    cursor: &mut Cursor<'_>,
    shape: &Shape<T>,
    visit: &mut dyn FnMut(T, Span),
) -> Result<(), ScanError> {
    let byte = cursor.peek()?;
    match shape {
        Shape::Here(what) => visit(*what, cursor.skip_value()?),
        Shape::Members(members) if byte == b'{' => object(cursor, members, visit)?,
        Shape::Each(each) | Shape::EachOrOne(each) if byte == b'[' => {
            cursor.open()?;
            let mut first = true;
            while cursor.next_element(first)? {
                first = false;
                value(cursor, each, visit)?;
            }
        }
        Shape::EachOrOne(one) => value(cursor, one, visit)?,
        Shape::Around(what, inner) => {
            let start = cursor.pos();
            let mut found = Vec::new();
            value(cursor, inner, &mut |what, span| found.push((what, span)))?;
            visit(*what, Span::new(start, cursor.pos()));
            found.into_iter().for_each(|(what, span)| visit(what, span));
        }
        Shape::Members(_) | Shape::Each(_) => {
            cursor.skip_value()?;
        }
    }
    Ok(())
}

fn object<T: Copy>(
    cursor: &mut Cursor<'_>,
    members: &[(&str, Shape<T>)],
    visit: &mut dyn FnMut(T, Span),
) -> Result<(), ScanError> {
    cursor.open()?;
    let mut first = true;
    while let Some(key) = cursor.next_key(first)? {
        first = false;
        match members.iter().find(|(name, _)| key.eq_str(cursor.bytes(), name)) {
            Some((_, shape)) => value(cursor, shape, visit)?,
            None => {
                cursor.skip_value()?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape<u8> = Shape::Members(&[
        ("a", Shape::Here(1)),
        (
            "b",
            Shape::Each(&Shape::Members(&[("c", Shape::Here(2)), ("d", Shape::EachOrOne(&Shape::Here(3)))])),
        ),
        ("e", Shape::Around(4, &Shape::Each(&Shape::Here(5)))),
    ]);

    fn found(text: &str) -> Vec<(u8, &str)> {
        let mut found = Vec::new();
        walk(text.as_bytes(), &SHAPE, |what, span| {
            found.push((what, std::str::from_utf8(span.of(text.as_bytes())).unwrap()));
        })
        .unwrap();
        found
    }

    #[test]
    fn values_are_found_where_the_table_says() {
        assert_eq!(
            found(r#" {"x":{"a":0},"a" : "1" ,"b":[{"c":{}},7,{"\u0063":2,"d":[3, 4]},{"d":5}]} "#),
            [(1, r#""1""#), (2, "{}"), (2, "2"), (3, "3"), (3, "4"), (3, "5"),]
        );
        assert_eq!(
            found(r#"{"e":[ 1,[2] ],"a":1,"a":2}"#),
            [(4, "[ 1,[2] ]"), (5, "1"), (5, "[2]"), (1, "1"), (1, "2"),]
        );
    }

    #[test]
    fn other_kinds_are_passed_over_and_broken_text_is_told() {
        for text in ["[]", "1", r#"{"b":{"c":1},"e":null}"#, "{}"] {
            assert!(found(text).iter().all(|(what, _)| *what == 4), "{text}");
        }
        for broken in ["", "{", r#"{"b":[{"c":1]}"#, r#"{"a":1} x"#, r#"{"b":[1,]}"#] {
            assert!(walk(broken.as_bytes(), &SHAPE, |_, _| {}).is_err(), "{broken}");
        }
    }
}
