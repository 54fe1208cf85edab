//! Owns the account of a run: every call with what it came to, every session that a client was told of, and the events by
//! which both are told apart in a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A way in, or a way of using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// HTTP/1.1 with connections that are kept.
    Http1,
    /// HTTP/1.1 with a connection for each call.
    Fresh,
    /// HTTP/1.1, a session opened for each call.
    Opener,
    /// HTTP/2.
    H2,
    /// WebSocket.
    Ws,
    /// HTTP with SSE.
    Sse,
    /// The binary protocol.
    Mcpb,
    /// Events on the streams that clients ask for with GET; each counts as a call.
    Events,
}

/// The servers that a session is with: its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `/mcp/legacy`.
    One,
    /// `/mcp`.
    All,
}

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose: the number of a client of its kind, callers and listeners apart.
    pub client: usize,
    /// Where it was made.
    pub door: Door,
    /// When.
    pub begun: Instant,
    /// How long its caller waited.
    pub took: Duration,
    /// How often it was sent again because the gateway said that it had not taken it.
    pub again: u32,
    /// The zone of the server that its session is bound to; `None` where any server will do.
    pub zone: Option<usize>,
    /// Why it failed, if it did.
    pub why: Option<String>,
    /// Whether its session was unknown.
    pub lost: bool,
}

/// A session that a client was told of.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Where it is asked.
    pub way: Way,
}

/// Something that befell the cluster.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// What.
    pub name: &'static str,
    /// When it began.
    pub begun: Instant,
    /// The zone that is away in it.
    pub away: Option<usize>,
    /// Sessions that were asked after it.
    pub asked: usize,
    /// Those of them whose own server cannot be reached for now.
    pub stranded: usize,
    /// Those of them that are unknown.
    pub lost: usize,
}

/// The account.
#[derive(Debug, Default)]
pub struct Ledger {
    calls: Mutex<Vec<Call>>,
    sessions: Mutex<Vec<Session>>,
    events: Mutex<Vec<Event>>,
}

impl Call {
    /// When it was over.
    #[must_use]
    pub fn ended(&self) -> Instant {
        self.begun + self.took
    }

    /// Whether its session is bound to a server in the zone that is away.
    #[must_use]
    pub fn is_stranded(&self, away: Option<usize>) -> bool {
        away.is_some() && self.zone == away
    }
}

impl Ledger {
    /// A call is over.
    pub fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }

    /// A client was told of a session.
    pub fn opened(&self, id: &str, way: Way) {
        lock(&self.sessions).push(Session { id: id.to_owned(), way });
    }

    /// All sessions that clients were told of until now.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        lock(&self.sessions).clone()
    }

    /// An event begins, and with it another row.
    pub fn begin(&self, name: &'static str) -> Instant {
        self.begin_without(name, None)
    }

    /// As [`Self::begin`], while this zone is away: calls of sessions that are bound to a server there do not count as
    /// failed, but as stranded.
    pub fn begin_without(&self, name: &'static str, away: Option<usize>) -> Instant {
        let begun = Instant::now();
        lock(&self.events).push(Event { name, begun, away, asked: 0, stranded: 0, lost: 0 });
        begun
    }

    /// What the asking of sessions came to in the event that is on.
    ///
    /// # Panics
    /// When none is.
    pub fn asked(&self, asked: usize, stranded: usize, lost: usize) {
        let mut events = lock(&self.events);
        let event = events.last_mut().expect("an event is on");
        (event.asked, event.stranded, event.lost) = (asked, stranded, lost);
    }

    /// Calls that were over at `since` or later, in the order in which they were.
    #[must_use]
    pub fn since(&self, since: Instant) -> Vec<Call> {
        lock(&self.calls).iter().filter(|call| call.ended() >= since).cloned().collect()
    }

    /// How many calls began at `since` or later and are over.
    #[must_use]
    pub fn begun_since(&self, since: Instant) -> usize {
        lock(&self.calls).iter().rev().filter(|call| call.begun >= since).count()
    }

    /// One row for each event: for each door the calls that were over in it, and how many of them failed.
    #[must_use]
    pub fn table(&self) -> String {
        let (events, calls) = (lock(&self.events), lock(&self.calls));
        let doors = [
            (Door::Http1, "HTTP/1.1"),
            (Door::Fresh, "new connections"),
            (Door::Opener, "new sessions"),
            (Door::H2, "HTTP/2"),
            (Door::Ws, "WebSocket"),
            (Door::Sse, "HTTP+SSE"),
            (Door::Mcpb, "MCPB"),
            (Door::Events, "events of streams"),
        ];
        let mut table = "| event |".to_owned();
        for (_, name) in doors {
            // Writing to a string cannot fail, here and below.
            let _ = write!(table, " {name} |");
        }
        table +=
            " stranded | sent again | slowest | last failure after | sessions asked, stranded, lost |\n|";
        table += &" --- |".repeat(doors.len() + 6);
        for (number, event) in events.iter().enumerate() {
            let until = events.get(number + 1).map(|next| next.begun);
            let is_in =
                |call: &&Call| call.ended() >= event.begun && until.is_none_or(|until| call.ended() < until);
            let of: Vec<&Call> = calls.iter().filter(is_in).collect();
            let fails = |call: &Call| call.why.is_some() && !call.is_stranded(event.away);
            let mut counts: BTreeMap<Door, (usize, usize)> = BTreeMap::new();
            for call in &of {
                let (all, failed) = counts.entry(call.door).or_default();
                *all += 1;
                *failed += usize::from(fails(call));
            }
            let _ = write!(table, "\n| {} |", event.name);
            for (door, _) in doors {
                let (all, failed) = counts.get(&door).copied().unwrap_or_default();
                let _ = write!(table, " {all}, {failed} |");
            }
            let stranded =
                of.iter().filter(|call| call.is_stranded(event.away) && call.why.is_some()).count();
            let again: u32 = of.iter().map(|call| call.again).sum();
            let calls = || of.iter().filter(|call| call.door != Door::Events);
            let slowest = calls().map(|call| call.took).max().unwrap_or_default();
            let last = calls().filter(|call| fails(call)).map(|call| call.ended() - event.begun).max();
            let last = last.map_or_else(|| "-".to_owned(), |last| format!("{:.1} s", last.as_secs_f64()));
            let _ = write!(
                table,
                " {stranded} | {again} | {:.2} s | {last} | {}, {}, {} |",
                slowest.as_secs_f64(),
                event.asked,
                event.stranded,
                event.lost
            );
        }
        table + "\n"
    }
}

/// Why calls failed, each reason once, with how often and where first.
#[must_use]
pub fn reasons(calls: &[&Call], begun: Instant) -> String {
    let mut reasons: BTreeMap<String, (usize, Duration, Duration)> = BTreeMap::new();
    for call in calls {
        let Some(why) = &call.why else { continue };
        // Ids differ; what is wrong does not.
        let why: String = why.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let at = call.ended().saturating_duration_since(begun);
        let entry = reasons.entry(format!("{:?}: {why}", call.door)).or_insert((0, at, at));
        *entry = (entry.0 + 1, entry.1.min(at), entry.2.max(at));
    }
    reasons.iter().fold(String::new(), |mut text, (why, (count, first, last))| {
        let _ = writeln!(text, "{count} from {first:.1?} to {last:.1?}: {why}");
        text
    })
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
