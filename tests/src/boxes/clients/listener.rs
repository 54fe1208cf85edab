//! Owns a client that listens on its session's own stream (GET), over which its server tells numbered events: when the stream
//! ends or breaks, it asks for another one behind the last event that it had. An event that never came is a failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{AGAIN, Target};
use crate::boxes::ledger::{Call, Door, Ledger, Way};
use crate::http::EventStream;
use crate::mcp::{LEGACY, in_session, initialize};
use crate::{Connection, eventually};

const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Listens until it is stopped.
pub(super) fn listen(client: usize, target: &Target, ledger: &Ledger, stopped: &AtomicBool) {
    let session = eventually("the listener's session", OPEN_LIMIT, || open(target));
    ledger.opened(&session, Way::One);
    let mut last: Option<u64> = None;
    let mut waiting = Instant::now();
    while !stopped.load(Ordering::SeqCst) {
        let Some(mut events) = subscribe(target, &session, last) else {
            std::thread::sleep(AGAIN);
            continue;
        };
        while let Ok(Some(event)) = events.next_event() {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            let Some(id) = event.id.and_then(|id| id.parse::<u64>().ok()) else { continue };
            let why = match last {
                Some(last) if id != last + 1 => Some(format!("event {id} after {last}")),
                _ => None,
            };
            let (door, took) = (Door::Events, waiting.elapsed());
            ledger.note(Call { client, door, begun: waiting, took, again: 0, zone: None, why, lost: false });
            (last, waiting) = (Some(id), Instant::now());
        }
    }
}

fn open(target: &Target) -> Option<String> {
    let mut connection = Connection::tls(target.https, &target.tls).ok()?;
    let answer = connection.post("/mcp/legacy", &[], &initialize(LEGACY)).ok()?;
    let session = answer.header("mcp-session-id")?.to_owned();
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let told = connection.post("/mcp/legacy", &in_session(&session, LEGACY), &initialized).ok()?;
    (told.status == 202).then_some(session)
}

fn subscribe(target: &Target, session: &str, last: Option<u64>) -> Option<EventStream> {
    let mut connection = Connection::tls(target.https, &target.tls).ok()?;
    let mut headers = in_session(session, LEGACY).to_vec();
    headers.push(("accept", "text/event-stream"));
    let last = last.map(|last| last.to_string());
    headers.extend(last.as_deref().map(|last| ("last-event-id", last)));
    connection.send_request("GET", "/mcp/legacy", &headers, b"").ok()?;
    connection.into_events().ok()
}
