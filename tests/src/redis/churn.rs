//! Owns clients that open, use and end sessions at a given rate through both of two gateways, whatever befalls the store, and
//! that keep account of what each was told. They do not retry: what they count is what a single request came to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pods::{Answer, Pods, end, open, ping};
use crate::{Connection, eventually};

/// Client threads; each has one connection to each gateway.
const WORKERS: u32 = 64;
/// One session of so many is not ended, to be looked for in the end.
const KEPT_OF: usize = 4;
/// Wrong answers that are kept for the message.
const MAX_WRONG: usize = 20;

/// Clients at work.
#[derive(Debug)]
pub struct Churn {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What the clients were told.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Sessions that were told to exist.
    pub opened: usize,
    /// Those of them that nobody asked to end.
    pub alive: Vec<String>,
    /// Those that were told to have ended.
    pub ended: Vec<String>,
    /// Requests that were answered with a retryable error.
    pub retryable: usize,
    /// Requests in all.
    pub requests: usize,
    /// The longest that a request of each kind took: `open`, `use`, `end`.
    pub slowest: BTreeMap<&'static str, Duration>,
    /// Answers that no client may see, the first few.
    pub wrong: Vec<String>,
    /// When each request was answered, and whether that was a success.
    log: Vec<(Instant, bool)>,
}

#[derive(Debug, Default)]
struct Shared {
    account: Mutex<Account>,
    stopped: AtomicBool,
}

impl Churn {
    /// Has `rate` sessions a second opened, half of them at either gateway, used at both and, but for one in four, ended; an older one
    /// is used each time, too.
    /// A client that waits for an answer opens none meanwhile.
    ///
    /// # Panics
    /// When a gateway takes no connections.
    #[must_use]
    pub fn start(pods: &Pods, rate: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let every = Duration::from_secs(1) * WORKERS / rate;
        let workers = (0..WORKERS).map(|number| {
            let (connections, shared) = (pods.connect(), shared.clone());
            let first = Instant::now() + every * number / WORKERS;
            std::thread::spawn(move || Worker { connections, shared, alive: Vec::new() }.run(first, every))
        });
        let workers = workers.collect();
        Self { shared, workers }
    }

    /// Waits until `count` more sessions were opened.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub fn opened_more(&self, count: usize, limit: Duration) {
        let before = lock(&self.shared.account).opened;
        eventually("sessions are opened", limit, || {
            (lock(&self.shared.account).opened >= before + count).then_some(())
        });
    }

    /// Waits until `count` requests in a row, over all clients, have succeeded after `since`, and returns how long after
    /// `since` the last of them did.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    #[must_use]
    pub fn recovered(&self, since: Instant, count: usize, limit: Duration) -> Duration {
        eventually("requests succeed again", limit, || lock(&self.shared.account).in_a_row(since, count))
    }

    /// Ends the clients' work and returns their account.
    ///
    /// # Panics
    /// When a client did.
    #[must_use]
    pub fn finish(mut self) -> Account {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.join().expect("no client panics");
        }
        lock(&self.shared.account).clone()
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        // The clients of a failed test see their connections break and this flag, and end.
        self.shared.stopped.store(true, Ordering::SeqCst);
    }
}

impl Account {
    fn in_a_row(&self, since: Instant, count: usize) -> Option<Duration> {
        let mut run = 0;
        for (at, succeeded) in self.log.iter().filter(|(at, _)| *at >= since) {
            run = if *succeeded { run + 1 } else { 0 };
            if run == count {
                return Some(*at - since);
            }
        }
        None
    }

    fn note(&mut self, what: &str, session: &str, answer: Answer) {
        let text = match answer {
            Answer::Done | Answer::Retryable => return,
            Answer::Unknown => "404".to_owned(),
            Answer::Wrong(text) => text,
        };
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(format!("{what} {session}: {text}"));
        }
    }
}

struct Worker {
    connections: [Connection; 2],
    shared: Arc<Shared>,
    /// The sessions that this client did not end.
    alive: Vec<String>,
}

impl Worker {
    fn run(mut self, first: Instant, every: Duration) {
        let (mut due, mut number) = (first, 0);
        while !self.shared.stopped.load(Ordering::SeqCst) {
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            // Sessions that were due while this client waited for an answer are not opened after all.
            due = (due + every).max(Instant::now());
            number += 1;
            if let Err(error) = self.session(number) {
                if !self.shared.stopped.load(Ordering::SeqCst) {
                    lock(&self.shared.account).wrong.push(format!("a connection broke: {error}"));
                }
                return;
            }
        }
    }

    /// One session's life.
    fn session(&mut self, number: usize) -> std::io::Result<()> {
        let opener = number / KEPT_OF % 2;
        // An old session, which may be of a slot that fails now, at either gateway in turn.
        if let Some(old) = self.alive.get(number % self.alive.len().max(1)).cloned() {
            let answer = self.ask("use", number % 2, &old, ping)?;
            lock(&self.shared.account).note("use of old", &old, answer);
        }
        let (answer, id) = self.timed("open", opener, |connection| {
            let (answer, id) = open(connection)?;
            Ok((answer.clone(), (answer, id)))
        })?;
        let id = match (answer, id) {
            (Answer::Done, Some(id)) => id,
            (Answer::Done, None) => {
                lock(&self.shared.account).note("open", "-", Answer::Wrong("no session id".to_owned()));
                return Ok(());
            }
            (answer, _) => {
                lock(&self.shared.account).note("open", "-", answer);
                return Ok(());
            }
        };
        lock(&self.shared.account).opened += 1;
        for user in [1 - opener, opener] {
            let answer = self.ask("use", user, &id, ping)?;
            lock(&self.shared.account).note("use", &id, answer);
        }
        if number.is_multiple_of(KEPT_OF) {
            self.alive.push(id.clone());
            lock(&self.shared.account).alive.push(id);
            return Ok(());
        }
        // After a retryable error nobody knows whether it ended: the account is silent on it.
        let answer = self.ask("end", 1 - opener, &id, end)?;
        let mut account = lock(&self.shared.account);
        if answer == Answer::Done {
            account.ended.push(id);
        } else {
            account.note("end", &id, answer);
        }
        Ok(())
    }

    fn ask(
        &mut self,
        what: &'static str,
        pod: usize,
        id: &str,
        ask: impl FnOnce(&mut Connection, &str) -> std::io::Result<Answer>,
    ) -> std::io::Result<Answer> {
        self.timed(what, pod, |connection| {
            let answer = ask(connection, id)?;
            Ok((answer.clone(), answer))
        })
    }

    fn timed<T>(
        &mut self,
        what: &'static str,
        pod: usize,
        ask: impl FnOnce(&mut Connection) -> std::io::Result<(Answer, T)>,
    ) -> std::io::Result<T> {
        let begun = Instant::now();
        let (answer, value) = ask(&mut self.connections[pod])?;
        let answered = Instant::now();
        let mut account = lock(&self.shared.account);
        account.requests += 1;
        account.retryable += usize::from(answer == Answer::Retryable);
        let slowest = account.slowest.entry(what).or_default();
        *slowest = (answered - begun).max(*slowest);
        account.log.push((answered, answer == Answer::Done));
        Ok(value)
    }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}
