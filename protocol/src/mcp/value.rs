//! Owns the encoding of mirrored header values (2026-07-28, streamable-http.mdx, "Value Encoding").

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

const SENTINEL_START: &[u8] = b"=?base64?";
const SENTINEL_END: &[u8] = b"?=";

/// Why a header value stands for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InvalidValue {
    /// A byte outside visible ASCII, space and tab.
    #[error("contains a character that is not allowed")]
    Character,
    /// The text between the sentinels is not base64 with padding.
    #[error("is not valid base64")]
    Base64,
    /// The decoded bytes are not UTF-8.
    #[error("does not decode to UTF-8")]
    NotUtf8,
}

/// The value that `Mcp-Name` or `Mcp-Param-*` stands for: itself, or what its base64 sentinel holds.
///
/// # Errors
/// [`InvalidValue`]; the request must be refused with a header mismatch.
pub fn decode_value(value: &[u8]) -> Result<Cow<'_, [u8]>, InvalidValue> {
    if !value.iter().all(|&b| matches!(b, b'\t' | 0x20..=0x7E)) {
        return Err(InvalidValue::Character);
    }
    // The text between must be its own: in `=?base64?=` the two marks would share a question mark.
    let Some(encoded) = value.strip_prefix(SENTINEL_START).and_then(|rest| rest.strip_suffix(SENTINEL_END))
    else {
        return Ok(Cow::Borrowed(value));
    };
    let decoded = STANDARD.decode(encoded).map_err(|_| InvalidValue::Base64)?;
    if std::str::from_utf8(&decoded).is_err() {
        return Err(InvalidValue::NotUtf8);
    }
    Ok(Cow::Owned(decoded))
}

/// The header value that stands for `value`: itself where a header can hold it, else its base64 sentinel. The inverse of
/// [`decode_value`].
pub fn encode_value(value: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = value.iter().all(|&b| matches!(b, b'\t' | 0x20..=0x7E));
    let is_trimmed = value.trim_ascii().len() == value.len();
    let looks_encoded = value.starts_with(SENTINEL_START) && value.ends_with(SENTINEL_END);
    if is_plain && is_trimmed && !looks_encoded && !value.is_empty() {
        return Cow::Borrowed(value);
    }
    let mut encoded = SENTINEL_START.to_vec();
    encoded.extend_from_slice(STANDARD.encode(value).as_bytes());
    encoded.extend_from_slice(SENTINEL_END);
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_cannot_hold_is_encoded_and_reads_back() {
        for (value, header) in [
            ("us-west1", "us-west1"),
            ("a\tb c", "a\tb c"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", "=?base64??="),
        ] {
            assert_eq!(*encode_value(value.as_bytes()), *header.as_bytes(), "{value:?}");
            assert_eq!(decode_value(header.as_bytes()).as_deref(), Ok(value.as_bytes()), "{value:?}");
        }
    }

    #[test]
    fn the_examples_of_the_specification_decode() {
        for (header, value) in [
            ("us-west1", "us-west1"),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            ("=?base64?IHBhZGRlZCA=?=", " padded "),
            ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
            ("=?base64??=", ""),
            ("=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?="),
            ("=?base64?=", "=?base64?="),
            ("a\tb c", "a\tb c"),
            ("", ""),
        ] {
            assert_eq!(decode_value(header.as_bytes()).as_deref(), Ok(value.as_bytes()), "{header}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for (header, error) in [
            (&b"=?base64?SGVsbG8?="[..], InvalidValue::Base64),
            (b"=?base64?SGVsbG9=?=", InvalidValue::Base64),
            (b"=?base64?SGVs bG8=?=", InvalidValue::Base64),
            (b"=?base64?_-__?=", InvalidValue::Base64),
            (b"=?base64?/w==?=", InvalidValue::NotUtf8),
            ("世界".as_bytes(), InvalidValue::Character),
            (b"a\x00b", InvalidValue::Character),
            (b"a\x7fb", InvalidValue::Character),
            (b"a\r\nb", InvalidValue::Character),
        ] {
            assert_eq!(decode_value(header), Err(error), "{header:?}");
        }
    }
}
