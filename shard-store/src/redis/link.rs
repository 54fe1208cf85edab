//! A stream to a Redis node that is asked one thing at a time: owns its read buffer. For logging in and for sentinels; a
//! connection that carries callers' commands takes the stream over afterwards.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use futures_io::{AsyncRead, AsyncWrite};
use mcp_protocol::resp::{Reader, Reply, write_command};

/// Bytes that one read may bring; a connection's read buffer is at least as large.
pub(crate) const READ_BYTES: usize = 16 << 10;

/// What has been read of a stream and not yet been taken as replies.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    reader: Reader,
}

impl Inbox {
    pub(crate) fn new(max_reply_bytes: usize) -> Self {
        Inbox { bytes: Vec::new(), start: 0, end: 0, reader: Reader::new(max_reply_bytes) }
    }

    /// Room for the next read, at least [`READ_BYTES`]. What is unread is moved to the front first.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = self.end + READ_BYTES;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.max(self.bytes.len() * 2), 0);
        } else if self.end == 0 && self.bytes.len() > 4 * READ_BYTES {
            self.bytes = vec![0; READ_BYTES];
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were read into [`Inbox::room`].
    pub(crate) fn took(&mut self, count: usize) {
        self.end += count;
    }

    /// The next whole reply.
    ///
    /// # Errors
    /// `InvalidData` for what is no RESP, or too large.
    pub(crate) fn next(&mut self) -> io::Result<Option<Reply>> {
        if self.start == self.end {
            return Ok(None);
        }
        let read = self.reader.read(&self.bytes[self.start..self.end]);
        let Some((reply, used)) = read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        else {
            return Ok(None);
        };
        self.start += used;
        Ok(Some(reply))
    }
}

/// A stream and what has been read of it.
pub(crate) struct Link<S> {
    stream: S,
    inbox: Inbox,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(crate) fn new(stream: S, max_reply_bytes: usize) -> Self {
        Link { stream, inbox: Inbox::new(max_reply_bytes) }
    }

    /// Sends a command and waits for its reply; what is pushed in between is dropped. The caller bounds the time.
    ///
    /// # Errors
    /// The stream's; an error reply is a reply.
    pub(crate) async fn ask(&mut self, args: &[&[u8]]) -> io::Result<Reply> {
        self.send(args).await?;
        loop {
            let reply = self.next().await?;
            if !matches!(reply, Reply::Push(_)) {
                return Ok(reply);
            }
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The stream's.
    pub(crate) async fn send(&mut self, args: &[&[u8]]) -> io::Result<()> {
        let mut bytes = Vec::new();
        write_command(&mut bytes, args);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let sent = poll_fn(|cx| Pin::new(&mut self.stream).poll_write(cx, rest)).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[sent..];
        }
        poll_fn(|cx| Pin::new(&mut self.stream).poll_flush(cx)).await
    }

    /// The next reply or push.
    ///
    /// # Errors
    /// The stream's; `UnexpectedEof` where it ended.
    pub(crate) async fn next(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(reply) = self.inbox.next()? {
                return Ok(reply);
            }
            let room = self.inbox.room();
            let count = poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, room)).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.inbox.took(count);
        }
    }

    pub(crate) fn into_parts(self) -> (S, Inbox) {
        (self.stream, self.inbox)
    }
}
