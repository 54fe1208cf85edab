//! An answer over HTTP/1.1: owns status line, headers, framing and CORS of what goes back on one request. Never decides what
//! the answer is.

use std::rc::Rc;

use mcp_protocol::http1::{LAST_CHUNK, Method, RequestHead, write_chunk_header};
use mcp_protocol::sse::KEEP_ALIVE;

use super::http_any::{self, Whole};
use super::http1;
use crate::policy::admission;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};

/// How an answer's length is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    /// Chunked, or until the connection closes for HTTP/1.0.
    Stream,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No head yet.
    Nothing,
    Sized,
    Chunked,
    /// HTTP/1.0: the end of the connection is the end of the body.
    UntilClose,
    Done,
}

pub(crate) struct Http1Reply {
    shard: Rc<Shard>,
    conn: Rc<Conn>,
    http10: bool,
    keep_alive: bool,
    /// The answer asks the client to come back later.
    shed: bool,
    head_only: bool,
    /// The allowed cross-origin page that asks.
    origin: Option<Box<[u8]>>,
    progress: Progress,
    /// The head, kept back so that it leaves with the first bytes of the body.
    head: Vec<u8>,
    status: u16,
}

impl Http1Reply {
    pub(crate) fn new(shard: &Rc<Shard>, conn: &Rc<Conn>, head: &RequestHead, bytes: &[u8]) -> Self {
        let origin = head.origin.and_then(|_| admission::allowed_origin(&shard.setup(), head, bytes));
        Http1Reply {
            http10: head.http10,
            keep_alive: head.keep_alive,
            head_only: head.method == Method::Head,
            origin: origin.map(Into::into),
            ..Http1Reply::bare(shard, conn)
        }
    }

    /// For a request whose head could not be read.
    pub(crate) fn bare(shard: &Rc<Shard>, conn: &Rc<Conn>) -> Self {
        Http1Reply {
            shard: shard.clone(),
            conn: conn.clone(),
            http10: false,
            keep_alive: false,
            shed: false,
            head_only: false,
            origin: None,
            progress: Progress::Nothing,
            head: shard.take_buffer(),
            status: 0,
        }
    }

    /// The connection does not outlive this answer.
    pub(crate) fn close_after(&mut self) {
        self.keep_alive = false;
    }

    /// Whether the connection outlives this answer, as far as is known.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// The status sent; 0 before the head.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Starts an answer; `fields` are header lines, each with its CR LF. Nothing leaves before the first data.
    pub(crate) fn begin(&mut self, status: u16, fields: &[u8], framing: Framing) {
        self.status = status;
        self.keep_alive &= self.shard.keeps_connections();
        let head = &mut self.head;
        head.clear();
        let mut digits = itoa::Buffer::new();
        head.extend_from_slice(b"HTTP/1.1 ");
        head.extend_from_slice(digits.format(status).as_bytes());
        head.push(b' ');
        head.extend_from_slice(reason(status).as_bytes());
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(fields);
        self.progress = match framing {
            Framing::Length(length) => {
                if status != 204 {
                    head.extend_from_slice(b"Content-Length: ");
                    head.extend_from_slice(digits.format(length).as_bytes());
                    head.extend_from_slice(b"\r\n");
                }
                Progress::Sized
            }
            Framing::Stream if self.http10 => {
                self.keep_alive = false;
                Progress::UntilClose
            }
            Framing::Stream => {
                head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Progress::Chunked
            }
        };
        if let Some(origin) = &self.origin {
            http_any::write_cors(head, origin);
        }
        if !self.keep_alive {
            head.extend_from_slice(b"Connection: close\r\n");
        } else if self.http10 {
            head.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        head.extend_from_slice(b"\r\n");
    }

    /// Sends the head now, for a stream whose first event may be long in coming.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) fn flush_head(&mut self) -> Result<(), Gone> {
        if self.head.is_empty() {
            return Ok(());
        }
        let sent = self.conn.send(&self.shard, &[&self.head]);
        self.drop_head();
        sent
    }

    /// Sends an event of a stream that several exchanges share.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) fn push(&mut self, event: &[u8]) -> Result<(), Gone> {
        self.send_data(event)
    }

    /// A comment for a client that is not behind in its reading: such a one needs none.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) fn comment(&mut self) -> Result<(), Gone> {
        if self.conn.is_congested() { Ok(()) } else { self.send_data(KEEP_ALIVE) }
    }

    /// The head has left; a stream may go on for long without needing its memory.
    fn drop_head(&mut self) {
        self.head.clear();
        if matches!(self.progress, Progress::Chunked | Progress::UntilClose) {
            self.shard.give_buffer(std::mem::take(&mut self.head));
        }
    }

    /// Sends a piece of the body, and waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.send_data(data)?;
        self.drained().await
    }

    /// Waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        self.conn.drained().await
    }

    /// Sends the last piece of the body and its end, as one record.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) fn last(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.progress != Progress::Chunked || self.head_only || data.is_empty() {
            self.send_data(data)?;
            self.end();
            return Ok(());
        }
        self.shard.with_scratch(|size| {
            write_chunk_header(size, data.len());
            self.conn.send(&self.shard, &[&self.head, size, data, b"\r\n", LAST_CHUNK])
        })?;
        self.head.clear();
        self.progress = Progress::Done;
        Ok(())
    }

    fn send_data(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.head_only || data.is_empty() {
            return self.flush_head();
        }
        let sent = match self.progress {
            Progress::Chunked => self.shard.with_scratch(|size| {
                write_chunk_header(size, data.len());
                self.conn.send(&self.shard, &[&self.head, size, data, b"\r\n"])
            }),
            Progress::Sized | Progress::UntilClose => self.conn.send(&self.shard, &[&self.head, data]),
            Progress::Nothing | Progress::Done => Ok(()),
        };
        self.drop_head();
        sent
    }

    /// A whole answer.
    pub(crate) fn full(&mut self, status: u16, fields: &[u8], body: &[u8]) {
        self.begin(status, fields, Framing::Length(body.len() as u64));
        // A client that is gone needs no answer; the connection has noticed.
        let _ = self.send_data(body);
        let _ = self.flush_head();
        self.progress = Progress::Done;
    }

    /// The body is complete.
    pub(crate) fn end(&mut self) {
        let sent = match self.progress {
            Progress::Chunked => self.conn.send(&self.shard, &[&self.head, LAST_CHUNK]),
            Progress::Sized | Progress::UntilClose => self.flush_head(),
            Progress::Nothing | Progress::Done => Ok(()),
        };
        self.head.clear();
        if sent.is_ok() {
            self.progress = Progress::Done;
        }
    }

    /// The gateway's own error; `id` is the request's raw id.
    pub(crate) fn refuse(&mut self, refusal: &Refusal, id: Option<&[u8]>) {
        if let Some(why) = refusal.shed() {
            self.shard.metrics.shed(why);
            self.shed = true;
        }
        self.whole(&http_any::refusal(refusal, id));
    }

    /// An answer of the gateway's own; whether the connection goes on.
    pub(crate) fn whole(&mut self, answer: &Whole) -> bool {
        self.full(answer.status, &answer.fields, &answer.body);
        self.keep_alive
    }

    /// Whether an allowed page of another origin asks.
    pub(crate) fn has_allowed_origin(&self) -> bool {
        self.origin.is_some()
    }

    /// The exchange is over: the connection takes its next request as soon as the client has taken enough of the answers
    /// so far, or closes when this one was not completed.
    pub(crate) async fn done(mut self) {
        self.shard.give_buffer(std::mem::take(&mut self.head));
        if self.progress == Progress::Done && self.conn.drained().await.is_ok() {
            if self.shed && self.keep_alive && !self.shard.is_draining() {
                return http1::hold(&self.shard, &self.conn);
            }
            http1::on_answered(&self.shard, &self.conn, self.keep_alive);
        } else {
            self.conn.close(&self.shard);
        }
    }
}

/// The reason phrase of each status that we send ourselves or pass on often.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
