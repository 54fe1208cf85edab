//! What follows from an exchange's end: owns the flight's end and what waited for it. Never the answer itself.

use std::rc::Rc;

use super::state::Framed;
use super::{FramedDoor, flow, messages, with_framed};
use crate::door::answers::{Ended, Listener};
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::Conn;

/// What is known of a message whose exchange is over.
#[derive(Default)]
pub(crate) struct Answered {
    /// It was a stream without an end of its own.
    pub(crate) endless: bool,
    /// The connection's session is no more.
    pub(crate) session_ended: bool,
    /// A legacy server may speak by itself from now on.
    opens_stream: bool,
    /// The raw id of the legacy request that the message cancelled.
    cancelled: Option<Rc<[u8]>>,
}

/// An exchange has sent its answer, or has none to send.
pub(super) fn on_answered<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>, ended: Ended) {
    if let Some(resume) = ended.resume {
        return messages::resume::<D>(shard, conn, ended.flight, &ended.position, resume);
    }
    let answered = with_framed::<D, _>(conn, |framed| {
        if framed.barrier == Some(ended.flight) {
            framed.barrier = None;
        }
        let place = framed.flights.iter().position(|flight| flight.number == ended.flight)?;
        let flight = framed.flights.swap_remove(place);
        if flight.is_listener() {
            framed.listener = framed.listener.down(ended.status, &ended.position);
            framed.heard = ended.position;
            framed.patience.listen_at = match framed.listener {
                Listener::Pausing { pause } if !framed.leaving => shard.core.clock.after(pause),
                Listener::Pausing { .. } | Listener::Off | Listener::Up { .. } => NEVER,
            };
        }
        let accepted = (200..300).contains(&ended.status);
        Some(Answered {
            endless: flight.endless,
            opens_stream: flight.opens_stream && accepted && framed.listener == Listener::Off,
            session_ended: ended.session_ended && flight.session_number == framed.session_number,
            cancelled: flight.cancels,
        })
    });
    let answered = answered.unwrap_or_default();
    if !D::on_answered(shard, conn, &answered) {
        return;
    }
    if let Some(id) = answered.cancelled {
        messages::cancel_legacy::<D>(shard, conn, &id);
    }
    with_framed::<D, _>(conn, Framed::on_flight_ended);
    if answered.opens_stream {
        messages::listen::<D>(shard, conn);
    }
    flow::go_on::<D>(shard, conn);
}
