//! Doors: own the step from a connection's plaintext to messages and back, one module per protocol. A door never knows an
//! upstream; what it makes goes to [`crate::exchange`].

pub(crate) mod http1;
pub(crate) mod reply;

use std::rc::Rc;

use crate::net::listener::DoorKind;
use crate::shard::Shard;
use crate::shard::conn::Conn;
use http1::Http1;

/// What plain HTTP on a TLS port is told.
pub(crate) const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS; the request was plain HTTP. Use https://.\n";

/// A connection's protocol state.
pub(crate) enum Door {
    Http1(Http1),
}

impl Door {
    pub(crate) fn new(kind: DoorKind) -> Self {
        match kind {
            DoorKind::Https | DoorKind::Mcpb => Door::Http1(Http1::default()),
        }
    }
}

/// The TLS handshake is done.
pub(crate) fn on_open(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    http1::on_open(shard, conn);
}

/// Plaintext arrived.
pub(crate) fn on_data(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    http1::on_data(shard, conn, data);
}

/// The client will send nothing more.
pub(crate) fn on_end(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    conn.close(shard);
}

/// The deadline that the door set has passed.
pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    http1::on_deadline(shard, conn);
}

/// The connection is closed: whatever is in flight for it ends.
pub(crate) fn on_closed(shard: &Rc<Shard>, conn: &Conn) {
    http1::on_closed(shard, conn);
}

/// The process drains.
pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    http1::on_drain(shard, conn);
}
