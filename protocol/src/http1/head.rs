//! Owns what request and response heads share: the limits, the search for the head's end, the list of header lines.
//!
//! Invariant: `httparse` sees a head only up to the end found here, after every line was found to end with CR LF.

use super::HeadError;
use crate::Span;

/// The most header lines that [`HeadLimits::max_headers`] can allow: the parser's table on the stack is this long.
pub const HEADER_CEILING: usize = 128;

/// How many header lines a [`HeaderList`] holds without allocating.
const INLINE_HEADERS: usize = 32;

/// How much of a head is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// The most bytes from the first byte to the end of the empty line.
    pub max_bytes: usize,
    /// The most header lines; above [`HEADER_CEILING`] it means that.
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_bytes: 32 * 1024, max_headers: 100 }
    }
}

/// All header lines in their order, as (name, value) offsets. Up to 32 of them need no allocation.
#[derive(Clone, Debug, Default)]
pub struct HeaderList {
    inline: [(Span, Span); INLINE_HEADERS],
    len: usize,
    /// The lines after the inline ones; bounded by [`HEADER_CEILING`].
    spill: Vec<(Span, Span)>,
}

impl HeaderList {
    /// The number of header lines.
    pub fn len(&self) -> usize {
        self.len + self.spill.len()
    }

    /// Whether there is no header line.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The header lines in their order, as offsets of name and value.
    pub fn spans(&self) -> impl Iterator<Item = (Span, Span)> {
        self.inline[..self.len].iter().chain(&self.spill).copied()
    }

    /// The header lines in their order, as name and value. `buf` is the buffer that was parsed.
    pub fn iter<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.spans().map(move |(name, value)| (name.of(buf), value.of(buf)))
    }

    /// The values of every line of this name; names compare without case.
    pub fn all<'a>(&'a self, buf: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter(buf)
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.spill.clear();
    }

    pub(super) fn push(&mut self, name: Span, value: Span) {
        match self.inline.get_mut(self.len) {
            Some(slot) => {
                *slot = (name, value);
                self.len += 1;
            }
            None => self.spill.push((name, value)),
        }
    }
}

/// Where a head stands in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeadEnd {
    /// From `start` (leading empty lines are skipped) to the end of the empty line.
    Complete { start: usize, end: usize },
    /// It has not ended; it is short enough to be looked at early, so that nonsense is told at once.
    Early { start: usize },
    /// It has not ended.
    Partial,
}

/// An unfinished head is parsed again with every read; up to this length only, or a peer that sends single bytes could
/// make the work quadratic.
const EARLY_CHECK_BYTES: usize = 1024;

/// Finds the end of the head in one pass over its line ends.
pub(super) fn find_end(
    buf: &[u8],
    limits: &HeadLimits,
    max_leading_lines: usize,
) -> Result<HeadEnd, HeadError> {
    let window = &buf[..buf.len().min(limits.max_bytes)];
    let max_headers = limits.max_headers.min(HEADER_CEILING);
    let (mut start, mut line_start, mut lines, mut leading_lines) = (0, 0, 0, 0);
    for lf in memchr::memchr_iter(b'\n', window) {
        let line = &window[line_start..lf];
        if line.last() != Some(&b'\r') {
            return Err(HeadError::BareLineFeed { offset: lf });
        }
        match line.len() {
            1 if lines > 0 => return Ok(HeadEnd::Complete { start, end: lf + 1 }),
            1 if leading_lines == max_leading_lines => {
                return Err(HeadError::Malformed { what: "empty line before the start line" });
            }
            1 => {
                leading_lines += 1;
                start = lf + 1;
            }
            _ if lines > 0 && matches!(line[0], b' ' | b'\t') => {
                return Err(HeadError::ObsoleteFolding { offset: line_start });
            }
            _ if lines > max_headers => return Err(HeadError::TooManyHeaders { limit: max_headers }),
            _ => lines += 1,
        }
        line_start = lf + 1;
    }
    let limit = limits.max_bytes;
    match (buf.len() >= limit, lines) {
        (true, 0) => Err(HeadError::TargetTooLong { limit }),
        (true, _) => Err(HeadError::TooLarge { limit }),
        (false, _) if buf.len() - start <= EARLY_CHECK_BYTES => Ok(HeadEnd::Early { start }),
        (false, _) => Ok(HeadEnd::Partial),
    }
}

/// What an error of the grammar means here.
pub(super) fn grammar_error(error: httparse::Error, limits: &HeadLimits) -> HeadError {
    let what = match error {
        httparse::Error::Version => return HeadError::UnsupportedVersion,
        httparse::Error::TooManyHeaders => {
            return HeadError::TooManyHeaders { limit: limits.max_headers.min(HEADER_CEILING) };
        }
        httparse::Error::HeaderName => "header name",
        httparse::Error::HeaderValue => "header value",
        httparse::Error::NewLine => "line end",
        httparse::Error::Status => "status",
        httparse::Error::Token => "start line",
    };
    HeadError::Malformed { what }
}

/// Whether a `Connection` field names this field as hop-by-hop (RFC 9110, 7.6.1).
#[must_use]
pub fn is_named_by(connection: Option<&[u8]>, name: &[u8]) -> bool {
    connection.is_some_and(|value| {
        value.split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lists_keep_their_order_beyond_the_inline_ones() {
        let mut list = HeaderList::default();
        assert!(list.is_empty());
        let span = |at: u32| Span { start: at, end: at + 1 };
        for at in 0..100 {
            list.push(span(at), span(at + 1));
        }
        assert_eq!(list.len(), 100);
        assert!(list.spans().eq((0..100).map(|at| (span(at), span(at + 1)))));
    }

    #[test]
    fn the_end_is_found_whatever_follows() {
        let limits = HeadLimits { max_bytes: 64, max_headers: 2 };
        for (text, expected) in [
            ("A\r\n\r\n", Ok(HeadEnd::Complete { start: 0, end: 5 })),
            ("\r\n\r\nA\r\nb:c\r\n\r\nbody\n", Ok(HeadEnd::Complete { start: 4, end: 14 })),
            ("\r\n\r\n\r\nA", Err(HeadError::Malformed { what: "empty line before the start line" })),
            ("A\r\nb:c\r\n\r", Ok(HeadEnd::Early { start: 0 })),
            ("A\n\n", Err(HeadError::BareLineFeed { offset: 1 })),
            ("A\r\nb:c\n", Err(HeadError::BareLineFeed { offset: 6 })),
            ("\n", Err(HeadError::BareLineFeed { offset: 0 })),
            ("A\r\nb:c\r\n d\r\n", Err(HeadError::ObsoleteFolding { offset: 8 })),
            ("A\r\nb:c\r\n\td\r\n", Err(HeadError::ObsoleteFolding { offset: 8 })),
            ("A\r\nb:c\r\nd:e\r\n\r\n", Ok(HeadEnd::Complete { start: 0, end: 15 })),
            ("A\r\nb:c\r\nd:e\r\nf:g\r\n", Err(HeadError::TooManyHeaders { limit: 2 })),
        ] {
            assert_eq!(find_end(text.as_bytes(), &limits, 2), expected, "{text:?}");
        }
    }

    #[test]
    fn a_head_without_end_stops_at_the_limit() {
        let limits = HeadLimits { max_bytes: 2000, max_headers: 100 };
        let long = |len: usize| format!("GET /{} HTTP/1.1\r\nx: y\r\n", "a".repeat(len));
        assert_eq!(find_end(long(10).as_bytes(), &limits, 2), Ok(HeadEnd::Early { start: 0 }));
        assert_eq!(find_end(long(1500).as_bytes(), &limits, 2), Ok(HeadEnd::Partial));
        assert_eq!(find_end(long(1977).as_bytes(), &limits, 2), Ok(HeadEnd::Partial));
        assert_eq!(find_end(long(1978).as_bytes(), &limits, 2), Err(HeadError::TooLarge { limit: 2000 }));
        assert_eq!(
            find_end(long(3000).as_bytes(), &limits, 2),
            Err(HeadError::TargetTooLong { limit: 2000 })
        );
    }
}
