//! An answer over HTTP/2: owns what becomes of status, header lines and body in frames, and CORS. Never decides what the
//! answer is, never waits for a window by itself.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use h2::Reason;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use mcp_protocol::http1::{Method, RequestHead};
use mcp_protocol::sse::KEEP_ALIVE;

use super::answer::Answer;
use crate::door::http_any::{self, Whole};
use crate::door::reply::Framing;
use crate::policy::admission;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};
use crate::shard::tasks::is_left;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No head yet.
    Nothing,
    Body,
    Done,
}

pub(crate) struct H2Reply {
    shard: Rc<Shard>,
    conn: Rc<Conn>,
    /// The stream's number.
    stream: u32,
    answer: Rc<Answer>,
    head_only: bool,
    /// The allowed cross-origin page that asks.
    origin: Option<Box<[u8]>>,
    progress: Progress,
    /// The head, kept back so that it leaves with the first bytes of the body.
    head: Option<Response<()>>,
    status: u16,
    /// The answer asks the client to come back later.
    shed: bool,
}

impl H2Reply {
    /// For a request whose head could not be read.
    pub(super) fn bare(shard: &Rc<Shard>, conn: &Rc<Conn>, stream: u32, answer: &Rc<Answer>) -> Self {
        H2Reply {
            shard: shard.clone(),
            conn: conn.clone(),
            stream,
            answer: answer.clone(),
            head_only: false,
            origin: None,
            progress: Progress::Nothing,
            head: None,
            status: 0,
            shed: false,
        }
    }

    /// Takes from the request's head what the answer depends on.
    pub(super) fn for_head(mut self, head: &RequestHead, bytes: &[u8]) -> Self {
        self.head_only = head.method == Method::Head;
        self.origin = admission::allowed_origin(&self.shard.setup(), head, bytes).map(Into::into);
        self
    }

    pub(super) fn has_allowed_origin(&self) -> bool {
        self.origin.is_some()
    }

    /// Whether the answer asked the client to come back later.
    pub(super) fn is_shed(&self) -> bool {
        self.shed
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn begin(&mut self, status: u16, fields: &[u8], framing: Framing) {
        self.status = status;
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        write_fields(&mut head, fields);
        if let Framing::Length(length) = framing
            && status != 204
        {
            head.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        if let Some(origin) = &self.origin {
            self.shard.with_scratch(|lines| {
                http_any::write_cors(lines, origin);
                write_fields(&mut head, lines);
            });
        }
        self.head = Some(head);
        self.progress = Progress::Body;
    }

    pub(crate) fn flush_head(&mut self) -> Result<(), Gone> {
        self.send_head(false)
    }

    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.send(data, false)?;
        self.drained().await
    }

    /// Sends an event of a stream that several exchanges share.
    pub(crate) fn push(&mut self, event: &[u8]) -> Result<(), Gone> {
        self.send(event, false)
    }

    /// A comment for a client that is not behind in its reading: such a one needs none.
    pub(crate) fn comment(&mut self) -> Result<(), Gone> {
        if self.answer.is_congested() { Ok(()) } else { self.send(KEEP_ALIVE, false) }
    }

    /// [`Gone`] only to an exchange that goes on without its client; any other is dropped.
    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        poll_fn(|cx| if is_left() { Poll::Ready(Err(Gone)) } else { self.answer.poll_drained(cx).map(Ok) })
            .await
    }

    pub(crate) fn last(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.send(data, true)
    }

    pub(crate) fn full(&mut self, status: u16, fields: &[u8], body: &[u8]) {
        self.begin(status, fields, Framing::Length(body.len() as u64));
        // A client that is gone needs no answer; the door has noticed.
        let _ = self.send(body, true);
    }

    /// An answer of the gateway's own.
    pub(super) fn whole(&mut self, answer: &Whole) {
        self.full(answer.status, &answer.fields, &answer.body);
    }

    pub(crate) fn end(&mut self) {
        let _ = self.send(b"", true);
    }

    pub(crate) fn refuse(&mut self, refusal: &Refusal, id: Option<&[u8]>) {
        if let Some(why) = refusal.shed() {
            self.shard.metrics.shed(why);
            self.shed = true;
        }
        self.whole(&http_any::refusal(refusal, id));
    }

    /// The exchange is over; an answer that is not complete ends as an error, so that nobody takes it for a whole one.
    pub(crate) fn done(self) {
        if self.progress != Progress::Done {
            self.answer.reset(Reason::INTERNAL_ERROR);
        }
        super::on_answered(&self.shard, &self.conn, self.stream, self.shed);
    }

    fn send_head(&mut self, ends: bool) -> Result<(), Gone> {
        let Some(head) = self.head.take() else { return Ok(()) };
        super::flush_later(&self.shard, &self.conn);
        self.answer.send_head(head, ends)
    }

    fn send(&mut self, data: &[u8], ends: bool) -> Result<(), Gone> {
        if self.progress != Progress::Body {
            return Ok(());
        }
        let data = if self.head_only { b"" } else { data };
        let head_is_all = self.head.is_some() && data.is_empty() && ends;
        self.send_head(head_is_all)?;
        if !head_is_all && (ends || !data.is_empty()) {
            super::flush_later(&self.shard, &self.conn);
            self.answer.send_data(data, ends)?;
        }
        if ends {
            self.progress = Progress::Done;
        }
        Ok(())
    }
}

/// Adds header lines to a head; what no HTTP/2 field can say stays out.
fn write_fields(head: &mut Response<()>, lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        match (name, value) {
            // They are about an HTTP/1.1 connection (RFC 9113, section 8.2.2).
            (Ok(http::header::CONNECTION | http::header::UPGRADE), _) => {}
            (Ok(name), Ok(value)) => {
                head.headers_mut().append(name, value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields_in_lower_case_and_repeat() {
        let mut head = Response::new(());
        write_fields(
            &mut head,
            b"Content-Type: text/event-stream\r\nUpgrade: websocket\r\nX-A: 1\r\nx-a:2 \r\nBad Name: x\r\n\r\n",
        );
        let fields: Vec<_> =
            head.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 3] =
            [("content-type", b"text/event-stream"), ("x-a", b"1"), ("x-a", b"2")];
        assert_eq!(fields, expected);
    }
}
