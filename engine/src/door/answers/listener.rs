//! The stream on which a legacy server speaks by itself, as a door that opens it for its client knows it: owns when it is
//! opened again after it ended. Pure functions.

use std::time::Duration;

use super::position::Position;

/// The longest pause before a stream that ended is opened again: pauses double while nothing comes on it.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// The stream on which a legacy server speaks by itself (GET over HTTP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The session is not ready for one, or the server has none.
    #[default]
    Off,
    Up {
        /// The pause that preceded it.
        pause: Duration,
    },
    /// It ended, and is opened again after this pause.
    Pausing { pause: Duration },
}

impl Listener {
    pub(crate) fn up(self) -> Self {
        match self {
            Listener::Pausing { pause } => Listener::Up { pause },
            Listener::Off | Listener::Up { .. } => Listener::Up { pause: Duration::ZERO },
        }
    }

    /// After the stream's end; `status` is that of its head, `heard` how far it came.
    pub(crate) fn down(self, status: u16, heard: &Position) -> Self {
        let Listener::Up { pause } = self else { return self };
        match status {
            _ if (200..300).contains(&status) && heard.moved => Listener::Pausing { pause: heard.pause() },
            200..300 | 429 | 500 | 502..600 => {
                Listener::Pausing { pause: (pause * 2).max(heard.pause()).min(LAST_PAUSE) }
            }
            // 405: the server has no such stream.
            _ => Listener::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_opened_again_after_longer_and_longer_pauses() {
        let pause = |listener| match listener {
            Listener::Pausing { pause } => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        let nothing = Position::default();
        let mut listener = Listener::Off;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            listener = listener.up().down(200, &nothing);
            pauses.push(pause(listener));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(listener.up().down(200, &Position { moved: true, ..nothing.clone() })), 1);
        assert_eq!(pause(Listener::Off.up().down(503, &nothing)), 1);
        for status in [400, 401, 404, 405, 501] {
            assert_eq!(Listener::Off.up().down(status, &nothing), Listener::Off);
        }
    }
}
