//! A connection that has until a moment to be done: owns the deadline over all reads and writes together, so that a scraper
//! that dawdles byte by byte holds its place no longer than one that is silent.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// See the module's words.
pub(super) struct Timed<'a> {
    stream: &'a TcpStream,
    by: Instant,
}

impl<'a> Timed<'a> {
    pub(super) fn new(stream: &'a TcpStream, limit: Duration) -> Self {
        Timed { stream, by: Instant::now() + limit }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.by.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test may block")]
    fn what_comes_in_time_is_read_and_nothing_after_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"a").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(Timed::new(&server, Duration::from_secs(30)).read(&mut buffer).unwrap(), 1);
        client.write_all(b"b").unwrap();
        let mut late = Timed::new(&server, Duration::ZERO);
        assert_eq!(late.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(late.write(b"c").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
