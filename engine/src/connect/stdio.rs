//! Standard input and output: owns the two threads that may block on them, and the bounded queues between these and the
//! loop. It knows lines, never messages.

use std::future::poll_fn;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::task::Poll;
use std::time::Duration;

use super::host::Bell;

/// Lines that were read and wait for the loop, each of at most `--max-message` bytes.
const LINES_IN: usize = 4;
/// Lines that wait until the client reads them, each of at most `--max-message` bytes and a little.
const LINES_OUT: usize = 8;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// What comes from the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A line without its end.
    Line(Vec<u8>),
    /// A line over the limit; its bytes are gone.
    TooLong,
    /// The client closed its end, the input failed, or the process was asked to end.
    End(EndOf),
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndOf {
    Input,
    Process,
    /// It does not read any more.
    Client,
}

/// The client's lines.
pub(super) struct Input(Receiver<Taken>);

/// Ends the input from another thread.
#[derive(Clone)]
pub(super) struct Ender {
    lines: SyncSender<Taken>,
    bell: Arc<Bell>,
}

impl Ender {
    /// The process was asked to end; what waits is taken first.
    pub(super) fn end(&self) {
        // Without a receiver the loop is over anyway.
        let _ = self.lines.send(Taken::End(EndOf::Process));
        self.bell.ring();
    }
}

impl Input {
    /// Starts the thread that reads `source`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub(super) fn start(
        source: impl Read + Send + 'static,
        max_line: usize,
        bell: &Arc<Bell>,
    ) -> io::Result<(Self, Ender)> {
        let (sender, lines) = sync_channel(LINES_IN);
        let ender = Ender { lines: sender, bell: bell.clone() };
        let reader = ender.clone();
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut source = BufReader::with_capacity(READ_BYTES, source);
            loop {
                let taken = take_line(&mut source, max_line);
                let is_end = matches!(taken, Taken::End(_));
                if reader.lines.send(taken).is_err() {
                    return;
                }
                reader.bell.ring();
                if is_end {
                    return;
                }
            }
        })?;
        Ok((Input(lines), ender))
    }

    /// The next line; it comes with the bell. A client that does not read any more has no more to say either.
    pub(super) async fn next(&self, output: &Output) -> Taken {
        poll_fn(|_| match self.0.try_recv() {
            _ if output.is_gone() => Poll::Ready(Taken::End(EndOf::Client)),
            Ok(taken) => Poll::Ready(taken),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(Taken::End(EndOf::Input)),
        })
        .await
    }
}

/// Reads up to the next line feed; of a line over the limit nothing is kept.
fn take_line(source: &mut impl BufRead, max_line: usize) -> Taken {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let read = match source.fill_buf() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!(%error, "standard input failed");
                return Taken::End(EndOf::Input);
            }
        };
        if read.is_empty() {
            // The last line may do without its end; one that was cut short is no message and will be told so.
            return match (too_long, line.is_empty()) {
                (true, _) => Taken::TooLong,
                (false, false) => Taken::Line(line),
                (false, true) => Taken::End(EndOf::Input),
            };
        }
        let end = memchr::memchr(b'\n', read);
        let part = &read[..end.unwrap_or(read.len())];
        too_long |= line.len() + part.len() > max_line;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        source.consume(used);
        if end.is_some() {
            return if too_long { Taken::TooLong } else { Taken::Line(line) };
        }
    }
}

/// The client does not read any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientGone;

/// The way to the client.
pub(super) struct Output {
    lines: SyncSender<Vec<u8>>,
    gone: Arc<AtomicBool>,
    /// Nothing is ever sent here: it ends with the thread.
    over: Receiver<()>,
}

impl Output {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub(super) fn start(mut sink: impl Write + Send + 'static, bell: &Arc<Bell>) -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<Vec<u8>>(LINES_OUT);
        let (running, over) = sync_channel(0);
        let (bell, gone) = (bell.clone(), Arc::new(AtomicBool::new(false)));
        let is_gone = gone.clone();
        std::thread::Builder::new().name("stdout".into()).spawn(move || {
            while let Ok(line) = waiting.recv() {
                // There is room again, as long as this thread is not held up by the client.
                bell.ring();
                if let Err(error) = sink.write_all(&line).and_then(|()| sink.flush()) {
                    tracing::info!(%error, "the client does not read any more");
                    is_gone.store(true, Ordering::Release);
                    break;
                }
            }
            drop((waiting, running));
            bell.ring();
        })?;
        Ok(Output { lines, gone, over })
    }

    /// Writes a message as a line, as soon as there is room for it. It must hold no line feed.
    ///
    /// # Errors
    /// [`ClientGone`].
    pub(super) async fn line(&self, mut message: Vec<u8>) -> Result<(), ClientGone> {
        message.push(b'\n');
        let mut left = Some(message);
        poll_fn(|_| {
            let Some(line) = left.take() else { return Poll::Ready(Ok(())) };
            match self.lines.try_send(line) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Disconnected(_)) => Poll::Ready(Err(ClientGone)),
                Err(TrySendError::Full(line)) => {
                    left = Some(line);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Whether the client has gone, as far as writing has told; it comes with the bell.
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Nothing more is written: waits until the client has read what there is, is gone, or the time is over.
    pub(super) fn finish(self, limit: Duration) {
        drop(self.lines);
        if self.over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the client did not read the last messages");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], max_line: usize, capacity: usize) -> Vec<Taken> {
        let mut source = BufReader::with_capacity(capacity, text);
        let mut taken = Vec::new();
        loop {
            let next = take_line(&mut source, max_line);
            if matches!(next, Taken::End(_)) {
                return taken;
            }
            taken.push(next);
        }
    }

    #[test]
    fn lines_are_whole_however_they_are_read_and_long_ones_are_passed_over() {
        let text = b"one\n\n123456789\r\n1234567890x\ntwo\ncut sh";
        let line = |text: &str| Taken::Line(text.into());
        for capacity in 1..text.len() {
            let expected =
                [line("one"), line(""), line("123456789\r"), Taken::TooLong, line("two"), line("cut sh")];
            assert_eq!(lines(text, 10, capacity), expected, "{capacity}");
        }
    }
}
