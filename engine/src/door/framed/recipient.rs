//! A connection of frames as the recipient of an answer: owns what an answer does to its connection's session. Never what
//! becomes of the answer ([`MessageReply`]).

use std::borrow::Cow;
use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_shard_store::id::ID_CHARS;

use super::answered::on_answered;
use super::flow::{on_asked, send_refusal};
use super::{FramedDoor, Opened, with_framed};
use crate::door::answers::{Ended, MessageReply, Recipient, field};
use crate::exchange::Scope;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};

pub(crate) type FramedReply<D> = MessageReply<OnConn<D>>;

pub(crate) struct OnConn<D: FramedDoor> {
    conn: Rc<Conn>,
    scope: Scope,
    /// The request is `initialize`: when it succeeds, its session is the connection's.
    login: Option<D::Login>,
    /// The session that the answer's head names: `initialize` opened it.
    session: Option<[u8; ID_CHARS]>,
}

impl<D: FramedDoor> OnConn<D> {
    pub(super) fn new(conn: &Rc<Conn>, scope: Scope, login: Option<D::Login>) -> Self {
        OnConn { conn: conn.clone(), scope, login, session: None }
    }
}

impl<D: FramedDoor> Recipient for OnConn<D> {
    fn longest(&self, shard: &Shard) -> usize {
        D::longest(shard)
    }

    fn server_name(&self, shard: &Shard) -> String {
        self.scope.name(shard).to_string()
    }

    fn begin(&mut self, fields: &[u8]) {
        self.session = field(fields, "mcp-session-id").and_then(|id| id.try_into().ok());
    }

    fn send(&self, shard: &Rc<Shard>, kind: Kind, message: &[u8]) -> Result<(), Gone> {
        D::send(shard, &self.conn, kind, message)?;
        if kind == Kind::Request {
            on_asked::<D>(shard, &self.conn);
        }
        Ok(())
    }

    async fn drained(&self) -> Result<(), Gone> {
        self.conn.drained().await
    }

    fn send_refusal(&self, shard: &Rc<Shard>, refusal: &Refusal, id: &[u8]) {
        // A client that is gone needs no answer; the connection has noticed.
        let _ = send_refusal::<D>(shard, &self.conn, refusal, Some(id));
    }

    fn on_response<'a>(
        &mut self,
        shard: &Rc<Shard>,
        id: &[u8],
        response: Cow<'a, [u8]>,
        scan: &Scan,
    ) -> Cow<'a, [u8]> {
        let session = self.session.filter(|_| !scan.is_error);
        let revision = scan.result_protocol_version.map(|revision| revision.decode(&response));
        let (Some(login), Some(session), Some(revision), Some(result)) =
            (self.login.take(), session, revision, scan.result)
        else {
            return response;
        };
        let revision = revision.as_ref().into();
        let opened = Opened { request: id, response: &response, result, session, revision };
        Cow::Owned(D::log_in(shard, &self.conn, login, opened))
    }

    /// A later `initialize` may have opened another session, to which the stream does not belong.
    fn is_waiting(&self, flight: u32) -> bool {
        with_framed::<D, _>(&self.conn, |framed| {
            let of = framed.flights.iter().find(|found| found.number == flight);
            of.is_some_and(|found| found.session_number == framed.session_number)
        })
    }

    fn on_answered(self, shard: &Rc<Shard>, ended: Ended) {
        on_answered::<D>(shard, &self.conn, ended);
    }
}
