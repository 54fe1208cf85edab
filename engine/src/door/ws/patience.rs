//! How long a socket waits for what: owns its deadlines and which of them is due. A pure function of time.

use crate::shard::clock::{Millis, NEVER};

/// What a socket's time has come for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Due {
    #[default]
    Nothing,
    /// The message that has begun is late.
    Stalled,
    /// A stream of the server's own is to be opened again.
    Listen,
    /// The session must be used, or it ends while the socket lives.
    Touch,
    /// Nothing was asked for long.
    Idle,
    /// The client has been silent: is it there?
    Ping,
    /// It did not say.
    Silent,
}

/// A socket's deadlines; [`NEVER`] where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// When a message that has begun must be complete; what trickles in does not move it.
    pub(super) message_by: Millis,
    pub(super) listen_at: Millis,
    pub(super) touch_at: Millis,
    pub(super) idle_at: Millis,
    ping_at: Millis,
    /// A ping was sent, and nothing was received since.
    pinged: bool,
}

impl Patience {
    pub(super) fn new(ping_at: Millis) -> Self {
        Patience {
            message_by: NEVER,
            listen_at: NEVER,
            touch_at: NEVER,
            idle_at: NEVER,
            ping_at,
            pinged: false,
        }
    }

    /// Something came from the client.
    pub(super) fn on_heard(&mut self, ping_at: Millis) {
        self.pinged = false;
        self.ping_at = ping_at;
    }

    /// The client cannot be heard, because nothing is read from it: that is not its fault.
    pub(super) fn on_deaf(&mut self, ping_at: Millis) {
        self.on_heard(ping_at);
    }

    /// A ping was sent.
    pub(super) fn on_pinged(&mut self, answer_by: Millis) {
        self.pinged = true;
        self.ping_at = answer_by;
    }

    pub(super) fn due(&self, now: Millis) -> Due {
        let due = |at: Millis| at <= now;
        match self {
            _ if due(self.message_by) => Due::Stalled,
            _ if due(self.listen_at) => Due::Listen,
            _ if due(self.touch_at) => Due::Touch,
            _ if due(self.idle_at) => Due::Idle,
            _ if due(self.ping_at) && self.pinged => Due::Silent,
            _ if due(self.ping_at) => Due::Ping,
            _ => Due::Nothing,
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Millis {
        let all = [self.message_by, self.listen_at, self.touch_at, self.idle_at, self.ping_at];
        all.into_iter().fold(NEVER, Millis::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_answered_by_anything_or_the_socket_is_silent() {
        let mut patience = Patience::new(100);
        assert_eq!((patience.due(99), patience.due(100), patience.next()), (Due::Nothing, Due::Ping, 100));
        patience.on_pinged(200);
        assert_eq!((patience.due(199), patience.due(200)), (Due::Nothing, Due::Silent));
        patience.on_heard(250);
        assert_eq!((patience.due(249), patience.due(250)), (Due::Nothing, Due::Ping));
        patience.on_pinged(300);
        patience.on_deaf(400);
        assert_eq!(patience.due(400), Due::Ping);
    }

    #[test]
    fn the_gravest_comes_first_and_the_earliest_is_next() {
        let mut patience = Patience::new(50);
        patience.idle_at = 40;
        patience.touch_at = 30;
        patience.listen_at = 20;
        patience.message_by = 10;
        assert_eq!((patience.next(), patience.due(60)), (10, Due::Stalled));
        patience.message_by = NEVER;
        assert_eq!((patience.next(), patience.due(60)), (20, Due::Listen));
        patience.listen_at = NEVER;
        assert_eq!((patience.next(), patience.due(60)), (30, Due::Touch));
        patience.touch_at = NEVER;
        assert_eq!((patience.next(), patience.due(60)), (40, Due::Idle));
        patience.idle_at = NEVER;
        assert_eq!((patience.next(), patience.due(60)), (50, Due::Ping));
    }
}
