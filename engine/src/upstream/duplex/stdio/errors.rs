//! What a process writes to its standard error: owns bringing it into the log, line by line, and its bounds. It says nothing
//! of the server's health: the specification has servers log there.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use crate::net::socket::Socket;
use crate::shard::Shard;

/// Bytes read at a time, and of a line that is logged; what is longer is cut.
const READ_BYTES: usize = 8 << 10;
const MAX_LINE_BYTES: usize = 8 << 10;
/// In each window a process may log so many lines; further ones are counted.
const WINDOW: Duration = Duration::from_secs(1);
const LINES_PER_WINDOW: usize = 100;
/// Bytes read in a window; then the process waits for its log to be read.
const BYTES_PER_WINDOW: usize = 256 << 10;

/// Logs until the process closes its standard error.
pub(super) async fn log(shard: Rc<Shard>, server: Rc<str>, process: u64, errors: Socket) {
    let mut lines = Bounded::default();
    let mut read_bytes = 0;
    let mut window_ends = shard.core.clock.after(WINDOW);
    loop {
        let mut chunk = Vec::new();
        let read = poll_fn(|cx| {
            let mut scratch = shard.receive_scratch.borrow_mut();
            let read = ready!(errors.poll_recv(cx, &mut scratch[..READ_BYTES]));
            Poll::Ready(read.inspect(|&read| chunk.extend_from_slice(&scratch[..read])))
        });
        match read.await {
            Ok(0) | Err(_) => break,
            Ok(read) => read_bytes += read,
        }
        if shard.core.clock.now() >= window_ends {
            lines.next_window(&server, process);
            read_bytes = 0;
            window_ends = shard.core.clock.after(WINDOW);
        }
        lines.push(&chunk, |line| tracing::info!(server = &*server, process, line, "stderr"));
        if read_bytes >= BYTES_PER_WINDOW {
            // The wait is over when its time is.
            let _ = shard.deadline(window_ends, pin!(pending::<()>())).await;
        }
    }
    lines.end(|line| tracing::info!(server = &*server, process, line, "stderr"));
    lines.next_window(&server, process);
}

/// Lines of bounded length and number.
#[derive(Default)]
struct Bounded {
    line: Vec<u8>,
    is_cut: bool,
    logged: usize,
    left_out: usize,
}

impl Bounded {
    fn push(&mut self, bytes: &[u8], mut log: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = MAX_LINE_BYTES - self.line.len();
            self.is_cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                self.end(&mut log);
            }
        }
    }

    /// What there is of a line is all of it.
    fn end(&mut self, mut log: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        if text.is_empty() {
            return;
        }
        if self.logged >= LINES_PER_WINDOW {
            self.left_out += 1;
            return;
        }
        self.logged += 1;
        if is_cut { log(&format!("{text}…")) } else { log(&text) }
    }

    fn next_window(&mut self, server: &str, process: u64) {
        self.logged = 0;
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            tracing::warn!(
                server,
                process,
                left_out,
                "a server writes more to its standard error than is logged"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_too_many_are_counted() {
        let mut lines = Bounded::default();
        let mut logged = Vec::new();
        lines.push(b"one\r\ntw", |line| logged.push(line.to_owned()));
        lines.push(b"o\n\n", |line| logged.push(line.to_owned()));
        assert_eq!(logged, ["one", "two"]);
        lines.push(&vec![b'x'; 3 * MAX_LINE_BYTES], |_| panic!("no line has ended"));
        lines.push(b"\n", |line| logged.push(line.to_owned()));
        assert_eq!(logged[2].chars().count(), MAX_LINE_BYTES + 1);
        for _ in 0..LINES_PER_WINDOW {
            lines.push(b"x\n", |line| logged.push(line.to_owned()));
        }
        assert_eq!((logged.len(), lines.left_out), (LINES_PER_WINDOW, 3));
        lines.next_window("server", 1);
        lines.push(b"again\nlast", |line| logged.push(line.to_owned()));
        lines.end(|line| logged.push(line.to_owned()));
        assert_eq!(&logged[LINES_PER_WINDOW..], ["again", "last"]);
        assert_eq!(lines.left_out, 0);
    }
}
