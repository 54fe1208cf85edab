//! The keys of a session in Redis: owns their form. Everything of one session has its id as hash tag, so in a cluster it is
//! in one slot.
//!
//! ```text
//! mcp:{<24 characters>}:session    the record; lives as long as the session
//! mcp:{<24 characters>}:ended      the session was ended; lives for ENDED_MS
//! ```

use crate::SessionId;
use crate::id::ID_CHARS;

/// What every session's keys begin with; the client is to follow changes below it.
pub const PREFIX: &[u8] = b"mcp:{";
const SESSION: &[u8] = b"}:session";
const ENDED: &[u8] = b"}:ended";

const SESSION_BYTES: usize = PREFIX.len() + ID_CHARS + SESSION.len();
const ENDED_BYTES: usize = PREFIX.len() + ID_CHARS + ENDED.len();

/// The key of a session's record.
pub(super) fn session(id: &SessionId) -> [u8; SESSION_BYTES] {
    join(id, SESSION)
}

/// The key of the mark that a session was ended.
pub(super) fn ended(id: &SessionId) -> [u8; ENDED_BYTES] {
    join(id, ENDED)
}

fn join<const N: usize>(id: &SessionId, suffix: &[u8]) -> [u8; N] {
    let mut key = [0; N];
    let (prefix, rest) = key.split_at_mut(PREFIX.len());
    let (text, end) = rest.split_at_mut(ID_CHARS);
    prefix.copy_from_slice(PREFIX);
    text.copy_from_slice(&id.text());
    end.copy_from_slice(suffix);
    key
}

/// The session whose record a key holds.
pub(super) fn parse_session(key: &[u8]) -> Option<SessionId> {
    let id = key.strip_prefix(PREFIX)?.strip_suffix(SESSION)?;
    (id.len() == ID_CHARS).then(|| SessionId::parse(id)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_session_and_no_other_key_does() {
        let id = SessionId::mint(7).unwrap();
        assert_eq!(parse_session(&session(&id)), Some(id));
        for key in [&ended(&id)[..], b"mcp:{}:session", b"mcp:{", b"", &session(&id)[1..]] {
            assert_eq!(parse_session(key), None);
        }
    }
}
