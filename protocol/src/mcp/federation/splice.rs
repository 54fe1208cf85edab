//! Splices: owns the copying of a text with some of its spans replaced; every other byte stays.

use std::borrow::Cow;

use crate::Span;

/// What is to be replaced in a text, in any order.
#[derive(Default, Debug)]
pub(super) struct Splices<'a> {
    edits: Vec<(Span, Cow<'a, [u8]>)>,
}

impl<'a> Splices<'a> {
    /// Puts `with` in the place of `span`; spans must not overlap.
    pub(super) fn replace(&mut self, span: Span, with: impl Into<Cow<'a, [u8]>>) {
        self.edits.push((span, with.into()));
    }

    /// Puts `text` before the byte at `at`.
    pub(super) fn insert(&mut self, at: u32, text: &'a str) {
        self.edits.push((Span { start: at, end: at }, text.as_bytes().into()));
    }

    /// Takes over what another is to replace in the same text.
    pub(super) fn append(&mut self, mut other: Splices<'a>) {
        self.edits.append(&mut other.edits);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Appends the part of the text that `range` is, with what is to be replaced in it replaced.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, text: &[u8], range: Span) {
        self.edits.sort_by_key(|(span, _)| span.start);
        let mut from = range.start;
        let inside = |span: &Span| range.start <= span.start && span.end <= range.end;
        for (span, with) in self.edits.iter().filter(|(span, _)| inside(span)) {
            out.extend_from_slice(Span { start: from, end: span.start }.of(text));
            out.extend_from_slice(with);
            from = span.end;
        }
        out.extend_from_slice(Span { start: from, end: range.end }.of(text));
    }

    /// The whole text with everything replaced; the text itself where nothing is.
    pub(super) fn apply<'t>(mut self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let added: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(text.len() + added);
        self.write(&mut out, text, Span::new(0, text.len()));
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_else_stays() {
        let text = b"0123456789";
        let splices = || {
            let mut splices = Splices::default();
            splices.replace(Span::new(6, 8), &b"xyz"[..]);
            splices.insert(2, "ab");
            splices.replace(Span::new(4, 5), &b""[..]);
            splices
        };
        assert_eq!(*splices().apply(text), *b"01ab235xyz89");
        let mut part = Vec::new();
        splices().write(&mut part, text, Span::new(3, 7));
        assert_eq!(part, b"356");
        assert!(matches!(Splices::default().apply(text), Cow::Borrowed(_)));
    }
}
