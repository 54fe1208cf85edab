//! Messages on their way to a server of HTTP with SSE: owns the POST of each, their order, and what is said for one that the
//! server did not take. Never an answer: those come on the stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::{Kind, Payload, ScanLimits, scan};

use super::super::hub::Wire;
use super::super::{Closed, spawn};
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::tasks::TaskId;
use crate::upstream::Endpoint;
use crate::upstream::call::{self, Ask, CallError};

/// POSTs of one channel that wait for their answer. The next one leaves when the one before was answered, so that messages
/// keep their order; several are there only with a server that answers late.
const MAX_POSTS: usize = 64;
/// How long a POST holds up the next one: some servers answer it when they have answered the message, which may need the
/// client's response to a question of theirs first.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 4 << 10;

/// A channel's POSTs.
pub(super) struct Posts {
    endpoint: Rc<Endpoint>,
    /// Where they go.
    target: String,
    fields: Vec<u8>,
    wire: Wire,
    under_way: RefCell<Vec<(u64, TaskId)>>,
    next: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Posts {
    pub(super) fn new(endpoint: Rc<Endpoint>, target: String, fields: Vec<u8>, wire: &Wire) -> Rc<Self> {
        Rc::new(Posts {
            endpoint,
            target,
            fields,
            wire: wire.clone(),
            under_way: RefCell::default(),
            next: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    /// Waits until at most so many are under way.
    async fn at_most(&self, count: usize) {
        poll_fn(|cx| {
            if self.under_way.borrow().len() <= count {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn on_done(&self, number: u64) {
        self.under_way.borrow_mut().retain(|(other, _)| *other != number);
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// Sends what the hub has until the channel's end.
pub(super) async fn send_all(shard: Rc<Shard>, posts: Rc<Posts>) {
    while let Some(message) = posts.wire.outgoing().await {
        let number = posts.next.get();
        posts.next.set(number + 1);
        let own = posts.clone();
        let task = spawn(&shard, |shard| async move {
            post(&shard, &own, &message).await;
            own.on_done(number);
        });
        posts.under_way.borrow_mut().push((number, task));
        // Whatever ends the waiting, the next one may leave.
        let _ = shard.deadline(shard.core.clock.after(PATIENCE), pin!(posts.at_most(0))).await;
        let _ = shard.deadline(NEVER, pin!(posts.at_most(MAX_POSTS - 1))).await;
    }
    for (_, task) in posts.under_way.take() {
        shard.core.tasks.cancel(task);
    }
}

async fn post(shard: &Rc<Shard>, posts: &Posts, message: &[u8]) {
    let server = &shard.upstream(usize::from(posts.endpoint.server));
    let by = shard.core.clock.after(server.timeout);
    let mut head = format!("POST {} HTTP/1.1\r\n", posts.target).into_bytes();
    head.extend_from_slice(&posts.fields);
    let length = message.len();
    head.extend_from_slice(
        format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n").as_bytes(),
    );
    let ask = Ask { method: Method::Post, head: &head, body: message, repeatable: false, place_by: by };
    let mut answer = match call::ask(shard, &posts.endpoint, &ask, by).await {
        Ok(answer) => answer,
        // The stream may still bring its answer; who waits for it has a deadline of its own.
        Err(CallError::Timeout) => return,
        Err(error) => {
            tracing::debug!(server = &*server.name, ?error, "a message did not reach a server");
            return refuse(shard, &posts.wire, message, "the server could not be reached");
        }
    };
    let status = answer.status();
    let mut read = 0;
    while read < MAX_ANSWER_BYTES
        && let Ok(Ok(Some(piece))) = {
            let next = pin!(answer.next());
            shard.deadline(by, next).await
        }
    {
        read += piece.len();
    }
    match status {
        200..300 => {}
        404 | 410 => posts.wire.close(shard, Closed::Gone),
        status => {
            tracing::warn!(server = &*server.name, status, "a server refused a message");
            refuse(
                shard,
                &posts.wire,
                message,
                &format!("the server refused the message with status {status}"),
            );
        }
    }
}

/// Answers a request in the server's stead, which has not taken it.
fn refuse(shard: &Shard, wire: &Wire, message: &[u8], why: &str) {
    let Ok(Payload::Single(scan)) = scan(message, &ScanLimits::default()) else { return };
    if let Some(id) = scan.id.filter(|_| scan.kind == Kind::Request) {
        let mut response = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
        response.extend_from_slice(id.of(message));
        response
            .extend_from_slice(format!(",\"error\":{{\"code\":-32000,\"message\":\"{why}\"}}}}").as_bytes());
        // It is one.
        let _ = wire.on_message(shard, &response);
    }
}
