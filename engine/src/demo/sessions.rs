//! Sessions of legacy clients.
//!
//! Owns their ids and the revision that each was opened with; the oldest one gives way to a new one when all places are
//! taken, and its client is told 404 to open another. It never knows what a session is used for.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;

use super::legacy::Revision;
use super::lock;

/// Most sessions at a time; one costs about 150 bytes, so all of them about 2.5 MB.
const MAX_SESSIONS: usize = 16_384;

/// Random bytes in a session's id; the id is twice as long, in hexadecimal.
const ID_BYTES: usize = 16;

/// All open sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    revisions: HashMap<String, Revision>,
    /// Ids in the order of their making; an ended session's stays until its turn comes.
    order: VecDeque<String>,
}

impl Sessions {
    /// Opens a session and gives its id; fails when the system gives no random bytes.
    pub(super) fn open(&self, revision: Revision) -> io::Result<String> {
        let id = random_id()?;
        let mut table = lock(&self.table);
        if table.order.len() >= MAX_SESSIONS
            && let Some(oldest) = table.order.pop_front()
        {
            table.revisions.remove(&oldest);
        }
        table.order.push_back(id.clone());
        table.revisions.insert(id.clone(), revision);
        Ok(id)
    }

    /// The revision that the session was opened with; `None` if there is no such session.
    pub(super) fn revision(&self, id: &str) -> Option<Revision> {
        lock(&self.table).revisions.get(id).copied()
    }

    /// Ends a session; false if there was none.
    pub(super) fn end(&self, id: &str) -> bool {
        lock(&self.table).revisions.remove(id).is_some()
    }
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; ID_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_gives_way() {
        let sessions = Sessions::default();
        let first = sessions.open(Revision::V2025_06_18).unwrap();
        let second = sessions.open(Revision::V2025_11_25).unwrap();
        for _ in 2..MAX_SESSIONS {
            sessions.open(Revision::V2025_11_25).unwrap();
        }
        assert_eq!(sessions.revision(&first), Some(Revision::V2025_06_18));
        sessions.open(Revision::V2025_11_25).unwrap();
        assert_eq!(sessions.revision(&first), None);
        assert_eq!(sessions.revision(&second), Some(Revision::V2025_11_25));
        assert!(sessions.end(&second));
        assert!(!sessions.end(&second));
    }
}
