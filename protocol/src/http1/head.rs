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
#[derive(Clone, Debug)]
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

    pub(super) fn new() -> Self {
        Self { inline: [(Span::default(), Span::default()); INLINE_HEADERS], len: 0, spill: Vec::new() }
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
