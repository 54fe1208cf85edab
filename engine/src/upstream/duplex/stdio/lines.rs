//! Lines of what a process writes: owns the bytes until their line is complete. Never what a line means.

/// A line is longer than it may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Memory that is kept for the next line.
const KEPT_BYTES: usize = 4 << 10;

pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Bytes in front that are known to hold no line end.
    looked_at: usize,
    max_bytes: usize,
}

impl Lines {
    pub(super) fn new(max_bytes: usize) -> Self {
        Lines { buffer: Vec::new(), looked_at: 0, max_bytes }
    }

    /// Where what was read is appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Gives out each complete line, without its end; empty ones are left out.
    ///
    /// # Errors
    /// [`TooLong`] for a line, complete or not; those before it were given out.
    pub(super) fn take(&mut self, mut give: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let mut from = 0;
        while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.looked_at.max(from)..]) {
            let end = self.looked_at.max(from) + end;
            let line = &self.buffer[from..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > self.max_bytes {
                return Err(TooLong);
            }
            if !line.trim_ascii().is_empty() {
                give(line);
            }
            from = end + 1;
            self.looked_at = from;
        }
        self.buffer.drain(..from);
        self.looked_at = self.buffer.len();
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT_BYTES);
        }
        if self.buffer.len() > self.max_bytes { Err(TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(lines: &mut Lines, bytes: &[u8]) -> (Vec<String>, Result<(), TooLong>) {
        lines.buffer().extend_from_slice(bytes);
        let mut taken = Vec::new();
        let ended = lines.take(|line| taken.push(String::from_utf8_lossy(line).into_owned()));
        (taken, ended)
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let text = b"one\r\n\n  \ntwo\nthree";
        for at in 0..text.len() {
            let mut lines = Lines::new(5);
            let mut all = take(&mut lines, &text[..at]).0;
            all.extend(take(&mut lines, &text[at..]).0);
            all.extend(take(&mut lines, b"\n").0);
            assert_eq!(all, ["one", "two", "three"], "cut at {at}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_before_it_ends() {
        let mut lines = Lines::new(5);
        assert_eq!(take(&mut lines, b"12345\n1234"), (vec!["12345".to_owned()], Ok(())));
        assert_eq!(take(&mut lines, b"5"), (vec![], Ok(())));
        assert_eq!(take(&mut lines, b"6"), (vec![], Err(TooLong)));
        let mut lines = Lines::new(5);
        assert_eq!(take(&mut lines, b"1\n123456\n"), (vec!["1".to_owned()], Err(TooLong)));
    }
}
