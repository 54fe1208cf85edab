//! Owns the question whether sessions are still there: one call in each, over HTTP, whatever door it was opened at. Unlike
//! the clients at work it asks until there is a clear answer.

use std::time::{Duration, Instant};

use serde_json::json;

use super::clients::Target;
use super::ledger::{Session, Way};
use super::servers::zone_of;
use crate::mcp::{post_in_session, request};
use crate::{Connection, Response};

/// How many ask at a time.
const ASKING: usize = 4;
/// How long one session is asked for a clear answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The code of an error that says that a session is unknown.
const UNKNOWN: &str = "-32001";
/// What all errors of the store say.
pub const STORE: &str = "session store";
const PAUSE: Duration = Duration::from_millis(50);

/// What becomes of sessions.
#[derive(Debug, Default, Clone)]
pub struct Found {
    /// Those that were answered.
    pub alive: usize,
    /// Those that are unknown to the gateway.
    pub lost: Vec<String>,
    /// Those whose calls the gateway refused or gave up to the end, with the last answer.
    pub stranded: Vec<String>,
}

/// Asks them all, from `network`. While servers are known to be away, `patient` is false: what is refused for another reason
/// than the store's is then not asked again.
#[must_use]
pub(super) fn ask_all(
    target: &Target,
    network: &super::Namespace,
    sessions: &[Session],
    patient: bool,
) -> Found {
    let share = sessions.len().div_ceil(ASKING).max(1);
    let parts: Vec<Found> = std::thread::scope(|scope| {
        let asking: Vec<_> = sessions
            .chunks(share)
            .map(|sessions| {
                scope.spawn(move || {
                    network.enter();
                    ask_some(target, sessions, patient)
                })
            })
            .collect();
        asking.into_iter().map(|each| each.join().expect("no panic")).collect()
    });
    parts.into_iter().fold(Found::default(), |mut all, part| {
        all.alive += part.alive;
        all.lost.extend(part.lost);
        all.stranded.extend(part.stranded);
        all
    })
}

fn ask_some(target: &Target, sessions: &[Session], patient: bool) -> Found {
    let mut connection = None;
    let mut found = Found::default();
    for session in sessions {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = match ask(target, &mut connection, session) {
                Ok(answer) if is_alive(&answer) => {
                    found.alive += 1;
                    break;
                }
                Ok(answer) => format!("{session:?}: {} {}", answer.status, answer.text()),
                Err(error) => format!("{session:?}: {error}"),
            };
            if told.contains(UNKNOWN) {
                found.lost.push(told);
                break;
            }
            if Instant::now() >= deadline || !patient && !told.contains(STORE) {
                found.stranded.push(told);
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    found
}

fn ask(target: &Target, connection: &mut Option<Connection>, session: &Session) -> std::io::Result<Response> {
    let mut asking = match connection.take() {
        Some(connection) => connection,
        None => Connection::tls(target.https, &target.tls)?,
    };
    let (path, tool) = match session.way {
        Way::One => ("/mcp/legacy", "where"),
        Way::All => ("/mcp", "legacy__where"),
    };
    let message = request(1, "tools/call", json!({"name": tool, "arguments": {}}));
    let answer = post_in_session(&mut asking, path, &session.id, &message)?;
    if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        *connection = Some(asking);
    }
    Ok(answer)
}

fn is_alive(answer: &Response) -> bool {
    answer.status == 200 && answer.try_json().is_ok_and(|json| zone_of(&json).is_some())
}
