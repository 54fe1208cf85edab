//! Owns the reading of JSON text at a position: tokens, the skipping of whole values, the members of an object.
//!
//! It never recurses: nesting lives in a bit stack of fixed size, one bit per open bracket. It knows nothing of JSON-RPC.
//! The text must have been found to be UTF-8; only the grammar is checked here.

use super::{MAX_DEPTH_CEILING, ScanError};
use crate::{Span, StrSpan};

type Result<T> = std::result::Result<T, ScanError>;

const STACK_WORDS: usize = MAX_DEPTH_CEILING as usize / 64;

/// A position in JSON text, and the brackets that are open there.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    depth: u16,
    max_depth: u16,
    /// Bit `d` says whether the bracket that made the depth `d + 1` is an object's. Only used inside `skip_value`.
    objects: [u64; STACK_WORDS],
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`. A limit above [`MAX_DEPTH_CEILING`] means that.
    pub(super) fn new(bytes: &'a [u8], max_depth: u16) -> Self {
        let max_depth = max_depth.min(MAX_DEPTH_CEILING);
        Self { bytes, pos: 0, depth: 0, max_depth, objects: [0; STACK_WORDS] }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Skips white space; returns the byte there without taking it.
    ///
    /// # Errors
    /// [`ScanError::UnexpectedEnd`].
    #[inline]
    pub(super) fn peek(&mut self) -> Result<u8> {
        loop {
            match self.bytes.get(self.pos) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.pos += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(ScanError::UnexpectedEnd { offset: self.pos }),
            }
        }
    }

    /// Where the next token starts; white space must have been skipped.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Skips white space and proves that nothing follows.
    ///
    /// # Errors
    /// [`ScanError::TrailingData`].
    pub(super) fn finish(&mut self) -> Result<()> {
        match self.peek() {
            Ok(_) => Err(ScanError::TrailingData { offset: self.pos }),
            Err(_) => Ok(()),
        }
    }

    /// Takes the opening bracket that `peek` has seen.
    pub(super) fn open(&mut self) -> Result<()> {
        if self.depth >= self.max_depth {
            return Err(ScanError::TooDeep { offset: self.pos, limit: self.max_depth });
        }
        self.depth += 1;
        self.pos += 1;
        Ok(())
    }

    /// After `open` of an object: takes the next key and its colon, or the closing bracket (`None`).
    #[inline]
    pub(super) fn next_key(&mut self, first: bool) -> Result<Option<StrSpan>> {
        if !self.next_item(first, b'}', "`,` or `}`")? {
            return Ok(None);
        }
        self.key().map(Some)
    }

    /// After `open` of an array: stands at the next element, or takes the closing bracket (`false`).
    pub(super) fn next_element(&mut self, first: bool) -> Result<bool> {
        self.next_item(first, b']', "`,` or `]`")
    }

    /// Takes a whole value of any kind.
    pub(super) fn skip_value(&mut self) -> Result<Span> {
        self.peek()?;
        let start = self.pos;
        let base = self.depth;
        'value: loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                bracket @ (b'{' | b'[') => {
                    let is_object = bracket == b'{';
                    self.open()?;
                    self.set_top(is_object);
                    if self.peek()? != closing(is_object) {
                        if is_object {
                            self.key()?;
                        }
                        continue 'value;
                    }
                    self.close();
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => {
                    self.number()?;
                }
            }
            // A value has ended; so do the brackets that close right behind it.
            while self.depth > base {
                let is_object = self.top_is_object();
                match self.peek()? {
                    b',' => {
                        self.pos += 1;
                        if is_object {
                            self.key()?;
                        }
                        continue 'value;
                    }
                    byte if byte == closing(is_object) => self.close(),
                    _ if is_object => return Err(self.expected("`,` or `}`")),
                    _ => return Err(self.expected("`,` or `]`")),
                }
            }
            return Ok(Span::new(start, self.pos));
        }
    }

    /// Takes the string whose opening quote `peek` has seen.
    #[inline]
    pub(super) fn string(&mut self) -> Result<StrSpan> {
        let start = self.pos + 1;
        let mut escaped = false;
        self.pos = start;
        loop {
            self.pos = skip_plain(self.bytes, self.pos);
            match self.bytes.get(self.pos) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.expected("an escaped control character")),
                None => return Err(ScanError::UnexpectedEnd { offset: self.pos }),
            }
        }
        let span = Span::new(start, self.pos);
        self.pos += 1;
        Ok(StrSpan { span, escaped })
    }

    /// Takes a number and says whether it is an integer (no fraction, no exponent).
    pub(super) fn number(&mut self) -> Result<(Span, bool)> {
        let start = self.pos;
        if self.byte() == Some(b'-') {
            self.pos += 1;
        }
        match self.byte() {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => self.digits()?,
            None => return Err(ScanError::UnexpectedEnd { offset: self.pos }),
            Some(_) if self.pos > start => return Err(self.expected("a digit")),
            Some(_) => return Err(self.expected("a value")),
        }
        let mut is_integer = true;
        if self.byte() == Some(b'.') {
            is_integer = false;
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            is_integer = false;
            self.pos += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok((Span::new(start, self.pos), is_integer))
    }

    fn next_item(&mut self, first: bool, close: u8, expected: &'static str) -> Result<bool> {
        match self.peek()? {
            byte if byte == close => {
                // After a comma there is always an item, so a closing bracket is right only here.
                self.close();
                Ok(false)
            }
            b',' if !first => {
                self.pos += 1;
                self.peek()?;
                Ok(true)
            }
            _ if first => Ok(true),
            _ => Err(self.expected(expected)),
        }
    }

    fn key(&mut self) -> Result<StrSpan> {
        if self.peek()? != b'"' {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(self.expected("`:`"));
        }
        self.pos += 1;
        Ok(key)
    }

    fn close(&mut self) {
        self.pos += 1;
        self.depth -= 1;
    }

    fn set_top(&mut self, is_object: bool) {
        let top = usize::from(self.depth - 1);
        let bit = 1 << (top % 64);
        if is_object {
            self.objects[top / 64] |= bit;
        } else {
            self.objects[top / 64] &= !bit;
        }
    }

    fn top_is_object(&self) -> bool {
        let top = usize::from(self.depth - 1);
        self.objects[top / 64] >> (top % 64) & 1 == 1
    }

    /// Takes the escape whose backslash stands at the position.
    fn escape(&mut self) -> Result<()> {
        self.pos += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 1,
            Some(b'u') => {
                self.pos += 1;
                for _ in 0..4 {
                    match self.byte() {
                        Some(digit) if digit.is_ascii_hexdigit() => self.pos += 1,
                        Some(_) => return Err(self.expected("a hexadecimal digit")),
                        None => return Err(ScanError::UnexpectedEnd { offset: self.pos }),
                    }
                }
            }
            Some(_) => return Err(self.expected("an escape")),
            None => return Err(ScanError::UnexpectedEnd { offset: self.pos }),
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<()> {
        for &wanted in word {
            match self.byte() {
                Some(byte) if byte == wanted => self.pos += 1,
                Some(_) => return Err(self.expected("`true`, `false` or `null`")),
                None => return Err(ScanError::UnexpectedEnd { offset: self.pos }),
            }
        }
        Ok(())
    }

    /// Takes one digit or more.
    fn digits(&mut self) -> Result<()> {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.byte() {
            self.pos += 1;
        }
        match self.byte() {
            None if self.pos == start => Err(ScanError::UnexpectedEnd { offset: self.pos }),
            Some(_) if self.pos == start => Err(self.expected("a digit")),
            Some(_) | None => Ok(()),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    fn expected(&self, expected: &'static str) -> ScanError {
        ScanError::Syntax { offset: self.pos, expected }
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// The first position from `pos` on whose byte cannot stand for itself in a string: a quote, a backslash or a control
/// character. The length of `bytes` when there is none.
#[inline]
fn skip_plain(bytes: &[u8], mut pos: usize) -> usize {
    /// Keys and short values end within so many words; longer contents go to the vectorised loop.
    const SHORT_WORDS: usize = 4;
    for _ in 0..SHORT_WORDS {
        let Some(word) = bytes.get(pos..).and_then(<[u8]>::first_chunk) else {
            return skip_plain_tail(bytes, pos);
        };
        match special_in(u64::from_le_bytes(*word)) {
            0 => pos += 8,
            marks => return pos + marks.trailing_zeros() as usize / 8,
        }
    }
    for block in bytes.get(pos..).unwrap_or_default().as_chunks::<32>().0 {
        // Written without branches so that the compiler makes vector code of it.
        if block.iter().fold(false, |any, &byte| any | is_special(byte)) {
            break;
        }
        pos += 32;
    }
    skip_plain_tail(bytes, pos)
}

fn skip_plain_tail(bytes: &[u8], pos: usize) -> usize {
    let rest = bytes.get(pos..).unwrap_or_default();
    pos + rest.iter().position(|&byte| is_special(byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Marks the top bit of special bytes of a little-endian word. Only the lowest mark is exact: a borrow can mark bytes
/// above it.
fn special_in(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5C))) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_are_skipped_up_to_each_special_one() {
        for len in 0..100 {
            for special in [b'"', b'\\', 0, 0x1F, b'\n'] {
                for at in 0..=len {
                    let mut bytes = vec![b'a'; len];
                    // What looks special to sloppy bit tricks: 0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, high bytes.
                    let decoys = [0x20, 0x21, 0x23, 0x5B, 0x5D, 0x7F, 0x80, 0xA2, 0xDC, 0xFF];
                    bytes.iter_mut().zip(decoys.iter().cycle()).for_each(|(byte, &decoy)| *byte = decoy);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = special;
                    }
                    assert_eq!(skip_plain(&bytes, 0), at, "len {len}, {special:#x} at {at}");
                }
            }
        }
    }

    #[test]
    fn every_byte_is_judged_alike_by_both_loops() {
        for byte in 0..=u8::MAX {
            let word = u64::from_le_bytes([byte, b'a', b'a', b'a', b'a', b'a', b'a', b'a']);
            assert_eq!(special_in(word) != 0, is_special(byte), "{byte:#x}");
        }
    }

    #[test]
    fn values_are_skipped_whole() {
        for text in [
            "0",
            "-0",
            "12",
            "-1.5e+10",
            "1E2",
            "true",
            "false",
            "null",
            r#""""#,
            r#""a\"b""#,
            "[]",
            "{}",
            "[[]]",
            r#"{"a":{"b":[1,{"c":null},"d"]},"e":[]}"#,
            "[ 1 , 2 ]",
            "{ \"a\" : 1 , \"b\" : { } }",
            "[[],{},[{}]]",
        ] {
            let padded = format!(" \r\n\t{text} ]");
            let mut cursor = Cursor::new(padded.as_bytes(), 16);
            let span = cursor.skip_value().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(span.of(padded.as_bytes()), text.as_bytes());
            assert_eq!(cursor.depth, 0);
        }
    }

    #[test]
    fn depth_counts_open_brackets_of_both_kinds() {
        for (text, needed) in [("1", 0), ("[]", 1), ("[[]]", 2), (r#"{"a":[{"b":1}],"c":[]}"#, 3)] {
            assert!(Cursor::new(text.as_bytes(), needed).skip_value().is_ok(), "{text}");
            if let Some(limit) = needed.checked_sub(1) {
                let error = Cursor::new(text.as_bytes(), limit).skip_value().unwrap_err();
                assert!(
                    matches!(error, ScanError::TooDeep { limit: l, .. } if l == limit),
                    "{text}: {error}"
                );
            }
        }
        let deep = "[".repeat(2000);
        let error = Cursor::new(deep.as_bytes(), u16::MAX).skip_value().unwrap_err();
        assert_eq!(error, ScanError::TooDeep { offset: 1024, limit: MAX_DEPTH_CEILING });
    }
}
