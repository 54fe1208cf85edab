//! Owns the header lines that mean something to the gateway, and the framing that follows from them.
//!
//! Invariant: a header of which a second line could change the first one's meaning stands once, or the head is refused.

use httparse::Header;

use super::{HeadError, HeaderList};
use crate::Span;

/// A header that is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Field {
    Host,
    Origin,
    Accept,
    Expect,
    Connection,
    ContentType,
    ContentLength,
    ContentEncoding,
    TransferEncoding,
    Authorization,
    SessionId,
    ProtocolVersion,
    LastEventId,
    McpMethod,
    McpName,
    AccessControlRequestMethod,
    WwwAuthenticate,
    RetryAfter,
    Allow,
    CacheControl,
    TraceParent,
}

/// All fields with their canonical names, in the order of their numbers.
const FIELDS: [(Field, &str); 21] = [
    (Field::Host, "Host"),
    (Field::Origin, "Origin"),
    (Field::Accept, "Accept"),
    (Field::Expect, "Expect"),
    (Field::Connection, "Connection"),
    (Field::ContentType, "Content-Type"),
    (Field::ContentLength, "Content-Length"),
    (Field::ContentEncoding, "Content-Encoding"),
    (Field::TransferEncoding, "Transfer-Encoding"),
    (Field::Authorization, "Authorization"),
    (Field::SessionId, "Mcp-Session-Id"),
    (Field::ProtocolVersion, "MCP-Protocol-Version"),
    (Field::LastEventId, "Last-Event-ID"),
    (Field::McpMethod, "Mcp-Method"),
    (Field::McpName, "Mcp-Name"),
    (Field::AccessControlRequestMethod, "Access-Control-Request-Method"),
    (Field::WwwAuthenticate, "WWW-Authenticate"),
    (Field::RetryAfter, "Retry-After"),
    (Field::Allow, "Allow"),
    (Field::CacheControl, "Cache-Control"),
    (Field::TraceParent, "traceparent"),
];

impl Field {
    /// By length first: most lines of a head are compared with one name or none.
    fn find(name: &[u8]) -> Option<(Self, &'static str)> {
        let candidates: &[Field] = match name.len() {
            4 => &[Self::Host],
            5 => &[Self::Allow],
            6 => &[Self::Accept, Self::Origin, Self::Expect],
            8 => &[Self::McpName],
            10 => &[Self::Connection, Self::McpMethod],
            11 => &[Self::RetryAfter, Self::TraceParent],
            12 => &[Self::ContentType],
            13 => &[Self::Authorization, Self::LastEventId, Self::CacheControl],
            14 => &[Self::ContentLength, Self::SessionId],
            16 => &[Self::ContentEncoding, Self::WwwAuthenticate],
            17 => &[Self::TransferEncoding],
            20 => &[Self::ProtocolVersion],
            29 => &[Self::AccessControlRequestMethod],
            _ => &[],
        };
        let known = candidates.iter().map(|&field| FIELDS[field as usize]);
        known.into_iter().find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether several lines are one list, or harmless.
    fn may_repeat(self) -> bool {
        matches!(
            self,
            Self::Accept
                | Self::Connection
                | Self::WwwAuthenticate
                | Self::RetryAfter
                | Self::Allow
                | Self::CacheControl
                | Self::TraceParent
        )
    }
}

/// What the header lines say about the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    Unsaid,
    Length(u64),
    Chunked,
}

/// What the header lines of one head say.
pub(super) struct Fields {
    first: [Option<Span>; FIELDS.len()],
    close: bool,
    keep_alive: bool,
}

impl Fields {
    /// Takes the lines that `httparse` found in `buf`; all of them go into `list`.
    pub(super) fn collect(
        buf: &[u8],
        headers: &[Header<'_>],
        list: &mut HeaderList,
    ) -> Result<Self, HeadError> {
        let mut fields = Self { first: [None; FIELDS.len()], close: false, keep_alive: false };
        list.clear();
        for header in headers {
            let value = span_in(buf, header.value);
            list.push(span_in(buf, header.name.as_bytes()), value);
            if let Some((field, name)) = Field::find(header.name.as_bytes()) {
                fields.take(field, name, value)?;
                if field == Field::Connection {
                    fields.take_connection(header.value);
                }
            }
        }
        Ok(fields)
    }

    /// The first line of this field.
    pub(super) fn get(&self, field: Field) -> Option<Span> {
        self.first[field as usize]
    }

    /// Whether the connection can live on (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(&self, http10: bool) -> bool {
        !self.close && (self.keep_alive || !http10)
    }

    /// How the body is framed (RFC 9112, section 6); whatever two readers could take differently is refused.
    pub(super) fn framing(&self, buf: &[u8], http10: bool) -> Result<Framing, HeadError> {
        match (self.get(Field::TransferEncoding), self.get(Field::ContentLength)) {
            (None, None) => Ok(Framing::Unsaid),
            (None, Some(length)) => {
                decimal(length.of(buf)).map(Framing::Length).ok_or(HeadError::InvalidLength)
            }
            (Some(_), Some(_)) => Err(HeadError::ConflictingLength),
            (Some(_), None) if http10 => Err(HeadError::TransferCodingInHttp10),
            (Some(coding), None) if coding.of(buf).eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(_), None) => Err(HeadError::UnsupportedTransferCoding),
        }
    }

    fn take(&mut self, field: Field, name: &'static str, value: Span) -> Result<(), HeadError> {
        let slot = &mut self.first[field as usize];
        match slot {
            None => *slot = Some(value),
            Some(_) if field.may_repeat() => {}
            Some(_) if field == Field::Host => return Err(HeadError::DuplicateHost),
            Some(_) => return Err(HeadError::DuplicateHeader { name }),
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// The offsets of a part of `buf`; an empty span when it is no part of it.
pub(super) fn span_in(buf: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(buf.as_ptr().addr());
    match start.checked_add(part.len()) {
        Some(end) if end <= buf.len() => Span::new(start, end),
        Some(_) | None => Span::default(),
    }
}

/// One or more decimal digits and nothing else, within 64 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        let digit = char::from(digit).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name_in_any_case() {
        for (number, (field, name)) in FIELDS.iter().enumerate() {
            assert_eq!(*field as usize, number);
            for spelling in [name.to_ascii_lowercase(), name.to_ascii_uppercase(), (*name).to_owned()] {
                assert_eq!(Field::find(spelling.as_bytes()), Some((*field, *name)));
            }
        }
        assert_eq!(Field::find(b"Hosts"), None);
    }

    #[test]
    fn lengths_are_plain_decimals() {
        for (text, value) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1, 1", None),
            ("0x10", None),
            ("1e3", None),
            ("1 ", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), value, "{text:?}");
        }
    }
}
