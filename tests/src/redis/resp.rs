//! Owns the tests' own Redis client: one command at a time, blocking, RESP2. Written apart from the product's, so that a
//! mistake there is not made here, too. It bounds every step: a node that was stopped is an error, not a wait.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, a read or a write may take.
const IO_LIMIT: Duration = Duration::from_secs(2);
/// Longest bulk reply that is read, in bytes.
const MAX_BULK: usize = 64 << 20;
/// Longest array that is read.
const MAX_ITEMS: usize = 1 << 20;
/// Arrays within arrays that are read.
const MAX_DEPTH: usize = 8;

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A simple or a bulk string.
    Text(String),
    /// An error, with its code.
    Error(String),
    /// An integer.
    Integer(i64),
    /// An array.
    Array(Vec<Reply>),
    /// Nothing: a null of either kind.
    Null,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
}

impl Reply {
    /// The text of a string or an error, an integer in digits; empty for all else.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Error(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Array(_) | Self::Null => String::new(),
        }
    }

    /// The integer, also where it came as text.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        self.text().parse().ok()
    }

    /// The items of an array; none for all else.
    #[must_use]
    pub fn items(&self) -> &[Reply] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

impl Resp {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens, or not within the limit.
    pub fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, IO_LIMIT)?;
        stream.set_read_timeout(Some(IO_LIMIT))?;
        stream.set_write_timeout(Some(IO_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its reply; an error reply is one of the replies.
    ///
    /// # Errors
    /// When the connection fails, or what comes is no RESP2.
    pub fn ask(&mut self, args: &[&str]) -> Result<Reply> {
        let mut command = format!("*{}\r\n", args.len());
        for arg in args {
            command += &format!("${}\r\n{arg}\r\n", arg.len());
        }
        self.stream.get_mut().write_all(command.as_bytes())?;
        self.read(0)
    }

    fn read(&mut self, depth: usize) -> Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some(line) = line.strip_suffix("\r\n") else { return Err(malformed(&line)) };
        let (Some(kind), Some(rest)) = (line.get(..1), line.get(1..)) else { return Err(malformed(line)) };
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(rest.parse().map_err(|_| malformed(line))?),
            "$" | "*" if rest == "-1" => Reply::Null,
            "$" => Reply::Text(self.read_bulk(length(rest, MAX_BULK)?)?),
            "*" if depth < MAX_DEPTH => {
                let items = (0..length(rest, MAX_ITEMS)?).map(|_| self.read(depth + 1));
                Reply::Array(items.collect::<Result<_>>()?)
            }
            _ => return Err(malformed(line)),
        })
    }

    fn read_bulk(&mut self, length: usize) -> Result<String> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn length(text: &str, most: usize) -> Result<usize> {
    text.parse().ok().filter(|length| *length <= most).ok_or_else(|| malformed(text))
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("no RESP2: {what:?}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered(bytes: &'static [u8]) -> Result<Reply> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut asked = [0; b"*1\r\n$4\r\nPING\r\n".len()];
            stream.read_exact(&mut asked).expect("a command");
            assert_eq!(&asked, b"*1\r\n$4\r\nPING\r\n");
            stream.write_all(bytes).expect("taken");
        });
        let reply = Resp::connect(addr).expect("connected").ask(&["PING"]);
        served.join().expect("the command was right");
        reply
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        assert_eq!(answered(b"+PONG\r\n").expect("a reply"), Reply::Text("PONG".to_owned()));
        assert_eq!(answered(b"-ERR no\r\n").expect("a reply"), Reply::Error("ERR no".to_owned()));
        assert_eq!(answered(b"$-1\r\n").expect("a reply"), Reply::Null);
        let array = answered(b"*3\r\n:7\r\n$2\r\na\n\r\n*0\r\n").expect("a reply");
        let (seven, text, empty) = (Reply::Integer(7), Reply::Text("a\n".to_owned()), Reply::Array(vec![]));
        assert_eq!(array, Reply::Array(vec![seven, text, empty]));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in [&b"?\r\n"[..], b"$x\r\n", b":1\n", b"*2\r\n+a\r\n", b"$99999999999\r\n", b"\r\n"] {
            assert!(answered(bytes).is_err(), "{bytes:?}");
        }
    }
}
