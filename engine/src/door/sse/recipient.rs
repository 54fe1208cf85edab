//! A stream of HTTP with SSE as the recipient of an answer. Never what becomes of the answer ([`MessageReply`]).

use std::borrow::Cow;
use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Scan};

use super::stream::Stream;
use crate::door::answers::{Ended, MessageReply, Recipient};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Gone;

pub(crate) type SseReply = MessageReply<OnStream>;

pub(crate) struct OnStream {
    stream: Rc<Stream>,
    /// The request is `initialize`.
    initializes: bool,
}

impl OnStream {
    pub(super) fn new(stream: &Rc<Stream>, initializes: bool) -> Self {
        OnStream { stream: stream.clone(), initializes }
    }
}

impl Recipient for OnStream {
    fn longest(&self, shard: &Shard) -> usize {
        shard.setup().config.server.max_body_bytes
    }

    fn server_name(&self, shard: &Shard) -> String {
        self.stream.scope.name(shard).to_string()
    }

    fn begin(&mut self, _fields: &[u8]) {}

    fn send(&self, shard: &Rc<Shard>, _kind: Kind, message: &[u8]) -> Result<(), Gone> {
        self.stream.send(shard, message)
    }

    async fn drained(&self) -> Result<(), Gone> {
        self.stream.drained().await
    }

    fn send_refusal(&self, shard: &Rc<Shard>, refusal: &Refusal, id: &[u8]) {
        self.stream.send_refusal(shard, refusal, id);
    }

    fn on_response<'a>(
        &mut self,
        _shard: &Rc<Shard>,
        _id: &[u8],
        response: Cow<'a, [u8]>,
        scan: &Scan,
    ) -> Cow<'a, [u8]> {
        if let Some(revision) = scan.result_protocol_version.filter(|_| self.initializes) {
            self.stream.on_initialized(&revision.decode(&response));
        }
        response
    }

    /// A stream is one session; it waits until it ends.
    fn is_waiting(&self, _flight: u32) -> bool {
        true
    }

    fn on_answered(self, shard: &Rc<Shard>, ended: Ended) {
        self.stream.on_answered(shard, ended);
    }
}
